/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Rustls moves no ciphertext itself, and what a program keeps of a connection is moved from place to place: the address
 * of no part of it can stand for the connection. What goes along with it is the block in which its queue of records to
 * be sent (`sendable_tls`) lies. The queue is emptied by a function that makes the socket's system call inside: there
 * block and socket are seen together, and from the first flight on. Plaintext passes functions of the object that holds
 * the queue; how far behind its beginning, the code of the file says, and the probe's cookie repeats (Linux 6.6).
 *
 * Returns are probed at the return instructions: a changed return address would end a thread that unwinds.
 */
#ifndef RINGTAP_RUSTLS_H
#define RINGTAP_RUSTLS_H

#include "tls.h"

/* Words of a queue (`ChunkVecBuffer`) that all versions have, and which of them names its block. */
#define QUEUE_WORDS 6
#define QUEUE_BLOCK 3

/* A call that encrypts; `call.count_at`: where the object names the block of its queue. */
struct rustls_send {
	struct tls_call call;
	__u64 vectors; /* slices at `call.buffer`; 0: the bytes themselves */
};

/* By thread: the call that encrypts. Least recently used ones go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct rustls_send);
} rustls_sends SEC(".maps");

/* An address on the heap; sizes and counts are smaller. */
static __always_inline int is_block(__u64 word)
{
	return word >= 1 << 20 && !(word >> 47) && !(word & 7);
}

static __always_inline int is_readable(__u64 address)
{
	__u64 word;

	return !bpf_probe_read_user(&word, sizeof(word), (void *)address);
}

/* Where the object that is a call's first argument names the block of its queue. */
static __always_inline __u64 block_place(struct call_regs *regs)
{
	return CALL_ARG1(regs) + bpf_get_attach_cookie(regs) + QUEUE_BLOCK * sizeof(__u64);
}

/* What stands for the object: the block, or without one itself. */
static __always_inline __u64 name_of(struct call_regs *regs)
{
	__u64 block;

	return !bpf_probe_read_user(&block, sizeof(block), (void *)block_place(regs)) && is_block(block) ? block :
												   CALL_ARG1(regs);
}

/* ChunkVecBuffer::write_to(&mut self, &mut dyn Write): the only function that hands out ciphertext. */
SEC("uprobe")
int handle_rustls_flush(struct call_regs *regs)
{
	struct tls_call call = { .stack = CALL_STACK(regs), .direction = RT_SENT, .library = RT_RUSTLS };
	__u64 queue[QUEUE_WORDS];

	if (is_left_alone(bpf_get_current_pid_tgid() >> 32) ||
	    bpf_probe_read_user(queue, sizeof(queue), (void *)CALL_ARG1(regs)))
		return 0;
	/* Without a block nothing was ever queued. More than one, or another: the queue is not as it is known. */
	for (int i = 0; i < QUEUE_WORDS; i++)
		if ((is_block(queue[i]) && is_readable(queue[i])) != (i == QUEUE_BLOCK))
			return 0;
	call.ssl = queue[QUEUE_BLOCK];
	return begin_call(&call, 1);
}

/* CommonState::send_appdata_encrypt(&mut self, OutboundChunks, ...): one slice of bytes, or a slice of slices. */
SEC("uprobe")
int handle_rustls_send(struct call_regs *regs)
{
	struct { __u64 slices, first, second, end; } chunks;
	struct rustls_send send = { .call = { .stack = CALL_STACK(regs), .direction = RT_SENT, .library = RT_RUSTLS } };
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *open = open_call();

	if (is_left_alone(thread >> 32) || (open && send.call.stack < open->stack) ||
	    bpf_probe_read_user(&chunks, sizeof(chunks), (void *)CALL_ARG2(regs)))
		return 0;
	send.call.count_at = block_place(regs);
	send.call.ssl = name_of(regs);
	if (chunks.slices) {
		/* What does not begin with the first slice goes on where a key was changed: a gap. */
		send.call.buffer = chunks.second ? 0 : chunks.slices;
		send.call.room = chunks.end - chunks.second;
		send.vectors = chunks.second ? 0 : chunks.first < RT_PIECES_MAX ? chunks.first : RT_PIECES_MAX;
	} else {
		send.call.buffer = chunks.first;
		send.call.room = chunks.second;
	}
	bpf_map_update_elem(&rustls_sends, &thread, &send, BPF_ANY);
	return 0;
}

/* The queue has outgrown its block inside of the call: the object is known by the new one. */
static __always_inline void follow_block(struct tls_call *call)
{
	struct tls_key old = { .ssl = call->ssl, .tgid = bpf_get_current_pid_tgid() >> 32 }, new = old;
	struct tls_object *o;
	struct connection *c;

	if (bpf_probe_read_user(&new.ssl, sizeof(new.ssl), (void *)call->count_at) ||
	    new.ssl == old.ssl || !is_block(new.ssl))
		return;
	o = bpf_map_lookup_elem(&tls_objects, &old);
	if (!o || bpf_map_update_elem(&tls_objects, &new, o, BPF_ANY))
		return;
	c = connection_of(o);
	if (c)
		c->ssl = new.ssl;
	bpf_map_delete_elem(&tls_objects, &old);
	call->ssl = new.ssl;
}

/* At each return instruction of the two above. */
SEC("uprobe")
int handle_rustls_return(struct call_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid(), sent = CALL_RESULT(regs);
	struct rt_activity *a = activity_of(thread >> 32);
	struct tls_call *open = open_call();
	struct rustls_send *send;

	if (a)
		__sync_fetch_and_add(&a->calls, 1);
	if (open && open->stack == CALL_STACK(regs)) {
		open->stack = 0;
		return 0;
	}
	send = bpf_map_lookup_elem(&rustls_sends, &thread);
	if (!send || send->call.stack != CALL_STACK(regs))
		return 0;
	send->call.stack = 0;
	follow_block(&send->call);
	if (sent > send->call.room || sent >> 31) {
		COUNT(counts_unread, 1);
		return 0;
	}
	if (sent)
		emit_plaintext(&send->call, sent, send->vectors);
	return 0;
}

/*
 * CommonState::take_received_plaintext(&mut self, Payload): plaintext that was decrypted, in a vector of bytes or borrowed
 * from one.
 */
SEC("uprobe")
int handle_rustls_receive(struct call_regs *regs)
{
	struct tls_call call = { .direction = RT_RECEIVED, .payload = 1, .library = RT_RUSTLS };
	struct { __u64 capacity, bytes, len; } vec;
	struct tls_call *open = open_call();

	if (is_left_alone(bpf_get_current_pid_tgid() >> 32) || (open && CALL_STACK(regs) < open->stack) ||
	    bpf_probe_read_user(&vec, sizeof(vec), (void *)CALL_ARG2(regs)) || !vec.len)
		return 0;
	if (vec.len >> 31) {
		COUNT(counts_unread, 1);
		return 0;
	}
	call.ssl = name_of(regs);
	call.buffer = vec.bytes;
	emit_plaintext(&call, vec.len, 0);
	return 0;
}

#endif
