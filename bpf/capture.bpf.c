// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The programs of the capture. Each is loaded on its own: a kernel that refuses one loses that one by name. */
#include "maps.h"
#include "emit.h"
#include "sockets.h"
#include "tls.h"
#include "process.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A connection that was accepted gets its process here. */
static __always_inline void handle_accept(int fd)
{
	struct sock *sk = socket_of(fd);
	__u64 key = (__u64)sk;
	struct connection *c;

	if (!sk)
		return;
	c = bpf_map_lookup_elem(&connections, &key);
	if (c)
		announce(c);
}

/* Fills in what a call has moved. 0: nothing of a stream. */
static __always_inline int describe(struct pt_regs *regs, __u64 number, struct io *io)
{
	__u64 flags = 0;

	io->fd = SYS_ARG1(regs);
	switch (number) {
	case SYS_read:
	case SYS_recvfrom:
		io->direction = RT_RECEIVED;
		io->pieces.base = SYS_ARG2(regs);
		io->pieces.len = io->len;
		if (number == SYS_recvfrom)
			flags = SYS_ARG4(regs);
		break;
	case SYS_write:
	case SYS_sendto:
		io->pieces.base = SYS_ARG2(regs);
		io->pieces.len = io->len;
		break;
	case SYS_readv:
		io->direction = RT_RECEIVED;
		/* fall through */
	case SYS_writev:
		io->pieces.next = SYS_ARG2(regs);
		io->pieces.vectors = SYS_ARG3(regs);
		break;
	case SYS_recvmsg:
		io->direction = RT_RECEIVED;
		flags = SYS_ARG3(regs);
		/* fall through */
	case SYS_sendmsg:
		if (!read_message(SYS_ARG2(regs), &io->pieces))
			io->mode = IO_FAULT;
		break;
	case SYS_sendfile:
		io->mode = IO_SENDFILE;
		break;
	}
	if (flags & NOT_PAYLOAD)
		return 0;
	if (flags & MSG_TRUNC)
		io->mode = IO_DISCARDED;
	return 1;
}

/*
 * System calls are looked at when they have ended: the arguments are still in the registers, the length is known,
 * and one program serves for both ends of the call.
 */
SEC("raw_tp/sys_exit")
int handle_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	long result = ctx[1];
	struct io io = {};
	__u64 number;

	if (result < 0)
		return 0;
	number = SYS_NUMBER(regs);
	switch (number) {
	case SYS_read: case SYS_write: case SYS_readv: case SYS_writev: case SYS_sendto: case SYS_recvfrom:
	case SYS_sendmsg: case SYS_recvmsg: case SYS_sendmmsg: case SYS_recvmmsg: case SYS_sendfile:
		if (!result)
			return 0;
		break;
	case SYS_accept: case SYS_accept4: case SYS_mmap:
		break;
	default:
		return 0;
	}
	if (bpf_get_current_pid_tgid() >> 32 == self_tgid)
		return 0;
	if (SYS_IS_COMPAT(regs)) {
		COUNT(compat_calls, 1);
		return 0;
	}
	switch (number) {
	case SYS_accept:
	case SYS_accept4:
		handle_accept(result);
		return 0;
	case SYS_mmap:
		if (SYS_ARG3(regs) & PROT_EXEC)
			handle_mmap(SYS_ARG5(regs));
		return 0;
	case SYS_sendmmsg:
		handle_messages(SYS_ARG1(regs), SYS_ARG2(regs), result, RT_SENT, 0);
		return 0;
	case SYS_recvmmsg:
		handle_messages(SYS_ARG1(regs), SYS_ARG2(regs), result, RT_RECEIVED, SYS_ARG4(regs));
		return 0;
	}
	io.len = result;
	if (describe(regs, number, &io))
		handle_io(&io);
	return 0;
}
