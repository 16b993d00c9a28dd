/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Processes: begin, end, and which files they map for execution, so that probes are where they are needed. */
#ifndef RINGTAP_PROCESS_H
#define RINGTAP_PROCESS_H

#include "sockets.h"

/* What stands for a file. The number of one that is gone is given to another: its generation tells them apart. */
static __always_inline struct socket_ref key_of_file(struct file *file)
{
	struct socket_ref key = {};

	key.sk = BPF_CORE_READ(file, f_inode, i_sb, s_dev) |
		 (__u64)BPF_CORE_READ(file, f_inode, i_generation) << 32;
	key.conn = BPF_CORE_READ(file, f_inode, i_ino);
	return key;
}

/*
 * Stops the process before it runs a line of a file that was not looked at yet, if that was asked for. Not without an
 * entry by which it can be let go.
 */
static __always_inline void hold_process(struct rt_record *r)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, on = 0;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!bpf_map_lookup_elem(&held, &on) || tgid == self_tgid || is_excluded(tgid, RT_X_ALL))
		return;
	if (bpf_map_update_elem(&held, &tgid, &now, BPF_ANY))
		return;
	r->flags |= RT_F_HELD;
	bpf_send_signal(SIGSTOP);
}

SEC("raw_tp/sched_process_exec")
int handle_exec(__u64 *ctx)
{
	struct linux_binprm *program = (void *)ctx[2];
	struct socket_ref key = key_of_file(BPF_CORE_READ(program, file));
	struct {
		struct rt_record head;
		char path[RT_NAME_MAX];
	} *r;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u8 one = 1;
	long n;

	/* Another program now: user space decides anew. */
	bpf_map_delete_elem(&excluded, &tgid);
	r = bpf_ringbuf_reserve(&control, sizeof(*r), 0);
	if (!r) {
		COUNT(control_lost, 1);
		return 0;
	}
	fill_head(&r->head, RT_EXEC, 0);
	n = bpf_probe_read_kernel_str(r->path, sizeof(r->path), BPF_CORE_READ(program, filename));
	r->head.size = n > 0 ? n - 1 : 0;
	if (!bpf_map_lookup_elem(&mapped_files, &key)) {
		bpf_map_update_elem(&mapped_files, &key, &one, BPF_ANY);
		hold_process(&r->head);
	}
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/* Children are excluded like their parents, until they exec. */
SEC("raw_tp/sched_process_fork")
int handle_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 from = BPF_CORE_READ(parent, tgid), to = BPF_CORE_READ(child, tgid);
	__u32 mask;

	if (from == to)
		return 0;
	/* What the parent's probes cost is not the child's concern. */
	mask = exclusion_of(from) & RT_X_ALL;
	if (mask)
		bpf_map_update_elem(&excluded, &to, &mask, BPF_ANY);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int handle_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 tgid = thread >> 32;
	struct rt_record *r;

	bpf_map_delete_elem(&tls_calls, &thread);
	bpf_map_delete_elem(&last_received, &thread);
	if (BPF_CORE_READ(task, signal, live.counter) > 0)
		return 0;
	bpf_map_delete_elem(&excluded, &tgid);
	r = bpf_ringbuf_reserve(&control, sizeof(*r), 0);
	if (!r) {
		COUNT(control_lost, 1);
		return 0;
	}
	fill_head(r, RT_EXIT, 0);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/* A file was mapped for execution. Each is reported once. */
__noinline int handle_mmap(int fd)
{
	struct file *file = file_of(fd);
	struct socket_ref key;
	struct {
		struct rt_record head;
		struct rt_file file;
	} *r;
	__u8 one = 1;

	if (!file)
		return 0;
	key = key_of_file(file);
	if (bpf_map_lookup_elem(&mapped_files, &key))
		return 0;
	r = bpf_ringbuf_reserve(&control, sizeof(*r), 0);
	if (!r) {
		COUNT(control_lost, 1);
		return 0;
	}
	bpf_map_update_elem(&mapped_files, &key, &one, BPF_ANY);
	fill_head(&r->head, RT_MAP, 0);
	r->head.size = sizeof(r->file);
	r->file.device = key.sk;
	r->file.inode = key.conn;
	bpf_probe_read_kernel_str(r->file.name, sizeof(r->file.name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	hold_process(&r->head);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

#endif
