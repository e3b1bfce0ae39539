/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Somebody else's programs on sockets: both ends of every connection with one port are put into a table of sockets, and a program looks at
 * all that is sent on them. Nothing is changed. The kernel then sends and receives by other functions (tcp_bpf_sendmsg).
 *
 * In: connections as they are made, what is sent. Out: how many sockets and how many sends.
 */
#include "../../probes/vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../../probes/propagate_kernel.h"

#define BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB 5

/* Written by the test before the programs are loaded. */
const volatile __u32 watched_port = 0;

struct ends {
	__u32 local;
	__u32 remote;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__type(key, struct ends);
	__type(value, __u32);
} sockets SEC(".maps");

/* Sockets in the table, sends on them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *number = bpf_map_lookup_elem(&counts, &which);

	if (number)
		__sync_fetch_and_add(number, 1);
}

SEC("sockops")
int sockmap_connections(struct bpf_sock_ops *ops)
{
	struct ends ends = { .local = ops->local_port, .remote = bpf_ntohl(ops->remote_port) };

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (ends.local != watched_port && ends.remote != watched_port)
		return 1;
	if (bpf_sock_hash_update(ops, &sockets, &ends, BPF_ANY) == 0)
		count(0);
	return 1;
}

SEC("sk_msg")
int sockmap_sends(struct sk_msg_md *message)
{
	count(1);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
