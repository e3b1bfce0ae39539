/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Entry points of what reads TLS, with every hook set of the first object.
 */
#ifndef SPANTAP_TLS_ENTRIES_H
#define SPANTAP_TLS_ENTRIES_H

/*
 * Keeps the kernel from giving a program a stack for each processor: it gives none to programs with a tail call. From Linux 6.13 on
 * it gives one to programs of this type, and a thread may be preempted inside them by another that runs the same program: both would
 * write to one stack, and the kernel crash. The array is empty: the call falls through. In every program here, by a test of the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} no_programs SEC(".maps");

#define STACK_OF_THE_THREAD(regs) bpf_tail_call(regs, &no_programs, 0)

/* Attached to functions of the TLS libraries of selected processes: one program for each kind of function. */

SEC("uprobe")
int tls_read(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_READ);
}

SEC("uprobe")
int tls_read_ex(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_READ_EX);
}

SEC("uprobe")
int tls_write(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_WRITE);
}

SEC("uprobe")
int tls_write_ex(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_WRITE_EX);
}

SEC("uprobe")
int tls_other(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_OTHER);
}

SEC("uprobe")
int tls_flush(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_entered(regs, TLS_FLUSH);
}

SEC("uretprobe")
int tls_return(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_returned(regs);
}

/* BIO_write, only in processes whose library works in memory. */
SEC("uprobe")
int tls_cipher(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_cipher_written(regs);
}

SEC("uprobe")
int tls_forget(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_forgotten(regs);
}

/* Attached to methods of Go's *tls.Conn. */

SEC("uprobe")
int tls_go_read(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_go_entered(regs, RECORD_RECEIVE);
}

SEC("uprobe")
int tls_go_write(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_go_entered(regs, RECORD_SEND);
}

SEC("uprobe")
int tls_go_return(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_go_left(regs);
}

SEC("uprobe")
int tls_go_done(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_go_done_with(regs);
}

SEC("uprobe")
int tls_go_start(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_go_begins();
}

SEC("uprobe")
int tls_go_close(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tls_session_over(GO_ARGUMENT1(regs));
}

#endif
