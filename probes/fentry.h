/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Hook set "fentry": entry and return of the functions that every send and receive goes through, whatever the protocol of
 * the socket has put in the place of its own.
 */
#ifndef SPANTAP_FENTRY_H
#define SPANTAP_FENTRY_H

/* Each of these functions with its twin for another family. */
#define SEND(function)                                                                                 \
	SEC("fentry/" #function)                                                                       \
	int BPF_PROG(function##_enter, struct socket *socket, struct msghdr *msg)                      \
	{                                                                                              \
		return sending(FIELD(socket, sk), msg, SENDING_CALL);                                  \
	}                                                                                              \
	SEC("fexit/" #function)                                                                        \
	int BPF_PROG(function##_exit, struct socket *socket, struct msghdr *msg, __u64 size, int ret)  \
	{                                                                                              \
		return sent(FIELD(socket, sk), ret);                                                   \
	}

#define RECEIVE(function)                                                                              \
	SEC("fentry/" #function)                                                                       \
	int BPF_PROG(function##_enter, struct socket *socket, struct msghdr *msg, __u64 size, int flags) \
	{                                                                                              \
		return receiving(FIELD(socket, sk), msg, flags);                                       \
	}                                                                                              \
	SEC("fexit/" #function)                                                                        \
	int BPF_PROG(function##_exit, struct socket *socket, struct msghdr *msg, __u64 size, int flags, int ret) \
	{                                                                                              \
		return received(FIELD(socket, sk), ret, flags);                                        \
	}

SEND(inet_sendmsg)
SEND(inet6_sendmsg)
SEND(unix_stream_sendmsg)
RECEIVE(inet_recvmsg)
RECEIVE(inet6_recvmsg)
RECEIVE(unix_stream_recvmsg)

/* Until 6.5: sendfile and splice. Later they go through sendmsg. */
SEC("fentry/inet_sendpage")
int BPF_PROG(inet_sendpage_enter, struct socket *socket)
{
	return sending(FIELD(socket, sk), NULL, SENDING_CALL);
}

SEC("fexit/inet_sendpage")
int BPF_PROG(inet_sendpage_exit, struct socket *socket, void *page, int offset, __u64 size, int flags, int ret)
{
	return sent(FIELD(socket, sk), ret);
}

#ifdef SPANTAP_TABLE
SEC("fentry/unix_release")
int BPF_PROG(unix_release_enter, struct socket *socket)
{
	return forget_state(FIELD(socket, sk));
}
#endif

#endif
