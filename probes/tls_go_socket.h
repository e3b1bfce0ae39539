/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sockets that speak TLS, in a process that makes calls of Go's crypto/tls.
 *
 * In: transfers of such a socket. Out: the state of its plaintext, which is there before the first byte of that, so that a
 * call (tls_go.h) that finds the socket's cookie knows that the socket itself is not told; when bytes were moved last.
 */
#ifndef SPANTAP_TLS_GO_SOCKET_H
#define SPANTAP_TLS_GO_SOCKET_H

/* tls.h */
static __noinline struct socket_state *tls_state_of(__u64 cookie);

/* Calls have moved plaintext of this socket: it is read. */
static __always_inline void tls_go_tie(struct socket_state *state)
{
	__u64 cookie = state->cookie;
	struct socket_state *plain;

	if (state->tls_tied)
		return;
	plain = bpf_map_lookup_elem(&tls_sockets, &cookie);
	if (plain && plain->turn)
		state->tls_tied = TIED_BY_GO;
}

/* Bytes of the socket were moved, as scratch->event says. Returns whether its plaintext is read. */
static __always_inline bool tls_go_moved(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					 struct control *control)
{
	__u32 pid = scratch->event.pid;
	struct tls_process *process;
	struct socket_state *plain;

	if (state->tls_tied) {
		if (state->tls_tied != TIED_BY_GO)
			return false;
	} else {
		process = bpf_map_lookup_elem(&tls_processes, &pid);
		if (!process || !process->go)
			return false;
	}
	plain = tls_state_of(state->cookie);
	if (!plain)
		return false;
	/* Before any of its plaintext. */
	if (state->announced != control->announce && announce(sk, state, scratch, control))
		state->announced = control->announce;
	if (scratch->event.kind == RECORD_SEND) {
		plain->send_last = scratch->event.time;
	} else {
		struct tcp_sock *tp = state->tcp ? tcp_of(sk) : NULL;
		plain->arrived = scratch->event.time - (tp ? queued_for(tp, scratch->event.time, control) : 0);
	}
	if (!state->tls_tied && plain->turn)
		state->tls_tied = TIED_BY_GO;
	return state->tls_tied;
}

#endif
