/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The kernel side: entry points only. Each hands its arguments to a body in socket.h, process.h or io_uring.h, so
 * that another way of hooking (fentry, kprobes) is another set of entry points to the same bodies.
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
#include "maps.h"
#include "arch.h"
#include "data.h"
#include "socket.h"
#include "io_uring.h"
#include "process.h"
#include "tls.h"
#include "tls_go.h"
#include "layout.h"

/* Hook set "btf-tracepoints": Linux 6.3 and later. */

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	return sent(sk, ret);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	return received(sk, ret, flags);
}

/* Linux 6.16 and later: when a send begins, and the data of sends that no system call's registers lead to. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked, struct sock *sk, struct msghdr *msg)
{
	return sending(sk, msg);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int old, int new)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new == TCP_LISTEN)
		return listening(sk);
	return state_changed(sk, old, new);
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(io_uring_complete, void *ring, void *request)
{
	return io_uring_completed(request);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	return forked(parent, child);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	return executed(task, program);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	return exited(task);
}

/* Attached to functions of the TLS libraries of selected processes: one program for each kind of function. */

SEC("uprobe")
int tls_read(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_READ);
}

SEC("uprobe")
int tls_read_ex(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_READ_EX);
}

SEC("uprobe")
int tls_write(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_WRITE);
}

SEC("uprobe")
int tls_write_ex(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_WRITE_EX);
}

SEC("uprobe")
int tls_other(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_OTHER);
}

SEC("uretprobe")
int tls_return(struct pt_regs *regs)
{
	return tls_returned(regs);
}

SEC("uprobe")
int tls_forget(struct pt_regs *regs)
{
	return tls_forgotten(regs);
}

/* Attached to methods of Go's *tls.Conn. */

SEC("uprobe")
int tls_go_read(struct pt_regs *regs)
{
	return tls_go_entered(regs, RECORD_RECEIVE);
}

SEC("uprobe")
int tls_go_write(struct pt_regs *regs)
{
	return tls_go_entered(regs, RECORD_SEND);
}

SEC("uprobe")
int tls_go_return(struct pt_regs *regs)
{
	return tls_go_left(regs);
}

SEC("uprobe")
int tls_go_start(struct pt_regs *regs)
{
	return tls_go_begins();
}

SEC("uprobe")
int tls_go_close(struct pt_regs *regs)
{
	return tls_session_over(GO_ARGUMENT1(regs));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
