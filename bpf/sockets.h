/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TCP connections: where they begin and end, which are wanted, and the payload of the system calls on them. */
#ifndef RINGTAP_SOCKETS_H
#define RINGTAP_SOCKETS_H

#include "emit.h"
#include "infer.h"

/* The file behind a descriptor of the current process. */
static __always_inline struct file *file_of(int fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = 0;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/* The socket of a file, or 0. */
static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* A function of its own for those that have little room on the stack. */
__noinline __u64 socket_at(int fd)
{
	return (__u64)sock_of(file_of(fd));
}

static __always_inline int is_inet(struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6;
}

/* A stream, as HTTP needs it; sockets for datagrams and packets are many more. */
static __always_inline int is_unix_stream(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX && BPF_CORE_READ(sk, sk_type) == SOCK_STREAM;
}

/* The socket of an internet protocol behind a descriptor, or 0. */
static __always_inline struct sock *inet_socket_of(int fd)
{
	struct sock *sk = sock_of(file_of(fd));

	return sk && is_inet(sk) ? sk : 0;
}

/* The TCP socket behind a descriptor, or 0. */
static __always_inline struct sock *socket_of(int fd)
{
	struct sock *sk = inet_socket_of(fd);

	return sk && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP ? sk : 0;
}

static __always_inline void read_ends(struct sock *sk, struct rt_endpoints *ends)
{
	__u16 port = BPF_CORE_READ(sk, __sk_common.skc_dport);

	ends->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	ends->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	ends->remote_port = __builtin_bswap16(port);
	if (ends->family == AF_INET) {
		*(__u32 *)ends->local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		*(__u32 *)ends->remote = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&ends->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&ends->remote, sk, __sk_common.skc_v6_daddr);
	}
}

/* Where the IPv4 address lies: directly, or mapped into IPv6. 0: it is IPv6. */
static __always_inline const __u8 *ipv4_of(const struct rt_endpoints *ends, const __u8 *address)
{
	if (ends->family == AF_INET)
		return address;
	for (int i = 0; i < 10; i++)
		if (address[i])
			return 0;
	return address[10] == 0xff && address[11] == 0xff ? address + 12 : 0;
}

static __always_inline int is_loopback(const struct rt_endpoints *ends)
{
	const __u8 *a = ipv4_of(ends, ends->remote);

	if (a)
		return a[0] == 127;
	for (int i = 0; i < 15; i++)
		if (ends->remote[i])
			return 0;
	return ends->remote[15] == 1;
}

/* Private, link-local, shared (100.64/10) and loopback addresses are internal. */
static __always_inline int is_internal(const struct rt_endpoints *ends)
{
	const __u8 *a = ipv4_of(ends, ends->remote);

	if (a)
		return a[0] == 10 || a[0] == 127 || (a[0] == 172 && (a[1] & 0xf0) == 16) ||
		       (a[0] == 192 && a[1] == 168) || (a[0] == 169 && a[1] == 254) ||
		       (a[0] == 100 && (a[1] & 0xc0) == 64);
	a = ends->remote;
	return (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || is_loopback(ends);
}

/* Unknown roles pass: user space learns them from who sends the request, and decides then. */
static __always_inline int is_unwanted(const struct rt_endpoints *ends)
{
	if (is_loopback(ends) && !(wanted & RT_W_LOOPBACK))
		return 1;
	if (ends->role == RT_SERVER)
		return !(wanted & RT_W_INGRESS);
	if (ends->role == RT_CLIENT)
		return !(wanted & (is_internal(ends) ? RT_W_EGRESS_INTERNAL : RT_W_EGRESS_EXTERNAL));
	return 0;
}

/* The socket's cookie where one was made, else an id of our own. */
static __always_inline __u64 connection_id(struct sock *sk)
{
	__u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);

	return cookie ?: (1ULL << 63) | (bpf_ktime_get_boot_ns() << 6) | (bpf_get_smp_processor_id() & 63);
}

/*
 * A function of its own for its room on the stack: kernels before 6.13 allow 512 bytes for a whole chain of calls, each
 * rounded up to 32, and all of them 8 calls. The same goes for the others here that take scalars only and are not static.
 */
__noinline int insert_connection(__u64 key, __u32 role, __u32 late, __u32 tgid)
{
	struct sock *sk = (void *)key;
	struct connection c = {};

	c.id = connection_id(sk);
	c.tgid = tgid;
	c.late = late;
	c.ends.role = role;
	c.seq[RT_SENT] = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	c.seq[RT_RECEIVED] = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	read_ends(sk, &c.ends);
	c.ignored = is_unwanted(&c.ends);
	if (bpf_map_update_elem(&connections, &key, &c, BPF_NOEXIST) == -7 /* E2BIG */)
		COUNT(connections_full, 1);
	return 0;
}

static __always_inline struct connection *add_connection(struct sock *sk, __u8 role, __u8 late, __u32 tgid)
{
	__u64 key = (__u64)sk;

	insert_connection(key, role, late, tgid);
	return bpf_map_lookup_elem(&connections, &key);
}

static __always_inline void emit_open(struct connection *c)
{
	__u32 shard = shard_of(c->id);
	void *ring = bpf_map_lookup_elem(&rings, &shard);
	struct {
		struct rt_record head;
		struct rt_endpoints ends;
	} *r;

	if (!ring)
		return;
	r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);
	if (!r) {
		/* Tried again with the next payload. */
		COUNT(ring_full_records, 1);
		return;
	}
	fill_head(&r->head, RT_OPEN, c->id);
	r->head.tgid = c->tgid;
	r->head.size = sizeof(r->ends);
	r->head.flags = (c->late ? RT_F_LATE : 0) | (c->datagrams ? RT_F_DATAGRAM : 0);
	r->ends = c->ends;
	c->announced = 1;
	bpf_ringbuf_submit(r, submit_flags(shard));
	COUNT(captured_records, 1);
}

/* Tells user space of a connection when the process is known: the one that first calls on it. */
static __always_inline void announce(struct connection *c)
{
	if (c->announced || c->ignored)
		return;
	if (!c->tgid)
		c->tgid = bpf_get_current_pid_tgid() >> 32;
	if (c->tgid == self_tgid || is_excluded(c->tgid, RT_X_DATA | RT_X_HTTP)) {
		c->ignored = 1;
		return;
	}
	emit_open(c);
}

__noinline int announce_socket(__u64 socket)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &socket);

	if (c)
		announce(c);
	return 0;
}

/* User space finds the end of the connection in a map when the ring had no room for it. */
static __always_inline void keep_end(struct connection *c)
{
	struct rt_end end = { .time_ns = bpf_ktime_get_boot_ns() };
	__u64 id = c->id;

	COUNT(ring_full_records, 1);
	__builtin_memcpy(end.totals.socket, c->offset, sizeof(end.totals.socket));
	__builtin_memcpy(end.totals.tls, c->tls_offset, sizeof(end.totals.tls));
	if (bpf_map_update_elem(&lost_ends, &id, &end, BPF_ANY))
		COUNT(ends_lost, 1);
}

static __always_inline void emit_close(struct connection *c)
{
	__u32 shard = shard_of(c->id);
	void *ring = bpf_map_lookup_elem(&rings, &shard);
	struct {
		struct rt_record head;
		struct rt_totals totals;
	} *r;

	if (!ring)
		return;
	r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);
	if (!r) {
		keep_end(c);
		return;
	}
	fill_head(&r->head, RT_CLOSE, c->id);
	r->head.tgid = c->tgid;
	r->head.flags = c->ignored == IGNORED_GOVERNED ? RT_F_GOVERNED : 0;
	r->head.size = sizeof(r->totals);
	__builtin_memcpy(r->totals.socket, c->offset, sizeof(r->totals.socket));
	__builtin_memcpy(r->totals.tls, c->tls_offset, sizeof(r->totals.tls));
	bpf_ringbuf_submit(r, submit_flags(shard));
	COUNT(captured_records, 1);
}

/* Bytes that moved by no call that we saw. Where the kernel encrypts, these are what it adds to each record. */
__noinline int count_unseen(__u32 protocol, __u32 tgid, __u32 len)
{
	struct rt_activity *a;

	COUNT(seen_bytes, len);
	if (protocol == PROTOCOL_TLS) {
		COUNT(ciphertext_bytes, len);
		return 0;
	}
	COUNT(unseen_bytes, len);
	a = activity_of(tgid);
	if (a)
		__sync_fetch_and_add(&a->unseen_bytes, len);
	return 0;
}

/* What was sent without a call that we saw still shows in the sequence number. */
static __always_inline void settle_sent(struct sock *sk, struct connection *c, int oldstate)
{
	__u32 seq = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	__s32 more = seq - c->seq[RT_SENT];

	if (oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2 || oldstate == TCP_LAST_ACK ||
	    oldstate == TCP_CLOSING || oldstate == TCP_TIME_WAIT)
		more--; /* the FIN */
	if (more <= 0)
		return;
	c->offset[RT_SENT] += more;
	/* Of a process that was excluded after its beginning nobody has followed the numbers. */
	if (c->announced && !c->ignored && !is_excluded(c->tgid, RT_X_DATA | RT_X_HTTP))
		count_unseen(c->protocol, c->tgid, more);
}

static __always_inline void end_connection(struct sock *sk, int oldstate)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (!c)
		return;
	/* Without its last state it is not known whether a FIN is among the numbers. */
	if (oldstate != TCP_CLOSE)
		settle_sent(sk, c, oldstate);
	/* Also if its beginning could not be told: user space has made an entry from its payload. */
	if (c->ignored != IGNORED_UNWANTED &&
	    (c->announced || c->offset[0] | c->offset[1] | c->tls_offset[0] | c->tls_offset[1]))
		emit_close(c);
	bpf_map_delete_elem(&connections, &key);
}

SEC("raw_tp/inet_sock_set_state")
int handle_socket_state(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int oldstate = ctx[1], newstate = ctx[2];
	__u64 key = (__u64)sk;
	struct connection *c;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	if (newstate == TCP_CLOSE) {
		end_connection(sk, oldstate);
		return 0;
	}
	/* What a socket was before at the same address, if its end was missed, does not belong to this one. */
	if (newstate == TCP_SYN_SENT || (newstate == TCP_ESTABLISHED && oldstate == TCP_SYN_RECV))
		bpf_map_delete_elem(&connections, &key);
	if (newstate == TCP_SYN_SENT) {
		/* In the context of connect(): the one moment when the caller is known. */
		add_connection(sk, RT_CLIENT, 0, bpf_get_current_pid_tgid() >> 32);
		return 0;
	}
	if (newstate != TCP_ESTABLISHED)
		return 0;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c) {
		add_connection(sk, RT_SERVER, 0, 0);
		return 0;
	}
	/* The source port and the first sequence numbers are known only now. */
	c->id = connection_id(sk);
	c->seq[RT_SENT] = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	c->seq[RT_RECEIVED] = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	read_ends(sk, &c->ends);
	c->ignored = is_unwanted(&c->ends);
	announce(c);
	return 0;
}

/*
 * Behind the one above: its program is skipped for a socket whose state changes in an interrupt while the same program
 * runs for another one on that processor.
 */
SEC("raw_tp/tcp_destroy_sock")
int handle_destroy(__u64 *ctx)
{
	end_connection((void *)ctx[0], TCP_CLOSE);
	return 0;
}

/* Run twice by user space at the start: listeners first, then the connections that exist. */
SEC("iter/tcp")
int handle_existing(__u64 *ctx)
{
	struct sock *sk = 0;
	struct listener l = {};
	__u8 state, one = 1;

	/* Read like this it is a number, which functions that are not static take. */
	bpf_probe_read_kernel(&sk, sizeof(sk), &ctx[1]);
	if (!sk)
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	l.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (state == TCP_LISTEN)
		bpf_map_update_elem(&listeners, &l, &one, BPF_ANY);
	else if (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_FIN_WAIT1 ||
		 state == TCP_FIN_WAIT2)
		add_connection(sk, bpf_map_lookup_elem(&listeners, &l) ? RT_SERVER : RT_CLIENT, 1, 0);
	return 0;
}

/* First bytes that only TLS begins with. On a connection older than the agent this can be any record. */
static __always_inline int looks_like_tls(__u64 from, __u64 len)
{
	__u8 b[2] = {};

	if (!from || bpf_probe_read_user(b, len < 2 ? 1 : 2, (void *)from))
		return 0;
	return b[0] >= 20 && b[0] <= 23 && (len < 2 || b[1] == 3);
}

static __always_inline int has_received_fin(__u8 state)
{
	return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING || state == TCP_TIME_WAIT ||
	       state == TCP_CLOSE;
}

/* Offset of the first of `len` bytes that have just moved, from TCP's own sequence numbers. */
static __always_inline __u64 take_offset(struct sock *sk, struct connection *c, __u32 direction, __u32 len)
{
	__u32 seq = direction == RT_SENT ? BPF_CORE_READ((struct tcp_sock *)sk, write_seq)
					 : BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	__s32 unseen;

	direction &= 1;
	/* Moved by calls that we did not see: a gap. Never backwards: another thread may have been faster. */
	unseen = seq - c->seq[direction] - len;
	if (unseen < 0)
		unseen = 0;
	c->seq[direction] += unseen + len;
	/* A call that meets the end of the stream takes the FIN's sequence number too. */
	if (unseen && direction == RT_RECEIVED && has_received_fin(BPF_CORE_READ(sk, __sk_common.skc_state)))
		unseen--;
	if (unseen > 0 && !c->ignored)
		count_unseen(c->protocol, bpf_get_current_pid_tgid() >> 32, unseen);
	c->offset[direction] += (__u64)unseen + len;
	return c->offset[direction] - len;
}

/* Calls that only look at bytes, or read something else than the stream. */
#define NOT_PAYLOAD (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)

enum io_mode { IO_PAYLOAD, IO_DISCARDED, IO_SENDFILE, IO_FAULT, IO_SPLICED };

/* Direction and mode of a call in one argument. */
#define HOW(direction, mode) ((direction) | ((mode) << 1))
#define HOW_DIRECTION(how) ((how) & 1)
#define HOW_MODE(how) (((how) >> 1) & 7)
/* The address in the call is a name server's. */
#define HOW_TO_DNS (1 << 4)
/* It is that of a server for HTTP/3, by its port. */
#define HOW_TO_QUIC (1 << 5)
/* The buffer is an array of io vectors. */
#define HOW_VECTORS (1 << 6)
/* A request of io_uring: a file in place of a descriptor, and in place of the io vectors the request that keeps them. */
#define HOW_REQUEST (1 << 7)

static __always_inline struct connection *connection_at(struct sock *sk, __u32 len, __u32 direction)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		return c;
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE) {
		COUNT(after_close_bytes, len);
		return 0;
	}
	c = add_connection(sk, RT_UNKNOWN, 1, 0);
	if (c) /* The bytes of this call are already in the sequence numbers. */
		c->seq[direction & 1] -= len;
	return c;
}

/*
 * Whether the governor has the connection left out. It stays so until it ends, also if the process is within its budget
 * again: what went by meanwhile is not known, and two ends of a stream must not be taken for one piece.
 */
static __always_inline int is_left_out(struct connection *c, __u32 exclusion)
{
	if (!(exclusion & (RT_X_SAMPLED | RT_X_OFF)) ||
	    (!(exclusion & RT_X_OFF) && !((c->id * 0x9e3779b97f4a7c15ULL >> 40) & (RT_SAMPLE - 1))))
		return 0;
	c->ignored = IGNORED_GOVERNED;
	COUNT(governed_connections, 1);
	return 1;
}

/* What fills more than one buffer is not looked at whole: the first one, of which `len` bytes count. */
static __always_inline __u64 first_buffer(__u64 buffer, __u32 *len, __u32 how)
{
	struct ring_request *r;
	struct user_iovec v = {};

	if (!(how & HOW_VECTORS))
		return buffer;
	if (how & HOW_REQUEST) {
		r = bpf_map_lookup_elem(&ring_requests, &buffer);
		if (r)
			v = r->kept[0];
	} else if (bpf_probe_read_user(&v, sizeof(v), (void *)buffer)) {
		return 0;
	}
	if (v.len < *len)
		*len = v.len;
	return v.base;
}

/* Ciphertext, by the TLS call that the thread is in or by the first bytes. */
__noinline int is_ciphertext(__u64 socket, __u64 buffer, __u32 len, __u32 how)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &socket);
	struct tls_call *call = open_call();
	struct sock *sk = (void *)socket;

	if (!c)
		return 0;
	if (call) {
		bind_object(call, sk, c);
		c->protocol = PROTOCOL_TLS;
		return 1;
	}
	if (c->protocol == PROTOCOL_CLEAR)
		return 0;
	buffer = first_buffer(buffer, &len, how);
	if (c->protocol == PROTOCOL_UNKNOWN && HOW_MODE(how) == IO_PAYLOAD)
		c->protocol = looks_like_tls(buffer, len) ? PROTOCOL_TLS : PROTOCOL_CLEAR;
	if (c->protocol != PROTOCOL_TLS)
		return 0;
	if (HOW_MODE(how) != IO_PAYLOAD)
		buffer = 0;
	if (HOW_DIRECTION(how) == RT_RECEIVED && is_exact(c))
		return 1;
	if (HOW_DIRECTION(how) == RT_RECEIVED)
		remember_received(sk, c, buffer, len);
	else
		infer_by_sent(sk, c, buffer, len);
	return 1;
}

/* Whose address a program gave, or was given: a name server's, or that of a server for HTTP/3. */
static __always_inline __u32 how_of_address(__u64 address)
{
	struct {
		__u16 family, port;
	} a = {};

	if (!address || bpf_probe_read_user(&a, sizeof(a), (void *)address) ||
	    (a.family != AF_INET && a.family != AF_INET6))
		return 0;
	return a.port == __builtin_bswap16(PORT_DNS)   ? HOW_TO_DNS :
	       a.port == __builtin_bswap16(PORT_HTTPS) ? HOW_TO_QUIC :
							 0;
}

/* A UDP socket whose other end is a name server. */
static __always_inline int is_dns_socket(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_UDP &&
	       BPF_CORE_READ(sk, __sk_common.skc_dport) == __builtin_bswap16(PORT_DNS);
}

/* Counts datagrams that are HTTP/3 by their port, on either side: they are not decoded, and that is told. */
static __always_inline void count_quic(struct sock *sk, __u32 len, __u32 how)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 first = len, *bytes;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_UDP ||
	    (!(how & HOW_TO_QUIC) && BPF_CORE_READ(sk, __sk_common.skc_num) != PORT_HTTPS &&
	     BPF_CORE_READ(sk, __sk_common.skc_dport) != __builtin_bswap16(PORT_HTTPS)))
		return;
	bytes = bpf_map_lookup_elem(&quic_bytes, &tgid);
	if (bytes)
		__sync_fetch_and_add(bytes, len);
	else
		bpf_map_update_elem(&quic_bytes, &tgid, &first, BPF_ANY);
}

static __always_inline int emit_io(__u64 buffer, __u64 offset, __u64 id, __u32 len, __u32 vectors, __u32 how, __u32 meta)
{
	if (!vectors)
		return emit_range(buffer, offset, id, len, meta);
	if (how & HOW_REQUEST)
		return emit_kept(buffer, offset, id, len, meta);
	if (vectors > RT_PIECES_MAX)
		vectors = RT_PIECES_MAX;
	return emit_vectors(buffer, offset, id, len, meta | (vectors << META_COUNT_SHIFT));
}

/* Both ends of a socket to a name server, for user space to report. A function of its own for its room on the stack. */
__noinline int emit_dns_open(__u64 socket, __u64 id)
{
	struct connection c = { .id = id, .datagrams = 1 };

	c.tgid = bpf_get_current_pid_tgid() >> 32;
	c.ends.role = RT_CLIENT;
	read_ends((struct sock *)socket, &c.ends);
	emit_open(&c);
	return 0;
}

/*
 * The id of a socket for a datagram to or from a name server: the answers give names to addresses. Such sockets have no
 * cookie: their address, mixed with the process, stands for one. 0: the datagram is no concern of ours.
 */
__noinline __u64 begin_datagram(__u64 socket, __u32 len, __u32 how)
{
	__u64 tgid = bpf_get_current_pid_tgid() >> 32, id;
	struct sock *sk = (void *)socket;

	if (HOW_MODE(how) != IO_PAYLOAD || (!(how & HOW_TO_DNS) && !is_dns_socket(sk))) {
		count_quic(sk, len, how);
		return 0;
	}
	if (is_excluded(tgid, RT_X_DATA | RT_X_DNS))
		return 0;
	id = (1ULL << 62) | ((socket ^ tgid * 0x9e3779b97f4a7c15ULL) >> 2);
	if ((wanted & RT_W_DNS) && HOW_DIRECTION(how) == RT_SENT)
		emit_dns_open(socket, id);
	COUNT(seen_bytes, len);
	return id;
}

/*
 * The same for requests of io_uring. Their completions come in batches: what TCP has beyond this one are the bytes of
 * those that come next. What moved before them was settled when they were handed in.
 */
static __always_inline __u64 take_next(struct connection *c, __u32 direction, __u32 len)
{
	direction &= 1;
	c->seq[direction] += len;
	c->offset[direction] += len;
	return c->offset[direction] - len;
}

/* The bytes themselves, or their length and the reason. */
static __always_inline int emit_moved(__u64 buffer, __u64 offset, __u64 id, __u32 len, __u32 vectors, __u32 how, __u32 flags)
{
	__u32 mode = HOW_MODE(how);

	if (mode == IO_PAYLOAD)
		return emit_io(buffer, offset, id, len, vectors, how, META(HOW_DIRECTION(how), RT_SOCKET, flags));
	flags |= mode == IO_SENDFILE  ? RT_F_SENDFILE :
		 mode == IO_SPLICED   ? RT_F_SPLICED :
		 mode == IO_DISCARDED ? RT_F_DISCARDED :
					RT_F_FAULT;
	emit_unread(len, offset, id, META(HOW_DIRECTION(how), RT_SOCKET, flags));
	return 0;
}

/* In unix.h. */
__u64 begin_unix(__u64 socket, __u64 inode, __u64 buffer, __u32 len, __u32 how);

/*
 * A call on a socket has moved `len` bytes: from or to `buffer`, or the `vectors` io vectors that lie there.
 * `from` is its descriptor, or for a request of io_uring its file. Not static, so that the verifier sees it once.
 */
__noinline int handle_io(__u64 from, __u64 buffer, __u32 len, __u32 vectors, __u32 how)
{
	struct file *file = how & HOW_REQUEST ? (struct file *)from : file_of(from);
	__u32 direction = HOW_DIRECTION(how), mode = HOW_MODE(how), exclusion;
	struct sock *sk = sock_of(file);
	struct unix_connection *u;
	struct rt_activity *a;
	struct connection *c;
	__u64 offset, id;
	int ciphertext;
	__u32 hello;

	if (!sk || !len)
		return 0;
	if (vectors)
		how |= HOW_VECTORS;
	if (!is_inet(sk)) {
		id = (__u64)sk;
		u = begin_unix(id, BPF_CORE_READ(file, f_inode, i_ino), buffer, len, how) ?
			    bpf_map_lookup_elem(&unix_sockets, &id) : 0;
		if (!u)
			return 0;
		COUNT(seen_bytes, len);
		offset = u->c.offset[direction & 1];
		u->c.offset[direction & 1] += len;
		return emit_moved(buffer, offset, u->c.id, len, vectors, how, u->c.late ? RT_F_LATE : 0);
	}
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP) {
		id = begin_datagram((__u64)sk, len, how);
		return id ? emit_io(buffer, 0, id, len, vectors, how, META(direction, RT_SOCKET, RT_F_DATAGRAM)) : 0;
	}
	c = connection_at(sk, len, direction);
	if (!c)
		return 0;
	id = c->id;
	/* Also for connections that are not wanted: a TLS object must know that its socket is one of them. */
	ciphertext = (c->protocol != PROTOCOL_CLEAR || open_call()) &&
		     is_ciphertext((__u64)sk, buffer, len, how);
	a = activity_of(bpf_get_current_pid_tgid() >> 32);
	if (a) {
		__sync_fetch_and_add(ciphertext ? &a->tls_bytes : &a->socket_bytes, len);
		__sync_fetch_and_add(&a->io_calls, 1);
	}
	if (c->ignored)
		return 0;
	exclusion = exclusion_of(bpf_get_current_pid_tgid() >> 32);
	if (exclusion & (RT_X_DATA | RT_X_HTTP) || is_left_out(c, exclusion))
		return 0;
	if (!c->announced)
		announce_socket((__u64)sk);
	if (c->ignored)
		return 0;
	offset = how & HOW_REQUEST ? take_next(c, direction, len) : take_offset(sk, c, direction, len);
	/* The entry was given to another connection meanwhile: this one was reset. */
	if (c->id != id) {
		COUNT(after_close_bytes, len);
		return 0;
	}
	COUNT(seen_bytes, len);
	if (ciphertext) {
		/* But for the hello messages, which tell the name that is asked for. */
		hello = offset < RT_HELLO_MAX && !c->late && mode == IO_PAYLOAD ? RT_HELLO_MAX - offset : 0;
		if (hello > len)
			hello = len;
		COUNT(ciphertext_bytes, len - hello);
		if (!hello)
			return 0;
		len = hello;
	}
	return emit_moved(buffer, offset, id, len, vectors, how, c->late ? RT_F_LATE : 0);
}

static __always_inline __u32 how_of_message(__u64 message)
{
	__u64 name;

	return bpf_probe_read_user(&name, sizeof(name), (void *)message) ? 0 : how_of_address(name);
}

/* sendmsg and recvmsg, and each message of their plural forms. */
__noinline int handle_message(int fd, __u64 message, __u32 len, __u32 how)
{
	struct user_msghead m;

	if (bpf_probe_read_user(&m, sizeof(m), (void *)message))
		return handle_io(fd, 0, len, 0, HOW(HOW_DIRECTION(how), IO_FAULT));
	return handle_io(fd, m.iov, len, m.iovlen, how | how_of_address(m.name));
}

static __always_inline __u32 message_len(__u64 message)
{
	__u32 len = 0;

	bpf_probe_read_user(&len, sizeof(len), (void *)(message + sizeof(struct user_msghdr)));
	return len;
}

/* A function of its own: two loops in one would be verified as often as the product of their rounds. */
__noinline int total_len(__u64 messages, __u32 count)
{
	__u32 total = 0;

	for (int i = 0; i < RT_PIECES_MAX && i < count; i++)
		total += message_len(messages + i * sizeof(struct user_mmsghdr));
	return total;
}

/* Those that move streams of datagrams pay for no more than this. */
__noinline int count_datagrams(__u64 sk, __u64 messages, __u32 count, __u32 how)
{
	count_quic((struct sock *)sk, total_len(messages, count), how | how_of_message(messages));
	return 0;
}

/*
 * sendmmsg and recvmmsg: the messages' bytes lie back to back in the stream. What moved before them is settled first;
 * then each message only adds its own length, and at the end both counts are put where TCP has them.
 */
__noinline int handle_messages(int fd, __u64 messages, __u32 count, __u32 how)
{
	__u32 direction = HOW_DIRECTION(how), total, seq = 0;
	struct sock *sk = (void *)socket_at(fd);
	__u64 key = (__u64)sk, offset = 0;
	struct connection *c;

	if (!sk)
		return 0;
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_UDP && !is_dns_socket(sk))
		return count_datagrams(key, messages, count, how);
	total = total_len(messages, count);
	c = bpf_map_lookup_elem(&connections, &key);
	if (c) {
		take_offset(sk, c, direction, total);
		seq = c->seq[direction & 1];
		offset = c->offset[direction & 1];
		c->offset[direction & 1] = offset - total;
	}
	for (int i = 0; i < RT_PIECES_MAX && i < count; i++) {
		__u64 message = messages + i * sizeof(struct user_mmsghdr);

		handle_message(fd, message, message_len(message), how);
	}
	if (c) {
		c->seq[direction & 1] = seq;
		c->offset[direction & 1] = offset;
	}
	return 0;
}

#endif
