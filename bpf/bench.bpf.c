// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * For measurements only: a producer of records at will, and programs that do nothing, on the same hooks as the capture,
 * so that what probes cost by themselves can be told from what the capture adds.
 */
#include "abi.h"
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set by the loader. A record of `payload` bytes for each call of `trigger` by the process. */
volatile const __u32 bench_tgid = 0;
volatile const __u64 trigger = 0;
volatile const __u32 payload = 0;
/* 0: never wake the reader; 1: always. */
volatile const __u32 wakes = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} bench_ring SEC(".maps");

static __always_inline int produce(const __u32 size)
{
	struct rt_record *r = bpf_ringbuf_reserve(&bench_ring, sizeof(*r) + size, 0);

	if (!r)
		return 0;
	__builtin_memset(r, 0, sizeof(*r));
	r->time_ns = bpf_ktime_get_boot_ns();
	r->conn = 1;
	r->len = size;
	r->size = size;
	r->kind = RT_PAYLOAD;
	bpf_ringbuf_submit(r, wakes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp/sys_enter")
int bench_produce(__u64 *ctx)
{
	if (ctx[1] != trigger || bpf_get_current_pid_tgid() >> 32 != bench_tgid)
		return 0;
	switch (payload) {
	case 64: return produce(64);
	case 256: return produce(256);
	case 512: return produce(512);
	case 1024: return produce(1024);
	case 2048: return produce(2048);
	case 4096: return produce(4096);
	default: return produce(16384);
	}
}

SEC("tp_btf/sys_exit")
int bench_empty_tracepoint(__u64 *ctx)
{
	return 0;
}

SEC("uprobe")
int bench_empty_entry(void *ctx)
{
	return 0;
}

SEC("uprobe")
int bench_empty_return(void *ctx)
{
	return 0;
}
