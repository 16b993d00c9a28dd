// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The programs of the capture. Each is loaded on its own: a kernel that refuses one loses that one by name. */
#include "maps.h"
#include "emit.h"
#include "sockets.h"
#include "unix.h"
#include "uring.h"
#include "go.h"
#include "rustls.h"
#include "process.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A connection that was accepted gets its process here. */
__noinline int handle_accept(int fd)
{
	struct sock *sk = socket_of(fd);

	return sk ? announce_socket((__u64)sk) : 0;
}

/*
 * System calls are looked at when they have ended: the arguments are still in the registers, the length is known,
 * and one program serves for both ends of the call.
 */
SEC("tp_btf/sys_exit")
int handle_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	long result = ctx[1];
	__u32 direction = RT_SENT, mode = IO_PAYLOAD, tgid;
	__u64 number, flags = 0;
	int fd, in_go = 0;

	if (result < 0)
		return 0;
	number = SYS_NUMBER(regs);
	switch (number) {
	case SYS_read: case SYS_readv: case SYS_recvfrom: case SYS_recvmsg:
		/* The one sign that a Unix socket gives of its end. */
		if (!result && !(wanted & RT_W_LOOPBACK))
			return 0;
		break;
	case SYS_write: case SYS_writev: case SYS_sendto: case SYS_sendmsg: case SYS_sendmmsg: case SYS_recvmmsg:
	case SYS_sendfile: case SYS_splice:
		if (!result)
			return 0;
		break;
	case SYS_accept: case SYS_accept4: case SYS_mmap:
		break;
	default:
		return 0;
	}
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (tgid == self_tgid || (number != SYS_mmap && is_excluded(tgid, RT_X_DATA | RT_X_HTTP)))
		return 0;
	if (SYS_IS_COMPAT(regs)) {
		COUNT(compat_calls, 1);
		return 0;
	}
	fd = SYS_ARG1(regs);
	if (!result && number != SYS_accept && number != SYS_accept4 && number != SYS_mmap)
		return end_unix(socket_at(fd));
	switch (number) {
	case SYS_recvfrom: case SYS_recvmmsg:
		flags = SYS_ARG4(regs);
		direction = RT_RECEIVED;
		break;
	case SYS_recvmsg:
		flags = SYS_ARG3(regs);
		direction = RT_RECEIVED;
		break;
	case SYS_read: case SYS_readv:
		direction = RT_RECEIVED;
		break;
	}
	if (flags & NOT_PAYLOAD)
		return 0;
	if (flags & MSG_TRUNC)
		mode = IO_DISCARDED;
	/* Go reads and writes sockets by these two alone. */
	if (go_seen && (number == SYS_read || number == SYS_write))
		in_go = enter_goroutine(SYS_GOROUTINE(regs));
	switch (number) {
	case SYS_accept: case SYS_accept4:
		handle_accept(result);
		break;
	case SYS_mmap:
		if (SYS_ARG3(regs) & PROT_EXEC)
			handle_mmap(SYS_ARG5(regs));
		break;
	case SYS_sendfile:
		handle_io(fd, 0, result, 0, HOW(RT_SENT, IO_SENDFILE));
		break;
	case SYS_splice:
		handle_io(fd, 0, result, 0, HOW(RT_RECEIVED, IO_SPLICED));
		handle_io(SYS_ARG3(regs), 0, result, 0, HOW(RT_SENT, IO_SPLICED));
		break;
	case SYS_sendmmsg: case SYS_recvmmsg:
		handle_messages(fd, SYS_ARG2(regs), result, HOW(direction, mode));
		break;
	case SYS_sendmsg: case SYS_recvmsg:
		handle_message(fd, SYS_ARG2(regs), result, HOW(direction, mode));
		break;
	case SYS_readv: case SYS_writev:
		handle_io(fd, SYS_ARG2(regs), result, SYS_ARG3(regs), HOW(direction, mode));
		break;
	case SYS_sendto: case SYS_recvfrom:
		handle_io(fd, SYS_ARG2(regs), result, 0, HOW(direction, mode) | how_of_address(SYS_ARG5(regs)));
		break;
	default:
		handle_io(fd, SYS_ARG2(regs), result, 0, HOW(direction, mode));
	}
	if (in_go)
		leave_goroutine();
	return 0;
}
