/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plaintext at the border of TLS libraries. Which socket a TLS object belongs to is learnt from the system call that
 * the library makes inside the call (bind_object); infer.h has what is known of programs that move ciphertext themselves.
 */
#ifndef RINGTAP_TLS_H
#define RINGTAP_TLS_H

#include "sockets.h"

/* Of a call that is `exact` the socket is learnt inside: nothing that the thread received before tells it. */
static __always_inline int begin_call(struct tls_call *call, int exact)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *open = bpf_map_lookup_elem(&tls_calls, &thread);

	/*
	 * A call inside a call (TLS in TLS) carries the outer one's ciphertext, unless it writes to the object that the
	 * outer one reads from. A call whose frame is not below the open one's means that the open one never returned.
	 */
	if (open && call->stack < open->stack) {
		if (call->payload && call->ssl == open->ssl && call->direction == RT_SENT && open->direction == RT_RECEIVED)
			bpf_map_update_elem(&inner_calls, &thread, call, BPF_ANY);
		return 0;
	}
	if (exact)
		bpf_map_delete_elem(&last_received, &thread);
	else
		infer_by_received(call->ssl);
	if (open && open->ssl) {
		call->mixed = open->mixed || open->ssl != call->ssl;
		call->written = open->written;
	}
	/*
	 * The entry stays: for what the thread sends after the call, and since to make and remove one each time costs more
	 * than all the rest.
	 */
	if (open)
		*open = *call;
	else if (bpf_map_update_elem(&tls_calls, &thread, call, BPF_ANY))
		COUNT(calls_full, 1);
	return 0;
}

static __always_inline int is_left_alone(__u32 tgid)
{
	return tgid == self_tgid || is_excluded(tgid, RT_X_DATA | RT_X_TLS | RT_X_HTTP);
}

/* A call of a library's function; where it leaves its byte count, or 0 if it returns it. */
static __always_inline int enter_call(struct call_regs *regs, __u8 direction, __u8 payload, __u64 count_at, __u8 library)
{
	struct tls_call call = {
		.ssl = CALL_ARG1(regs), .buffer = CALL_ARG2(regs), .count_at = count_at, .room = CALL_ARG3(regs),
		.stack = CALL_STACK(regs), .direction = direction, .payload = payload, .library = library,
	};

	return is_left_alone(bpf_get_current_pid_tgid() >> 32) ? 0 : begin_call(&call, 0);
}

/* The id that stands in for a socket that is not known. */
static __always_inline __u64 unattributed_id(struct tls_object *o)
{
	if (!o->unattributed)
		o->unattributed = (3ULL << 62) | (bpf_ktime_get_boot_ns() << 6 & ~(3ULL << 62)) |
				  (bpf_get_smp_processor_id() & 63);
	return o->unattributed;
}

/* `vectors`: so many pieces lie at the call's buffer; 0: the bytes themselves. Without a buffer they cannot be read. */
static __always_inline void emit_plaintext(struct tls_call *call, __u64 len, __u32 vectors)
{
	struct tls_object *o = tls_object(call->ssl, 1);
	__u32 direction = call->direction & 1, flags, meta;
	struct rt_activity *a = activity_of(bpf_get_current_pid_tgid() >> 32);
	struct connection *c;
	__u64 conn, offset;

	if (a) {
		__sync_fetch_and_add(&a->clear_bytes, len);
		a->libraries |= 1ULL << (call->library & 63);
	}
	if (direction == RT_SENT)
		call->written += len;
	if (!o)
		return;
	c = connection_of(o);
	if (c && o->inferred && direction == RT_RECEIVED)
		verify_received(o, c, len, call->room);
	conn = o->conn ?: unattributed_id(o);
	offset = o->offset[direction];
	o->offset[direction] += len;
	if (c) {
		announce(c);
		o->ignored = c->ignored;
		c->tls_offset[direction] = o->offset[direction];
		c->protocol = PROTOCOL_TLS;
	}
	if (o->ignored || (!c && is_excluded(bpf_get_current_pid_tgid() >> 32, RT_X_OFF)))
		return;
	flags = (o->conn && !o->doubted ? 0 : RT_F_UNATTRIBUTED) | (o->inferred ? RT_F_INFERRED : 0) |
		(o->verified ? RT_F_VERIFIED : 0) | (o->late ? RT_F_LATE : 0);
	if (flags & RT_F_UNATTRIBUTED)
		COUNT(unattributed_bytes, len);
	COUNT(seen_bytes, len);
	meta = META(direction, RT_TLS, flags) | META_LIBRARY(call->library);
	if (call->buffer)
		emit_io(call->buffer, offset, conn, len, vectors, 0, meta);
	else
		emit_unread(len, offset, conn, meta | META(0, 0, call->library == RT_RUSTLS ? RT_F_FAULT : RT_F_SENDFILE));
}

SEC("uprobe")
int handle_read(struct call_regs *regs)
{
	return enter_call(regs, RT_RECEIVED, 1, 0, RT_OPENSSL);
}

SEC("uprobe")
int handle_read_ex(struct call_regs *regs)
{
	return enter_call(regs, RT_RECEIVED, 1, CALL_ARG4(regs), RT_OPENSSL);
}

SEC("uprobe")
int handle_write(struct call_regs *regs)
{
	return enter_call(regs, RT_SENT, 1, 0, RT_OPENSSL);
}

SEC("uprobe")
int handle_write_ex(struct call_regs *regs)
{
	return enter_call(regs, RT_SENT, 1, CALL_ARG4(regs), RT_OPENSSL);
}

/* OpenSSL 3.3 put flags before the count: SSL_write_ex2 and the function inside. */
SEC("uprobe")
int handle_write_ex2(struct call_regs *regs)
{
	return enter_call(regs, RT_SENT, 1, CALL_ARG5(regs), RT_OPENSSL);
}

/* From a file to the kernel's own TLS: no byte of it passes here, but the streams' offsets go on. */
SEC("uprobe")
int handle_sendfile(struct call_regs *regs)
{
	struct tls_call *call;

	enter_call(regs, RT_SENT, 1, 0, RT_OPENSSL);
	call = open_call();
	/* Not the outer one, if this is a call in a call. */
	if (call && call->stack == CALL_STACK(regs))
		call->buffer = 0;
	return 0;
}

/* Of any library: the connection is learnt from the system calls inside. */
SEC("uprobe")
int handle_handshake(struct call_regs *regs)
{
	return enter_call(regs, RT_RECEIVED, 0, 0, RT_OPENSSL);
}

/* Libraries whose functions take the object, the buffer and its size, and return how many bytes moved. */
#define PLAIN_LIBRARY(name, library) \
	SEC("uprobe") \
	int handle_##name##_read(struct call_regs *regs) \
	{ \
		return enter_call(regs, RT_RECEIVED, 1, 0, library); \
	} \
	SEC("uprobe") \
	int handle_##name##_write(struct call_regs *regs) \
	{ \
		return enter_call(regs, RT_SENT, 1, 0, library); \
	}
PLAIN_LIBRARY(gnutls, RT_GNUTLS)
PLAIN_LIBRARY(mbedtls, RT_MBEDTLS)
PLAIN_LIBRARY(wolfssl, RT_WOLFSSL)
PLAIN_LIBRARY(s2n, RT_S2N)

/* NSPR's functions serve files and plain sockets too: only a layer above another one can be TLS. */
#define NSPR_LAYERED 4
static __always_inline int enter_nspr_call(struct call_regs *regs, __u8 direction)
{
	__u64 methods = 0;
	__u32 type = 0;

	if (bpf_probe_read_user(&methods, sizeof(methods), (void *)CALL_ARG1(regs)) ||
	    bpf_probe_read_user(&type, sizeof(type), (void *)methods) || type != NSPR_LAYERED)
		return 0;
	return enter_call(regs, direction, 1, 0, RT_NSS);
}

SEC("uprobe")
int handle_nspr_read(struct call_regs *regs)
{
	return enter_nspr_call(regs, RT_RECEIVED);
}

SEC("uprobe")
int handle_nspr_write(struct call_regs *regs)
{
	return enter_nspr_call(regs, RT_SENT);
}

SEC("uretprobe")
int handle_return(struct call_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *open = open_call(), *call = open;
	int result = (int)CALL_RESULT(regs);
	struct rt_activity *a;
	__u64 len = result, stack;
	int inner = 0;

	if (thread >> 32 == self_tgid)
		return 0;
	a = activity_of(thread >> 32);
	if (a)
		__sync_fetch_and_add(&a->calls, 1);
	if (!open)
		return 0;
	/* A call inside the open one returns below its frame. */
	if (CALL_STACK(regs) < open->stack + RETURN_POPS) {
		call = bpf_map_lookup_elem(&inner_calls, &thread);
		if (!call || !call->stack || CALL_STACK(regs) != call->stack + RETURN_POPS)
			return 0;
		inner = 1;
	}
	stack = call->stack;
	call->stack = 0;
	/* Above its frame: the open one was left without a return. */
	if (CALL_STACK(regs) > stack + RETURN_POPS || !call->payload || result <= 0)
		return 0;
	/* The count lies in memory of the process: it cannot be more than what was asked for, or than a call can move. */
	if (call->count_at &&
	    (bpf_probe_read_user(&len, sizeof(len), (void *)call->count_at) || len > call->room || len >> 31)) {
		COUNT(counts_unread, 1);
		return 0;
	}
	if (len)
		emit_plaintext(call, len, 0);
	/* What is sent next holds this too. */
	if (inner)
		open->written += len;
	return 0;
}

SEC("uprobe")
int handle_free(struct call_regs *regs)
{
	struct tls_key key = { .ssl = CALL_ARG1(regs), .tgid = bpf_get_current_pid_tgid() >> 32 };
	struct tls_object *o = bpf_map_lookup_elem(&tls_objects, &key);
	struct connection *c;

	if (!o)
		return 0;
	c = connection_of(o);
	if (c && c->ssl == key.ssl)
		c->ssl = 0;
	bpf_map_delete_elem(&tls_objects, &key);
	return 0;
}

#endif
