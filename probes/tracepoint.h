/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Hook set "tracepoint": BTF tracepoints of Linux 6.3 and later. For kernels without trampolines.
 */
#ifndef SPANTAP_TRACEPOINT_H
#define SPANTAP_TRACEPOINT_H

#include "io_uring.h"

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
	return sending(sk, msg, SENDING_PIECE);
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(io_uring_complete, void *ring, void *request)
{
	return io_uring_completed(request);
}

#endif
