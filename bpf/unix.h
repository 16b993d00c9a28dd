/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * HTTP on Unix sockets. The kernel tells neither of their beginning nor of their end, and they have no sequence numbers.
 * A socket is followed from the first call whose bytes begin as HTTP does; all others, of which a machine has many, cost
 * one look at eight bytes a call and no state.
 */
#ifndef RINGTAP_UNIX_H
#define RINGTAP_UNIX_H

#include "sockets.h"

/* After so long a silence a request begins another connection: user space has ended this one (UNIX_IDLE_NS there). */
#define UNIX_IDLE_NS 60000000000ULL

enum http_start { NO_START = 0, REQUEST_START = 1, RESPONSE_START = 2 };

/* Whether a word in memory's order begins with this text, of eight bytes at most. */
static __always_inline int begins_with(__u64 word, const char *text, int len)
{
	__u64 value = 0, mask = 0;

	for (int i = 0; i < len; i++) {
		value |= (__u64)(__u8)text[i] << (8 * i);
		mask |= 0xffULL << (8 * i);
	}
	return (word & mask) == value;
}
#define BEGINS(word, text) begins_with(word, text, sizeof(text) - 1)

/* Also the byte behind the method is looked at, where it fits: other protocols have commands of the same names. */
static __always_inline int is_request(__u64 word)
{
	return BEGINS(word, "GET /") || BEGINS(word, "POST /") || BEGINS(word, "PUT /") || BEGINS(word, "HEAD /") ||
	       BEGINS(word, "DELETE /") || BEGINS(word, "PATCH /") || BEGINS(word, "OPTIONS ") ||
	       BEGINS(word, "CONNECT ") || BEGINS(word, "TRACE /") || BEGINS(word, "GET http") ||
	       BEGINS(word, "POST htt") || BEGINS(word, "PUT http") || BEGINS(word, "HEAD htt") || BEGINS(word, "PRI * HT");
}

/* How the bytes at `from` begin. A request line that comes in pieces shorter than this is not seen as one. */
static __always_inline enum http_start http_start(__u64 from, __u32 len)
{
	__u64 word = 0;

	if (!from || len < sizeof(word) || bpf_probe_read_user(&word, sizeof(word), (void *)from))
		return NO_START;
	return is_request(word) ? REQUEST_START : BEGINS(word, "HTTP/1.") ? RESPONSE_START : NO_START;
}

/* Whoever sends the request is the client. Of a response's beginning the request was not seen. */
static __always_inline __u8 role_of_start(enum http_start start, __u32 direction)
{
	return (start == REQUEST_START) == (direction == RT_SENT) ? RT_CLIENT : RT_SERVER;
}

/* Filled in its place, for the room on the stack. */
static __always_inline struct unix_connection *add_unix(__u64 socket, __u64 inode, __u8 role, __u8 late)
{
	static const struct unix_connection fresh;
	struct unix_connection *u;

	bpf_map_update_elem(&unix_sockets, &socket, &fresh, BPF_ANY);
	u = bpf_map_lookup_elem(&unix_sockets, &socket);
	if (!u)
		return 0;
	u->inode = inode;
	u->c.id = connection_id((struct sock *)socket);
	u->c.tgid = bpf_get_current_pid_tgid() >> 32;
	u->c.late = late;
	u->c.protocol = PROTOCOL_CLEAR;
	u->c.ends.family = AF_UNIX;
	u->c.ends.role = role;
	u->c.ignored = !(wanted & (role == RT_SERVER ? RT_W_INGRESS : RT_W_EGRESS_INTERNAL));
	return u;
}

/* The address that the server is bound to: it is its connections' own, and that of clients' peers. */
static __always_inline struct unix_address *server_address(struct unix_sock *sk, __u8 role)
{
	struct unix_address *own = BPF_CORE_READ(sk, addr);
	struct unix_sock *peer;

	if (role == RT_SERVER && own)
		return own;
	peer = (void *)BPF_CORE_READ(sk, peer);
	return peer ? BPF_CORE_READ(peer, addr) : own;
}

static __always_inline void read_path(struct unix_address *address, char path[112])
{
	/* The family, two bytes, comes first. */
	__u64 at = (__u64)address + bpf_core_type_size(struct unix_address) + 2;
	__u32 len = address ? BPF_CORE_READ(address, len) : 0;

	__builtin_memset(path, 0, 112);
	if (len <= 2)
		return;
	len -= 2;
	barrier_var(len);
	if (len > 108)
		len = 108;
	if (bpf_probe_read_kernel(path, len, (void *)at))
		return;
	if (!path[0])
		path[0] = '@';
}

__noinline int emit_unix_open(__u64 socket)
{
	struct unix_connection *u = bpf_map_lookup_elem(&unix_sockets, &socket);
	struct {
		struct rt_record head;
		struct rt_unix_ends ends;
	} *r;
	__u32 shard;
	void *ring;

	if (!u)
		return 0;
	shard = shard_of(u->c.id);
	ring = bpf_map_lookup_elem(&rings, &shard);
	if (!ring)
		return 0;
	r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);
	if (!r) {
		/* Tried again with the next payload. */
		COUNT(ring_full_records, 1);
		return 0;
	}
	fill_head(&r->head, RT_OPEN, u->c.id);
	r->head.tgid = u->c.tgid;
	r->head.size = sizeof(r->ends);
	r->head.flags = u->c.late ? RT_F_LATE : 0;
	r->ends.ends = u->c.ends;
	read_path(server_address((struct unix_sock *)socket, u->c.ends.role), r->ends.path);
	u->c.announced = 1;
	bpf_ringbuf_submit(r, submit_flags(shard));
	COUNT(captured_records, 1);
	return 0;
}

__noinline int close_unix(__u64 socket)
{
	struct unix_connection *u = bpf_map_lookup_elem(&unix_sockets, &socket);

	if (!u)
		return 0;
	if (u->c.ignored != IGNORED_UNWANTED)
		emit_close(&u->c);
	bpf_map_delete_elem(&unix_sockets, &socket);
	return 0;
}

/*
 * The id of a Unix socket's connection, for bytes that have moved on it; 0: they are no concern of ours. It comes back
 * before anything of them is emitted, for the number of calls inside each other.
 */
__noinline __u64 begin_unix(__u64 socket, __u64 inode, __u64 buffer, __u32 len, __u32 how)
{
	struct unix_connection *u = bpf_map_lookup_elem(&unix_sockets, &socket);
	enum http_start start = NO_START;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 is_silent;

	if (!(wanted & RT_W_LOOPBACK) || !is_unix_stream((struct sock *)socket))
		return 0;
	is_silent = u && now - u->used_ns > UNIX_IDLE_NS;
	if ((!u || u->inode != inode || is_silent) && HOW_MODE(how) == IO_PAYLOAD) {
		buffer = first_buffer(buffer, &len, how);
		start = http_start(buffer, len);
	}
	if (u && (u->inode != inode || (is_silent && start == REQUEST_START))) {
		close_unix(socket);
		u = 0;
	}
	if (!u) {
		if (start == NO_START)
			return 0;
		u = add_unix(socket, inode, role_of_start(start, HOW_DIRECTION(how)), start == RESPONSE_START);
		if (!u)
			return 0;
	}
	u->used_ns = now;
	if (u->c.ignored || is_left_out(&u->c, exclusion_of(bpf_get_current_pid_tgid() >> 32)))
		return 0;
	if (!u->c.announced)
		emit_unix_open(socket);
	return u->c.id;
}

/*
 * A read has met the end of the stream: whatever the other side wrote has been seen. Both connections are over if that
 * was a server, which has nothing more to answer, or if it is closed; a client that has only ended its own stream still
 * waits for the answer.
 */
__noinline int end_unix(__u64 socket)
{
	struct unix_connection *u = bpf_map_lookup_elem(&unix_sockets, &socket);
	struct sock *sk = (void *)socket, *peer;

	/* To read nothing, where nothing was asked for, is no end. */
	if (!sk || !(wanted & RT_W_LOOPBACK) || !is_unix_stream(sk) || !(BPF_CORE_READ(sk, sk_shutdown) & RCV_SHUTDOWN))
		return 0;
	peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
	if (peer && BPF_CORE_READ(peer, sk_socket) && (!u || u->c.ends.role != RT_CLIENT))
		return 0;
	close_unix((__u64)peer);
	return close_unix(socket);
}

#endif
