/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Go's crypto/tls. A goroutine may leave its thread inside of a call, and its stack may be moved, so that calls are known
 * by goroutine, and frames by their depth. Returns are probed one by one: to change a return address on a stack that Go
 * moves would end the program.
 */
#ifndef RINGTAP_GO_H
#define RINGTAP_GO_H

#include "tls.h"

/* The stack of a goroutine: the first two words of what describes it. */
struct go_stack { __u64 start, end; };

static __always_inline struct tls_key goroutine_of(__u64 goroutine)
{
	struct tls_key key = { .ssl = goroutine, .tgid = bpf_get_current_pid_tgid() >> 32 };

	return key;
}

static __always_inline int enter_go_call(struct call_regs *regs, __u8 direction, __u8 payload)
{
	struct tls_key key = goroutine_of(GO_GOROUTINE(regs));
	struct go_call *open, fresh = {
		.call = { .ssl = GO_ARG1(regs), .buffer = GO_ARG2(regs), .room = GO_ARG3(regs),
			  .direction = direction, .payload = payload, .library = RT_GO },
	};
	struct go_stack stack;

	if (key.tgid == self_tgid || is_excluded(key.tgid, RT_X_DATA | RT_X_TLS | RT_X_HTTP) ||
	    bpf_probe_read_user(&stack, sizeof(stack), (void *)key.ssl))
		return 0;
	fresh.call.stack = stack.end - CALL_STACK(regs);
	fresh.stack_start = stack.start;
	fresh.stack_end = stack.end;
	open = bpf_map_lookup_elem(&go_calls, &key);
	/* TLS in TLS, or a handshake inside of a read: the outer call counts. */
	if (open && open->call.stack && open->call.stack < fresh.call.stack)
		return 0;
	if (bpf_map_update_elem(&go_calls, &key, &fresh, BPF_ANY))
		COUNT(calls_full, 1);
	go_seen = 1;
	return 0;
}

SEC("uprobe")
int handle_go_read(struct call_regs *regs)
{
	return enter_go_call(regs, RT_RECEIVED, 1);
}

SEC("uprobe")
int handle_go_write(struct call_regs *regs)
{
	return enter_go_call(regs, RT_SENT, 1);
}

SEC("uprobe")
int handle_go_handshake(struct call_regs *regs)
{
	return enter_go_call(regs, RT_RECEIVED, 0);
}

/* At each return instruction of the three. */
SEC("uprobe")
int handle_go_return(struct call_regs *regs)
{
	struct tls_key key = goroutine_of(GO_GOROUTINE(regs));
	struct go_call *open = bpf_map_lookup_elem(&go_calls, &key);
	struct rt_activity *a = activity_of(bpf_get_current_pid_tgid() >> 32);
	__s64 result = GO_RESULT(regs);
	struct go_stack stack;

	if (a)
		__sync_fetch_and_add(&a->calls, 1);
	if (!open || !open->call.stack || bpf_probe_read_user(&stack, sizeof(stack), (void *)key.ssl) ||
	    open->call.stack != stack.end - CALL_STACK(regs))
		return 0;
	open->call.stack = 0;
	if (!open->call.payload || result <= 0)
		return 0;
	if (result > open->call.room || result >> 31) {
		COUNT(counts_unread, 1);
		return 0;
	}
	/* A buffer on the stack has moved with it. */
	if (open->call.buffer >= open->stack_start && open->call.buffer < open->stack_end)
		open->call.buffer += stack.end - open->stack_end;
	emit_plaintext(&open->call, result, 0);
	return 0;
}

/* Around a system call: the goroutine's call is the thread's, so that it learns its socket. 0: it is in none. */
static __always_inline int enter_goroutine(__u64 goroutine)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_key key = goroutine_of(goroutine);
	struct go_call *open = bpf_map_lookup_elem(&go_calls, &key);

	return open && open->call.stack && !bpf_map_update_elem(&tls_calls, &thread, &open->call, BPF_ANY);
}

static __always_inline void leave_goroutine(void)
{
	struct tls_call *call = open_call();

	if (call)
		call->stack = 0;
}

#endif
