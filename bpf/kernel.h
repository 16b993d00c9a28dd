/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few fields of kernel structures that the programs read. Offsets here mean nothing: CO-RE relocates
 * each access to the running kernel, so a structure lists only what is used.
 */
#ifndef RINGTAP_KERNEL_H
#define RINGTAP_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct qstr { const unsigned char *name; } KERNEL_TYPE;
struct dentry { struct qstr d_name; } KERNEL_TYPE;
struct path { struct dentry *dentry; } KERNEL_TYPE;
struct super_block { __u32 s_dev; } KERNEL_TYPE;
struct inode {
	__u16 i_mode;
	unsigned long i_ino;
	__u32 i_generation;
	struct super_block *i_sb;
} KERNEL_TYPE;
struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
} KERNEL_TYPE;
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} KERNEL_TYPE;
struct files_struct { struct fdtable *fdt; } KERNEL_TYPE;

typedef struct { int counter; } atomic_t;
struct signal_struct { atomic_t live; } KERNEL_TYPE;
struct task_struct {
	int pid;
	int tgid;
	struct files_struct *files;
	struct signal_struct *signal;
} KERNEL_TYPE;
struct linux_binprm {
	struct file *file;
	const char *filename;
} KERNEL_TYPE;

struct in6_addr { union { __u8 u6_addr8[16]; } in6_u; };
typedef struct { __s64 counter; } atomic64_t;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	__u16 skc_family;
	volatile __u8 skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
} KERNEL_TYPE;
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_shutdown;
	struct socket *sk_socket;
} KERNEL_TYPE;
struct tcp_sock {
	__u32 copied_seq;
	__u32 write_seq;
} KERNEL_TYPE;
struct socket { struct sock *sk; } KERNEL_TYPE;
/* The address itself lies behind it. */
struct unix_address {
	int len;
} KERNEL_TYPE;
struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
} KERNEL_TYPE;

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r14, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, sp;
} KERNEL_TYPE;
/* A system call's arguments, still in place when it ends. The tracepoint's program may follow its typed pointer itself. */
#define SYS_ARG1(r) ((r)->di)
#define SYS_ARG2(r) ((r)->si)
#define SYS_ARG3(r) ((r)->dx)
#define SYS_ARG4(r) ((r)->r10)
#define SYS_ARG5(r) ((r)->r8)
#define SYS_NUMBER(r) ((r)->orig_ax)
/* Where Go keeps the goroutine. */
#define SYS_GOROUTINE(r) ((r)->r14)
/* 32-bit programs use other numbers for the same calls. */
#define SYS_IS_COMPAT(r) ((r)->cs == 0x23)
/* A function's arguments: probes get the registers as their context, in the layout of user space. */
struct call_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
		flags, sp, ss;
};
#define CALL_ARG1(r) ((r)->di)
#define CALL_ARG2(r) ((r)->si)
#define CALL_ARG3(r) ((r)->dx)
#define CALL_ARG4(r) ((r)->cx)
#define CALL_ARG5(r) ((r)->r8)
#define CALL_RESULT(r) ((r)->ax)
#define CALL_STACK(r) ((r)->sp)
/* Go's own convention, from 1.17 on. */
#define GO_GOROUTINE(r) ((r)->r14)
#define GO_ARG1(r) ((r)->ax)
#define GO_ARG2(r) ((r)->bx)
#define GO_ARG3(r) ((r)->cx)
#define GO_RESULT(r) ((r)->ax)
/* What a return takes off the stack: the return address. */
#define RETURN_POPS 8
enum {
	SYS_read = 0, SYS_write = 1, SYS_mmap = 9, SYS_readv = 19, SYS_writev = 20, SYS_sendfile = 40,
	SYS_accept = 43, SYS_sendto = 44, SYS_recvfrom = 45, SYS_sendmsg = 46, SYS_recvmsg = 47,
	SYS_splice = 275, SYS_accept4 = 288, SYS_recvmmsg = 299, SYS_sendmmsg = 307,
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate, orig_x0;
	__s32 syscallno;
} KERNEL_TYPE;
#define SYS_ARG1(r) ((r)->orig_x0)
#define SYS_ARG2(r) ((r)->regs[1])
#define SYS_ARG3(r) ((r)->regs[2])
#define SYS_ARG4(r) ((r)->regs[3])
#define SYS_ARG5(r) ((r)->regs[4])
#define SYS_NUMBER(r) ((r)->syscallno)
#define SYS_GOROUTINE(r) ((r)->regs[28])
#define SYS_IS_COMPAT(r) (((r)->pstate & 0x10) != 0)
struct call_regs { __u64 regs[31]; __u64 sp, pc, pstate; };
#define CALL_ARG1(r) ((r)->regs[0])
#define CALL_ARG2(r) ((r)->regs[1])
#define CALL_ARG3(r) ((r)->regs[2])
#define CALL_ARG4(r) ((r)->regs[3])
#define CALL_ARG5(r) ((r)->regs[4])
#define CALL_RESULT(r) ((r)->regs[0])
#define CALL_STACK(r) ((r)->sp)
#define GO_GOROUTINE(r) ((r)->regs[28])
#define GO_ARG1(r) ((r)->regs[0])
#define GO_ARG2(r) ((r)->regs[1])
#define GO_ARG3(r) ((r)->regs[2])
#define GO_RESULT(r) ((r)->regs[0])
#define RETURN_POPS 0
enum {
	SYS_read = 63, SYS_write = 64, SYS_readv = 65, SYS_writev = 66, SYS_sendfile = 71, SYS_splice = 76, SYS_accept = 202,
	SYS_sendto = 206, SYS_recvfrom = 207, SYS_sendmsg = 211, SYS_recvmsg = 212, SYS_mmap = 222,
	SYS_accept4 = 242, SYS_recvmmsg = 243, SYS_sendmmsg = 269,
};
#else
#error "no system call numbers for this architecture"
#endif

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define PORT_DNS 53
#define PORT_HTTPS 443
#define SOCK_STREAM 1
#define RCV_SHUTDOWN 1
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define PROT_EXEC 4
#define SIGSTOP 19
#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_FIN_WAIT1 = 4, TCP_FIN_WAIT2 = 5, TCP_TIME_WAIT = 6,
       TCP_CLOSE = 7, TCP_CLOSE_WAIT = 8, TCP_LAST_ACK = 9, TCP_LISTEN = 10, TCP_CLOSING = 11 };

/* What user space hands to the system calls; their layout is fixed by the kernel's interface. */
struct user_iovec { __u64 base, len; };
struct user_msghead { __u64 name, namelen, iov, iovlen; };
struct user_msghdr {
	struct user_msghead head;
	__u64 control;
	__u64 controllen;
	__u64 flags;
};
struct user_mmsghdr { struct user_msghdr head; __u32 len; __u32 pad; };

#endif
