/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Records into rings: reserve a size class, read straight into it, submit. */
#ifndef RINGTAP_EMIT_H
#define RINGTAP_EMIT_H

#include "maps.h"

/* What a payload record says of itself, packed into one argument. */
#define META(direction, layer, flags) ((__u32)(direction) | ((__u32)(layer) << 1) | ((__u32)(flags) << 8))
#define META_DIRECTION(meta) ((meta) & 1)
#define META_LAYER(meta) (((meta) >> 1) & 1)
#define META_FLAGS(meta) (((meta) >> 8) | (((meta) >> 2) & 0x3f) << RT_LIBRARY_SHIFT)
/* Added to one of plaintext. */
#define META_LIBRARY(library) ((__u32)(library) << 2)

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
 * One record with the first RT_CHUNK_MAX of `len` bytes. A global function, so that the verifier sees it once and not once a loop;
 * it takes scalars only, which every kernel since 5.10 allows. `from` 0: a record without bytes.
 */
__noinline int emit_chunk(__u64 from, __u64 offset, __u64 conn, __u32 len, __u32 meta)
{
	__u32 shard = shard_of(conn);
	void *ring = bpf_map_lookup_elem(&rings, &shard);
	long n;

	if (!ring)
		return -1;
	if (from && len > RT_CHUNK_MAX)
		len = RT_CHUNK_MAX;
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

/*
 * A contiguous range of at most RT_PIECES_MAX chunks. Bytes below skip_until stay where they are. A global function
 * for the same reason as above.
 */
__noinline int emit_range(__u64 from, __u64 offset, __u64 conn, __u32 left, __u32 meta)
{
	struct rt_stream key = { .conn = conn, .layer = META_LAYER(meta), .direction = META_DIRECTION(meta) };
	__u64 *until = bpf_map_lookup_elem(&skip_until, &key);
	__u32 chunks, n;

	if (until && *until > offset) {
		n = *until - offset < left ? *until - offset : left;
		COUNT(skipped_bytes, n);
		from += n;
		offset += n;
		left -= n;
	}
	chunks = (left + RT_CHUNK_MAX - 1) / RT_CHUNK_MAX;
	/* No branch in the loop but its end: each one would double the verifier's states with every round. */
	for (__u32 i = 0; i < RT_PIECES_MAX && i < chunks; i++) {
		__u32 at = i * RT_CHUNK_MAX;

		emit_chunk(from + at, offset + at, conn, left - at, meta);
	}
	if (chunks > RT_PIECES_MAX)
		COUNT(call_limit_bytes, left - RT_PIECES_MAX * RT_CHUNK_MAX);
	return 0;
}

/* One io vector, of which `left` bytes at most count. Returns how many. */
__noinline int emit_vector(__u64 vector, __u64 offset, __u64 conn, __u32 left, __u32 meta)
{
	struct user_iovec v = {};

	if (bpf_probe_read_user(&v, sizeof(v), (void *)vector)) {
		COUNT(fault_bytes, left);
		return left;
	}
	if (v.len < left)
		left = v.len;
	if (left)
		emit_range(v.base, offset, conn, left, meta);
	return left;
}

/* The same for all of a call; the number of vectors lies above the flags in `meta_count`. */
#define META_COUNT_SHIFT 20
__noinline int emit_vectors(__u64 vectors, __u64 offset, __u64 conn, __u32 left, __u32 meta_count)
{
	__u32 count = meta_count >> META_COUNT_SHIFT, meta = meta_count & ((1 << META_COUNT_SHIFT) - 1), n;

	for (__u32 i = 0; i < RT_PIECES_MAX && i < count; i++) {
		n = emit_vector(vectors + i * sizeof(struct user_iovec), offset, conn, left, meta);
		offset += n;
		left -= n;
	}
	if (left)
		COUNT(call_limit_bytes, left);
	return 0;
}

/* Those that were kept of a request of io_uring. */
__noinline int emit_kept(__u64 request, __u64 offset, __u64 conn, __u32 left, __u32 meta)
{
	struct ring_request *r = bpf_map_lookup_elem(&ring_requests, &request);
	__u32 n;

	if (!r)
		return 0;
	for (int i = 0; i < RT_KEPT_VECTORS && i < r->vectors; i++) {
		n = r->kept[i].len < left ? r->kept[i].len : left;
		if (n)
			emit_range(r->kept[i].base, offset, conn, n, meta);
		offset += n;
		left -= n;
	}
	if (left)
		COUNT(call_limit_bytes, left);
	return 0;
}

/* Bytes that moved without being readable: their length and the reason, so that the gap has a cause. */
static __always_inline void emit_unread(__u64 len, __u64 offset, __u64 conn, __u32 meta)
{
	struct rt_stream key = { .conn = conn, .layer = META_LAYER(meta), .direction = META_DIRECTION(meta) };
	__u64 *until = bpf_map_lookup_elem(&skip_until, &key);

	if (until && *until >= offset + len) {
		COUNT(skipped_bytes, len);
		return;
	}
	if (META_FLAGS(meta) & RT_F_SENDFILE)
		COUNT(sendfile_bytes, len);
	else if (META_FLAGS(meta) & RT_F_SPLICED)
		COUNT(spliced_bytes, len);
	else if (META_FLAGS(meta) & RT_F_FAULT)
		COUNT(fault_bytes, len);
	else
		COUNT(discarded_bytes, len);
	emit_chunk(0, offset, conn, len, meta);
}

#endif
