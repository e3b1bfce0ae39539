/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The kernel side: entry points only. Each hands its arguments to a body in calls.h, transfer.h, released.h, lifetime.h,
 * process.h, io_uring.h or tls.h. The ways of hooking are sets of entry points to the same bodies; the agent loads one of them.
 * Compiled twice, see access.h.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#include "event.h"
#include "propagate.h"
#include "maps.h"
#include "access.h"
#include "arch.h"
#include "data.h"
#include "propagated.h"
#include "socket.h"
#include "transfer.h"
#include "calls.h"
#include "released.h"
#include "lifetime.h"
#include "process.h"
#include "layout.h"
#ifdef SPANTAP_TABLE
#include "kprobe.h"
#else
#include "tracepoint.h"
#include "tls.h"
#include "tls_go.h"
#include "tls_entries.h"
#include "go_link.h"
#ifdef LINKS_OF_RUNTIMES
#include "python_entries.h"
#include "node_entries.h"
#include "tokio_entries.h"
#endif
#endif
#include "fentry.h"

/*
 * In every hook set. The second object reads by helpers, so that its programs need not be told types by the kernel: as raw
 * tracepoints, which fire alike, they also load where the kernel has no BTF.
 */
#ifdef SPANTAP_TABLE
#define TRACEPOINT(name) SEC("raw_tp/" #name)
#else
#define TRACEPOINT(name) SEC("tp_btf/" #name)
#endif

TRACEPOINT(inet_sock_set_state)
int BPF_PROG(inet_sock_set_state, struct sock *sk, int old, int new)
{
	if (FIELD(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	if (new == TCP_LISTEN)
		return listening(sk);
	return state_changed(sk, old, new);
}

#ifdef SPANTAP_TABLE
TRACEPOINT(tcp_destroy_sock)
int BPF_PROG(tcp_destroy_sock, struct sock *sk)
{
	return forget_state(sk);
}
#endif

TRACEPOINT(sched_process_fork)
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	return forked(parent, child);
}

TRACEPOINT(sched_process_exec)
int BPF_PROG(sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	return executed(task, program);
}

TRACEPOINT(sched_process_exit)
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	return exited(task);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
