/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Hook set "kprobe": kprobes on entries alone. No kretprobe: each has a few places for calls that are under way, and threads that
 * wait for data take them all.
 */
#ifndef SPANTAP_KPROBE_H
#define SPANTAP_KPROBE_H

static __always_inline struct sock *sock_of(struct pt_regs *regs)
{
	return FIELD((struct socket *)FUNCTION_ARGUMENT1(regs), sk);
}

SEC("kprobe")
int kprobe_send(struct pt_regs *regs)
{
	return sending(sock_of(regs), (struct msghdr *)FUNCTION_ARGUMENT2(regs), SENDING_ENTRY);
}

SEC("kprobe")
int kprobe_sendpage(struct pt_regs *regs)
{
	return sending(sock_of(regs), NULL, SENDING_ENTRY);
}

SEC("kprobe")
int kprobe_receive(struct pt_regs *regs)
{
	return receiving(sock_of(regs), (struct msghdr *)FUNCTION_ARGUMENT2(regs), (int)FUNCTION_ARGUMENT4(regs));
}

SEC("kprobe")
int kprobe_received(struct pt_regs *regs)
{
	return released((struct sock *)FUNCTION_ARGUMENT1(regs), RECORD_RECEIVE);
}

SEC("kprobe")
int kprobe_sent(struct pt_regs *regs)
{
	return released((struct sock *)FUNCTION_ARGUMENT1(regs), RECORD_SEND);
}

#endif
