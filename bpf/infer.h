/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose socket is it? Programs that move ciphertext themselves (memory BIOs: Node, asyncio, .NET, Envoy, thread pools)
 * make no system call inside of the library's functions. Two hints are left: a thread decrypts what it has just received,
 * and it sends what it has just encrypted. Neither must hold: threads may receive and send for one another. A hint is
 * taken if the thread worked for one connection alone, and before the first plaintext; the lengths of records and of
 * plaintext verify it. From the first contradiction on, hints of its kind are not taken any more from the process, and a
 * connection that is in doubt has no address. The records say which of these it was.
 */
#ifndef RINGTAP_INFER_H
#define RINGTAP_INFER_H

#include "maps.h"

#define RECORD_DATA 23

/* How a connection was inferred; what is sent is the stronger hint. */
enum inferred { BY_SENT = 1, BY_RECEIVED = 2 };

static __always_inline struct tls_object *tls_object(__u64 ssl, int make)
{
	struct tls_key key = { .ssl = ssl, .tgid = bpf_get_current_pid_tgid() >> 32 };
	struct tls_object *o = bpf_map_lookup_elem(&tls_objects, &key);
	static const struct tls_object fresh;

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
	o->verified = o->doubted = 0;
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

/* Its TLS object was seen to move its ciphertext: what comes here is no hint to another one. */
static __always_inline int is_exact(struct connection *c)
{
	struct tls_object *o = c->ssl ? tls_object(c->ssl, 0) : 0;

	return o && o->conn == c->id && !o->inferred;
}

/* The length of the record that lies at `from`, if it is application data, and nothing comes behind it. */
static __always_inline __u16 whole_record(__u64 from, __u64 len)
{
	__u8 head[5];
	__u16 size;

	if (len <= sizeof(head) || !from || bpf_probe_read_user(head, sizeof(head), (void *)from) || head[0] != RECORD_DATA ||
	    head[1] != 3)
		return 0;
	size = (__u16)head[3] << 8 | head[4];
	return len == size + sizeof(head) ? size : 0;
}

/* Bytes that a record has more than its plaintext: TLS 1.3, 1.2 with GCM or CCM, with ChaCha20, with CBC. */
static __always_inline int fits_record(__u32 record, __u32 plaintext)
{
	__u32 more = record - plaintext;

	return more == 17 || more == 24 || more == 16 || (record % 16 == 0 && more > 36 && more <= 80);
}

/* Outside of any TLS call: whoever decrypts it is found by what the thread does next, and by its length. */
static __always_inline void remember_received(struct sock *sk, struct connection *c, __u64 buffer, __u64 len)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct received now = { .socket = { .sk = (__u64)sk, .conn = c->id } };
	struct received *before = bpf_map_lookup_elem(&last_received, &thread);

	now.mixed = before && (before->mixed || before->socket.conn != c->id);
	bpf_map_update_elem(&last_received, &thread, &now, BPF_ANY);
	c->record = whole_record(buffer, len);
	c->consumed = 0;
}

/* Nothing is told of where its bytes go, unless lengths have shown it. */
static __always_inline void doubt(struct tls_object *o)
{
	if (o && o->inferred && !o->verified)
		o->doubted = 1;
}

/* `o` may be the object whose bytes move on `c`. What contradicts it counts in `*against`. */
static __always_inline void suppose(struct tls_object *o, __u64 ssl, struct sock *sk, struct connection *c, __u8 by,
				    __u64 *against)
{
	struct tls_object *other = c->ssl && c->ssl != ssl ? tls_object(c->ssl, 0) : o->conn && connection_of(o) ? o : 0;

	if (other) {
		__sync_fetch_and_add(against, 1);
		if (other->inferred >= by)
			doubt(other);
	} else if (!o->unattributed && !*against) {
		/* A stream keeps the id that it began with: what has handed out plaintext takes no connection any more. */
		attach(o, sk, c, ssl, by);
	}
}

/* What the thread has received since its last TLS call, if it was for one connection alone, is what it decrypts now. */
static __always_inline void infer_by_received(__u64 ssl)
{
	__u64 thread = bpf_get_current_pid_tgid(), key;
	struct received *hint = bpf_map_lookup_elem(&last_received, &thread), taken;
	struct rt_activity *a;
	struct tls_object *o;
	struct connection *c;

	if (!hint)
		return;
	taken = *hint;
	bpf_map_delete_elem(&last_received, &thread);
	a = activity_of(thread >> 32);
	key = taken.socket.sk;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!a || taken.mixed || !c || c->id != taken.socket.conn || c->ssl == ssl)
		return;
	o = tls_object(ssl, 1);
	if (o && (!o->conn || o->inferred) && !a->relayed)
		suppose(o, ssl, (struct sock *)key, c, BY_RECEIVED, &a->scattered);
}

/*
 * What the thread has encrypted since it last sent, if it was of one object alone, is what it sends now. The first
 * flight tells whose connection it is; the lengths of later ones verify it.
 */
static __always_inline void infer_by_sent(struct sock *sk, struct connection *c, __u64 buffer, __u64 len)
{
	__u64 thread = bpf_get_current_pid_tgid(), ssl;
	struct tls_call *last = bpf_map_lookup_elem(&tls_calls, &thread);
	struct rt_activity *a = activity_of(thread >> 32);
	__u32 written, record, first = !c->greeted;
	struct tls_object *o;
	__u8 mixed;

	c->greeted = 1;
	if (!a)
		return;
	if (!last || !last->ssl) {
		/* Another thread has made it; unless its library had no probes yet. */
		if (first && !c->late && a->calls)
			__sync_fetch_and_add(&a->relayed, 1);
		return;
	}
	ssl = last->ssl;
	written = last->written;
	mixed = last->mixed;
	last->ssl = 0;
	if (mixed)
		return;
	o = tls_object(ssl, 1);
	if (!o || (o->conn && !o->inferred))
		return;
	record = written ? whole_record(buffer, len) : 0;
	/* A server has received before it sends: then both hints say the same. */
	if (first && !written && (o->conn != c->id || c->ssl != ssl))
		suppose(o, ssl, sk, c, BY_SENT, &a->relayed);
	else if (record && o->conn == c->id && fits_record(record, written))
		o->verified = 1;
	else if (record && connection_of(o))
		doubt(o);
}

/*
 * What was read of an inferred socket must be as long as what lies in the record that came there. `room`: what the call
 * could have taken; a full buffer may have left some.
 */
static __always_inline void verify_received(struct tls_object *o, struct connection *c, __u64 len, __u64 room)
{
	if (!c->record)
		return;
	c->consumed += len;
	if (len == room)
		return;
	if (fits_record(c->record, c->consumed))
		o->verified = 1;
	else
		doubt(o);
	c->record = 0;
}

#endif
