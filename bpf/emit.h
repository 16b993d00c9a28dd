/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Records into rings: reserve a size class, read straight into it, submit. */
#ifndef RINGTAP_EMIT_H
#define RINGTAP_EMIT_H

#include "maps.h"

/* What a payload record says of itself, packed into one argument. */
#define META(direction, layer, flags) ((__u32)(direction) | ((__u32)(layer) << 1) | ((__u32)(flags) << 8))
#define META_DIRECTION(meta) ((meta) & 1)
#define META_LAYER(meta) (((meta) >> 1) & 1)
#define META_FLAGS(meta) ((meta) >> 8)

/* The same in user space: ringtap_bpf::shard_of. */
static __always_inline __u32 shard_of(__u64 conn)
{
	return (__u32)((conn * 0x9e3779b97f4a7c15ULL) >> 32) & shard_mask;
}

/* Wakes the reader only if it said that it sleeps. */
static __always_inline __u64 submit_flags(__u32 shard)
{
	__u64 *sleeping = bpf_map_lookup_elem(&wake, &shard);

	if (!sleeping || !*(volatile __u64 *)sleeping)
		return BPF_RB_NO_WAKEUP;
	*(volatile __u64 *)sleeping = 0;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void fill_head(struct rt_record *r, __u8 kind, __u64 conn)
{
	__u64 who = bpf_get_current_pid_tgid();

	r->time_ns = bpf_ktime_get_boot_ns();
	r->conn = conn;
	r->offset = 0;
	r->len = 0;
	r->size = 0;
	r->tgid = who >> 32;
	r->tid = (__u32)who;
	r->kind = kind;
	r->direction = 0;
	r->layer = 0;
	r->pad = 0;
	r->flags = 0;
}

/* One class: `size` is constant in each use, as the verifier wants it. Returns bytes captured, or -1 if the ring is full. */
static __always_inline long emit_class(void *ring, __u32 shard, __u64 from, __u64 offset, __u64 conn, __u32 len,
				       __u32 meta, const __u32 size)
{
	struct rt_record *r = bpf_ringbuf_reserve(ring, sizeof(*r) + size, 0);
	__u32 n = len;

	if (!r)
		return -1;
	fill_head(r, RT_PAYLOAD, conn);
	r->offset = offset;
	r->len = len;
	r->direction = META_DIRECTION(meta);
	r->layer = META_LAYER(meta);
	r->flags = META_FLAGS(meta);
	if (!from) {
		n = 0;
	} else {
		/* 6.1 loses the bound between here and the check of the helper otherwise. */
		barrier_var(n);
		if (n > size)
			n = size;
		if (bpf_probe_read_user(r + 1, n, (void *)from)) {
			r->flags |= RT_F_FAULT;
			n = 0;
		}
	}
	r->size = n;
	bpf_ringbuf_submit(r, submit_flags(shard));
	return n;
}

/*
 * One record of at most RT_CHUNK_MAX bytes. A global function, so that the verifier sees it once and not once a loop;
 * it takes scalars only, which every kernel since 5.10 allows. `from` 0: a record without bytes.
 */
__noinline int emit_chunk(__u64 from, __u64 offset, __u64 conn, __u32 len, __u32 meta)
{
	__u32 shard = shard_of(conn);
	void *ring = bpf_map_lookup_elem(&rings, &shard);
	long n;

	if (!ring)
		return -1;
	if (!from || len <= 256)
		n = emit_class(ring, shard, from, offset, conn, len, meta, 256);
	else if (len <= 1024)
		n = emit_class(ring, shard, from, offset, conn, len, meta, 1024);
	else if (len <= 4096)
		n = emit_class(ring, shard, from, offset, conn, len, meta, 4096);
	else
		n = emit_class(ring, shard, from, offset, conn, len, meta, RT_CHUNK_MAX);
	if (n < 0) {
		COUNT(ring_full_records, 1);
		if (from)
			COUNT(ring_full_bytes, len);
		return -1;
	}
	COUNT(captured_records, 1);
	if (!from)
		return 0;
	if (n)
		COUNT(captured_bytes, n);
	else
		COUNT(fault_bytes, len);
	return 0;
}

/* The buffers of a call, walked piece by piece. */
struct pieces {
	__u64 base; /* of the present buffer */
	__u64 len;  /* left in it */
	__u64 next; /* io vector that follows */
	__u64 vectors; /* left */
};

static __always_inline int next_buffer(struct pieces *p)
{
	struct user_iovec v;

	if (!p->vectors || bpf_probe_read_user(&v, sizeof(v), (void *)p->next))
		return 0;
	p->base = v.base;
	p->len = v.len;
	p->next += sizeof(v);
	p->vectors--;
	return 1;
}

/* Takes `left` bytes, the first at `offset` of its stream. Bytes below skip_until stay where they are. */
static __always_inline void emit_pieces(struct pieces *p, __u64 left, __u64 offset, __u64 conn, __u32 meta)
{
	struct rt_stream key = { .conn = conn, .layer = META_LAYER(meta), .direction = META_DIRECTION(meta) };
	__u64 *until = bpf_map_lookup_elem(&skip_until, &key);
	__u64 skip = until && *until > offset ? *until - offset : 0;
	__u32 n;

	COUNT(seen_bytes, left);
	if (skip >= left) {
		COUNT(skipped_bytes, left);
		return;
	}
	if (skip)
		COUNT(skipped_bytes, skip);
	for (int i = 0; i < RT_PIECES_MAX && left; i++) {
		if (!p->len) {
			if (!next_buffer(p))
				break;
			continue;
		}
		n = p->len < RT_CHUNK_MAX ? p->len : RT_CHUNK_MAX;
		if (left < n)
			n = left;
		if (skip) {
			__u64 step = p->len < left ? p->len : left;

			if (step > skip)
				step = skip;
			skip -= step;
			p->base += step;
			p->len -= step;
			offset += step;
			left -= step;
			continue;
		}
		emit_chunk(p->base, offset, conn, n, meta);
		p->base += n;
		p->len -= n;
		offset += n;
		left -= n;
	}
	if (left)
		COUNT(call_limit_bytes, left);
}

/* Bytes that moved without being readable: their length and the reason, so that the gap has a cause. */
static __always_inline void emit_unread(__u64 len, __u64 offset, __u64 conn, __u32 meta)
{
	COUNT(seen_bytes, len);
	if (META_FLAGS(meta) & RT_F_SENDFILE)
		COUNT(sendfile_bytes, len);
	else if (META_FLAGS(meta) & RT_F_FAULT)
		COUNT(fault_bytes, len);
	else
		COUNT(discarded_bytes, len);
	emit_chunk(0, offset, conn, len, meta);
}

#endif
