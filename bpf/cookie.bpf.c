// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Makes the kernel give each TCP socket its cookie before the capture looks at it, so that connection ids are the
 * ones that SO_COOKIE, ss -e and other BPF tools show. Without this object (before 5.12) ids are our own.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/inet_sock_set_state")
int handle_cookie(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int newstate = ctx[2];

	if (newstate == TCP_SYN_SENT || newstate == TCP_ESTABLISHED)
		bpf_get_socket_cookie(sk);
	return 0;
}
