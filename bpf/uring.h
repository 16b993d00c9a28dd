/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests of io_uring on sockets. What they move is seen when they complete, where the result is known; what they were
 * asked for is noted when they are handed in, since the kernel's own copy is gone by then, and the program's may be.
 * From Linux 6.0 on: before, the tracepoints did not tell of the request. Then, as for what is left out here (messages
 * that a multishot request receives, bundles of buffers), TCP's sequence numbers still show how much it was.
 */
#ifndef RINGTAP_URING_H
#define RINGTAP_URING_H

#include "unix.h"

struct io_rsrc_node { unsigned long file_ptr; } KERNEL_TYPE;
struct io_rsrc_data {
	unsigned int nr;
	struct io_rsrc_node **nodes;
} KERNEL_TYPE;
struct io_file_table { struct io_rsrc_data data; } KERNEL_TYPE;
struct io_ring_ctx {
	unsigned int nr_user_files;
	struct io_file_table file_table;
} KERNEL_TYPE;
/* Before 6.13. */
struct io_fixed_file { unsigned long file_ptr; } KERNEL_TYPE;
struct io_file_table___old { struct io_fixed_file *files; } KERNEL_TYPE;
struct io_ring_ctx___old { struct io_file_table___old file_table; } KERNEL_TYPE;

struct io_cqe {
	__u64 user_data;
	int res;
	union {
		__u32 flags;
		int fd;
	};
} KERNEL_TYPE;
struct io_cmd_data { struct file *file; } KERNEL_TYPE;
struct io_kiocb {
	union {
		struct file *file;
		struct io_cmd_data cmd;
	};
	__u8 opcode;
	__u32 flags; /* newer kernels have more of them above */
	struct io_cqe cqe;
	struct io_ring_ctx *ctx;
	void *async_data;
} KERNEL_TYPE;
struct iov_iter { void *ubuf; } KERNEL_TYPE;
struct msghdr { struct iov_iter msg_iter; } KERNEL_TYPE;
struct io_async_msghdr { struct msghdr msg; } KERNEL_TYPE;
struct io_sr_msg {
	void *buf;
	int len;
	unsigned int msg_flags;
	__u16 flags;
} KERNEL_TYPE;
struct io_rw {
	__u64 addr;
	__u32 len;
} KERNEL_TYPE;

/* Its layout is fixed by the interface, as the numbers below. */
struct ring_completion {
	__u64 user_data;
	int res;
	__u32 flags;
};
enum {
	OP_READV = 1, OP_WRITEV = 2, OP_READ_FIXED = 4, OP_WRITE_FIXED = 5, OP_SENDMSG = 9, OP_RECVMSG = 10, OP_READ = 22,
	OP_WRITE = 23, OP_SEND = 26, OP_RECV = 27, OP_SEND_ZC = 47, OP_SENDMSG_ZC = 48,
};
#define REQUEST_FIXED_FILE (1 << 0)
#define REQUEST_SELECTS_BUFFER (1 << 5)
#define REQUEST_COMPLETES_SILENTLY (1 << 6)
#define MESSAGE_MULTISHOT (1 << 1)
#define MESSAGE_BUNDLE (1 << 4)
#define MESSAGE_VECTORIZED (1 << 5)
#define COMPLETION_MORE (1 << 1)
/* The lowest bits of a pointer in the table of registered files say something else. */
#define FIXED_FILE_MASK (~7UL)

/* The file that a request is for, which the kernel itself looks up only later. */
static __always_inline struct file *file_of_request(struct io_kiocb *req)
{
	__u32 at = BPF_CORE_READ(req, cqe.fd);
	struct io_ring_ctx *ring;
	struct io_rsrc_node *node = 0;
	unsigned long file = 0;

	if (!(BPF_CORE_READ(req, flags) & REQUEST_FIXED_FILE))
		return file_of(at);
	ring = BPF_CORE_READ(req, ctx);
	if (bpf_core_field_exists(struct io_file_table___old, files)) {
		struct io_fixed_file *files = BPF_CORE_READ((struct io_ring_ctx___old *)ring, file_table.files);

		if (at < BPF_CORE_READ(ring, nr_user_files))
			bpf_probe_read_kernel(&file, sizeof(file), files + at);
	} else if (at < BPF_CORE_READ(ring, file_table.data.nr)) {
		bpf_probe_read_kernel(&node, sizeof(node), BPF_CORE_READ(ring, file_table.data.nodes) + at);
		file = node ? BPF_CORE_READ(node, file_ptr) : 0;
	}
	return (struct file *)(file & FIXED_FILE_MASK);
}

static __always_inline int is_sending(__u8 opcode)
{
	return opcode == OP_WRITEV || opcode == OP_WRITE_FIXED || opcode == OP_SENDMSG || opcode == OP_WRITE ||
	       opcode == OP_SEND || opcode == OP_SEND_ZC || opcode == OP_SENDMSG_ZC;
}

static __always_inline int moves_bytes(__u8 opcode)
{
	return is_sending(opcode) || opcode == OP_READV || opcode == OP_READ_FIXED || opcode == OP_RECVMSG ||
	       opcode == OP_READ || opcode == OP_RECV;
}

static __always_inline void keep_vectors(struct ring_request *r, __u64 vectors, __u64 count)
{
	__u64 kept = count < RT_KEPT_VECTORS ? count : RT_KEPT_VECTORS;

	barrier_var(kept);
	if (kept > RT_KEPT_VECTORS)
		kept = RT_KEPT_VECTORS;
	r->vectors = count < RT_PIECES_MAX ? count : RT_PIECES_MAX;
	if (bpf_probe_read_user(r->kept, kept * sizeof(struct user_iovec), (void *)vectors))
		r->vectors = 0;
}

/* Where a request that reads or writes has its bytes. */
static __always_inline void note_transfer(struct ring_request *r, struct io_rw *rw)
{
	__u64 address = BPF_CORE_READ(rw, addr);

	if (r->opcode == OP_READV || r->opcode == OP_WRITEV)
		keep_vectors(r, address, BPF_CORE_READ(rw, len));
	else
		r->buffer = address;
}

/* The same for one that sends or receives; 0: its bytes are not of the stream, or cannot be told apart. */
static __always_inline int note_message(struct ring_request *r, struct io_sr_msg *message)
{
	int is_whole = r->opcode == OP_SENDMSG || r->opcode == OP_SENDMSG_ZC || r->opcode == OP_RECVMSG;
	__u32 flags = BPF_CORE_READ(message, flags), of_call = BPF_CORE_READ(message, msg_flags);
	__u64 address = (__u64)BPF_CORE_READ(message, buf);
	struct user_msghead m = {};

	r->many = !is_sending(r->opcode) && (flags & MESSAGE_MULTISHOT);
	if ((of_call & NOT_PAYLOAD) || (flags & MESSAGE_BUNDLE) || (is_whole && r->many))
		return 0;
	if (!is_sending(r->opcode) && (of_call & MSG_TRUNC))
		r->how = HOW(RT_RECEIVED, IO_DISCARDED);
	if (is_whole) {
		if (bpf_probe_read_user(&m, sizeof(m), (void *)address))
			return 0;
		keep_vectors(r, m.iov, m.iovlen);
	} else if (is_sending(r->opcode) && (flags & MESSAGE_VECTORIZED)) {
		keep_vectors(r, address, BPF_CORE_READ(message, len));
	} else {
		r->buffer = address;
	}
	return 1;
}

/* Settles what moved before the request, unless others are under way whose bytes these are. */
static __always_inline void count_request(struct ring_request *r)
{
	__u32 direction = HOW_DIRECTION(r->how) & 1;
	struct sock *sk = (void *)r->sk;
	struct connection *c;

	if (!is_inet(sk) || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return;
	c = connection_at(sk, 0, direction);
	if (!c)
		return;
	if (!c->requests[direction])
		take_offset(sk, c, direction, 0);
	c->requests[direction]++;
	r->counted = 1;
}

static __always_inline void uncount_request(struct ring_request *r)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &r->sk);
	__u32 direction = HOW_DIRECTION(r->how) & 1;

	if (r->counted && c && c->requests[direction])
		c->requests[direction]--;
}

static __always_inline void note_source(__u64 request, struct ring_request *r)
{
	struct ring_source source = { .user_data = r->user_data };
	__u64 *known, none = 0;

	source.ring = (__u64)BPF_CORE_READ((struct io_kiocb *)request, ctx);
	known = bpf_map_lookup_elem(&ring_sources, &source);
	bpf_map_update_elem(&ring_sources, &source, known && *known != request ? &none : &request, BPF_ANY);
}

static __always_inline void forget_source(__u64 request, struct ring_request *r)
{
	struct ring_source source = { .user_data = r->user_data };

	source.ring = (__u64)BPF_CORE_READ((struct io_kiocb *)request, ctx);
	bpf_map_delete_elem(&ring_sources, &source);
}

/* Functions of their own for their room on the stack. */
__noinline int begin_request(__u64 request)
{
	struct io_kiocb *req = (void *)request;
	struct ring_request r = {};
	struct sock *sk;
	__u32 flags;

	r.opcode = BPF_CORE_READ(req, opcode);
	flags = BPF_CORE_READ(req, flags);
	if (!moves_bytes(r.opcode) || (flags & REQUEST_COMPLETES_SILENTLY))
		return 0;
	sk = sock_of(file_of_request(req));
	if (!sk)
		return 0;
	r.sk = (__u64)sk;
	r.user_data = BPF_CORE_READ(req, cqe.user_data);
	r.how = HOW(is_sending(r.opcode) ? RT_SENT : RT_RECEIVED, IO_PAYLOAD);
	if (r.opcode == OP_SENDMSG || r.opcode == OP_RECVMSG || r.opcode == OP_SEND || r.opcode == OP_RECV ||
	    r.opcode == OP_SEND_ZC || r.opcode == OP_SENDMSG_ZC) {
		if (!note_message(&r, (struct io_sr_msg *)&req->cmd))
			return 0;
	} else {
		note_transfer(&r, (struct io_rw *)&req->cmd);
	}
	r.selects = (flags & REQUEST_SELECTS_BUFFER) != 0;
	count_request(&r);
	bpf_map_update_elem(&ring_requests, &request, &r, BPF_ANY);
	if (r.many)
		note_source(request, &r);
	return 0;
}

/*
 * The buffer that the kernel chose. Some kernels put it into the request; newer ones only into their own state, which a
 * request that goes on still has, and one that is done has not. 0: it is not known.
 */
static __always_inline __u64 selected_buffer(struct io_kiocb *req, struct ring_request *r)
{
	struct io_sr_msg *message = (void *)&req->cmd;
	struct io_rw *rw = (void *)&req->cmd;
	struct io_async_msghdr *state;
	__u64 chosen;

	if (r->opcode == OP_READ || r->opcode == OP_WRITE)
		chosen = BPF_CORE_READ(rw, addr);
	else
		chosen = (__u64)BPF_CORE_READ(message, buf);
	if (chosen != r->buffer)
		return chosen;
	state = r->many ? BPF_CORE_READ(req, async_data) : 0;
	return state ? (__u64)BPF_CORE_READ(state, msg.msg_iter.ubuf) : 0;
}

static __always_inline void move_by_request(__u64 request, struct ring_request *r, __u32 result)
{
	struct io_kiocb *req = (void *)request;
	struct file *file = BPF_CORE_READ(req, file);
	__u64 buffer = r->vectors ? request : r->selects ? selected_buffer(req, r) : r->buffer;
	__u32 how = buffer ? r->how : HOW(HOW_DIRECTION(r->how), IO_FAULT);

	if ((__u64)sock_of(file) == r->sk)
		handle_io((__u64)file, buffer, result, r->vectors, how | HOW_REQUEST);
}

/* One of the request's completions, which may be its last. */
__noinline int complete_request(__u64 request, __u64 user_data, int result, __u32 flags)
{
	struct ring_request *r = bpf_map_lookup_elem(&ring_requests, &request);

	if (!r)
		return 0;
	/* Its end was missed, and its place has been given to another one. */
	if (r->user_data != user_data || BPF_CORE_READ((struct io_kiocb *)request, opcode) != r->opcode) {
		bpf_map_delete_elem(&ring_requests, &request);
		return 0;
	}
	if (result > 0)
		move_by_request(request, r, result);
	else if (!result && HOW_DIRECTION(r->how) == RT_RECEIVED)
		end_unix(r->sk);
	if (r->many && (flags & COMPLETION_MORE))
		return 0;
	uncount_request(r);
	if (r->many)
		forget_source(request, r);
	bpf_map_delete_elem(&ring_requests, &request);
	return 0;
}

/* The request of a completion that does not name it: one that brings many. */
static __always_inline __u64 request_of(__u64 ring, __u64 user_data)
{
	struct ring_source source = { .ring = ring, .user_data = user_data };
	__u64 *request = bpf_map_lookup_elem(&ring_sources, &source);

	return request ? *request : 0;
}

static __always_inline int has_no_interest(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return tgid == self_tgid || is_excluded(tgid, RT_X_DATA | RT_X_HTTP);
}

SEC("raw_tp/io_uring_submit_req")
int handle_submit(__u64 *ctx)
{
	return has_no_interest() ? 0 : begin_request(ctx[0]);
}

static __always_inline int complete(__u64 ring, __u64 request, struct ring_completion *cqe)
{
	if (has_no_interest())
		return 0;
	request = request ?: request_of(ring, cqe->user_data);
	return request ? complete_request(request, cqe->user_data, cqe->res, cqe->flags) : 0;
}

SEC("raw_tp/io_uring_complete")
int handle_complete(__u64 *ctx)
{
	struct ring_completion cqe = {};

	bpf_probe_read_kernel(&cqe, sizeof(cqe), (void *)ctx[2]);
	return complete(ctx[0], ctx[1], &cqe);
}

/* Before 6.15 the completion's fields were handed over. Where they are not, this one cannot be attached. */
SEC("raw_tp/io_uring_complete")
int handle_complete_fields(__u64 *ctx)
{
	struct ring_completion cqe = { .user_data = ctx[2], .res = ctx[3], .flags = ctx[4] };

	return complete(ctx[0], ctx[1], &cqe);
}

#endif
