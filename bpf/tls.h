/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plaintext at the border of TLS libraries. Which socket a TLS object belongs to is learnt from the system call that
 * the library makes inside the call (bind_object); for programs that move the ciphertext themselves, from the TLS
 * socket that the thread received on just before (infer_object), and the records say so.
 */
#ifndef RINGTAP_TLS_H
#define RINGTAP_TLS_H

#include "sockets.h"

static __always_inline struct tls_object *tls_object(__u64 ssl, int make)
{
	struct tls_key key = { .ssl = ssl, .tgid = bpf_get_current_pid_tgid() >> 32 };
	struct tls_object *o = bpf_map_lookup_elem(&tls_objects, &key);
	struct tls_object fresh = {};

	if (o || !make)
		return o;
	if (bpf_map_update_elem(&tls_objects, &key, &fresh, BPF_NOEXIST))
		COUNT(tls_objects_full, 1);
	return bpf_map_lookup_elem(&tls_objects, &key);
}

/* A TLS object serves one connection after another; its streams go on where the connection's are. */
static __always_inline void attach(struct tls_object *o, struct sock *sk, struct connection *c, __u64 ssl, __u8 inferred)
{
	o->sk = (__u64)sk;
	o->conn = c->id;
	o->offset[RT_SENT] = c->tls_offset[RT_SENT];
	o->offset[RT_RECEIVED] = c->tls_offset[RT_RECEIVED];
	o->ignored = c->ignored;
	o->late = c->late;
	o->inferred = inferred;
	c->ssl = ssl;
}

static __always_inline void bind_object(struct tls_call *call, struct sock *sk, struct connection *c)
{
	struct tls_object *o = tls_object(call->ssl, 1);

	if (o && o->conn != c->id)
		attach(o, sk, c, call->ssl, 0);
}

static __always_inline struct connection *connection_of(struct tls_object *o)
{
	__u64 key = o->sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c && c->id == o->conn ? c : 0;
}

/* Takes the thread's last received TLS socket, if it is still there and no other object's. */
static __always_inline void infer_object(__u64 ssl)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct socket_ref *ref = bpf_map_lookup_elem(&last_received, &thread);
	struct tls_object *o;
	struct connection *c;
	__u64 key;

	if (!ref)
		return;
	key = ref->sk;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c || c->id != ref->conn)
		return;
	if (c->ssl == ssl) {
		bpf_map_delete_elem(&last_received, &thread);
		return;
	}
	if (c->ssl)
		return;
	o = tls_object(ssl, 1);
	if (!o || (o->conn && connection_of(o)))
		return;
	attach(o, (struct sock *)key, c, ssl, 1);
	bpf_map_delete_elem(&last_received, &thread);
}

/* A call of a library's function; where it leaves its byte count, or 0 if it returns it. */
static __always_inline int enter_call(struct call_regs *regs, __u8 direction, __u8 payload, __u64 count_at, __u8 library)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *open, call = {
		.ssl = CALL_ARG1(regs), .buffer = CALL_ARG2(regs), .count_at = count_at, .room = CALL_ARG3(regs),
		.stack = CALL_STACK(regs), .direction = direction, .payload = payload, .library = library,
	};

	if (thread >> 32 == self_tgid || is_excluded(thread >> 32, RT_X_DATA | RT_X_TLS | RT_X_HTTP))
		return 0;
	open = bpf_map_lookup_elem(&tls_calls, &thread);
	/*
	 * A call inside a call (TLS in TLS) carries the outer one's ciphertext. A call whose frame is not below the
	 * open one's means that the open one never returned.
	 */
	if (open && call.stack < open->stack)
		return 0;
	infer_object(call.ssl);
	/* The entry stays for the thread's next call: to make and remove one each time costs more than all the rest. */
	if (open)
		*open = call;
	else if (bpf_map_update_elem(&tls_calls, &thread, &call, BPF_ANY))
		COUNT(calls_full, 1);
	return 0;
}

/* The id that stands in for a socket that is not known. */
static __always_inline __u64 unattributed_id(struct tls_object *o)
{
	if (!o->unattributed)
		o->unattributed = (3ULL << 62) | (bpf_ktime_get_boot_ns() << 6 & ~(3ULL << 62)) |
				  (bpf_get_smp_processor_id() & 63);
	return o->unattributed;
}

static __always_inline void emit_plaintext(struct tls_call *call, __u64 len)
{
	struct tls_object *o = tls_object(call->ssl, 1);
	__u32 direction = call->direction & 1, flags;
	struct rt_activity *a = activity_of(bpf_get_current_pid_tgid() >> 32);
	struct connection *c;
	__u64 conn, offset;

	if (a) {
		__sync_fetch_and_add(&a->clear_bytes, len);
		a->libraries |= 1ULL << (call->library & 63);
	}
	if (!o)
		return;
	conn = o->conn ?: unattributed_id(o);
	offset = o->offset[direction];
	o->offset[direction] += len;
	c = connection_of(o);
	if (c) {
		announce(c);
		o->ignored = c->ignored;
		c->tls_offset[direction] = o->offset[direction];
		c->protocol = PROTOCOL_TLS;
	}
	if (o->ignored)
		return;
	flags = (o->conn ? 0 : RT_F_UNATTRIBUTED) | (o->inferred ? RT_F_INFERRED : 0) | (o->late ? RT_F_LATE : 0);
	if (!o->conn)
		COUNT(unattributed_bytes, len);
	COUNT(seen_bytes, len);
	emit_range(call->buffer, offset, conn, len, META(direction, RT_TLS, flags) | META_LIBRARY(call->library));
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
	struct tls_call *call = open_call();
	int result = (int)CALL_RESULT(regs);
	struct rt_activity *a;
	__u64 len = result, stack;

	if (bpf_get_current_pid_tgid() >> 32 == self_tgid)
		return 0;
	a = activity_of(bpf_get_current_pid_tgid() >> 32);
	if (a)
		__sync_fetch_and_add(&a->calls, 1);
	/* A call inside the open one returns below its frame. */
	if (!call || CALL_STACK(regs) < call->stack + RETURN_POPS)
		return 0;
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
		emit_plaintext(call, len);
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
