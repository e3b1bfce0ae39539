/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sends and receives of TCP without their results: a kprobe sees a call begin (calls.h), and what it has moved when it gives the
 * socket's lock back, by the sequence numbers. A call that waits gives the lock back in between; each piece is told.
 *
 * In: a socket whose lock is given back, still held. Out: sent() and received() of transfer.h.
 */
#ifndef SPANTAP_RELEASED_H
#define SPANTAP_RELEASED_H

#define MSG_WAITALL 0x100

static __always_inline void received_until(struct sock *sk, struct tcp_sock *tp, struct socket_state *state)
{
	__u32 at = FIELD(tp, copied_seq), fin = fin_was_read(sk, tp), moved;
	__u64 thread = state->receive_thread;

	moved = at - state->receive_from - fin;
	if (moved >= 1u << 31)
		moved = 0;
	if (!moved && !(FIELD(sk, sk_shutdown) & RCV_SHUTDOWN && at == FIELD(tp, rcv_nxt)))
		return;
	received(sk, moved, state->receive_flags);
	state->receive_from = at;
	state->receive_skip += moved;
	/* Without MSG_WAITALL a call ends with the first bytes. */
	state->receive_thread = moved && state->receive_flags & MSG_WAITALL ? thread : 0;
}

static __always_inline void sent_until(struct sock *sk, struct tcp_sock *tp, struct socket_state *state)
{
	__u32 at = FIELD(tp, write_seq), moved = at - state->send_from;

	/* A FIN counts as one, but is no byte. */
	if (!moved || moved >= 1u << 31 || FIELD(sk, sk_shutdown) & SEND_SHUTDOWN)
		return;
	turn_to(state, RECORD_SEND);
	state->send_turn = state->turn;
	sent(sk, moved);
	/* Goes on, perhaps. */
	state->send_from = at;
	state->send_skip += moved;
	state->send_last = bpf_ktime_get_ns();
	state->send_began = state->send_last;
}

/* Two programs, each with half of the paths that the verifier has to follow. */
static __always_inline int released(struct sock *sk, __u8 direction)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct socket_state *state;
	struct tcp_sock *tp;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	state = find_state(sk);
	if (!state || !state->tcp || state->mode == MODE_OPAQUE)
		return 0;
	tp = tcp_of(sk);
	if (direction == RECORD_RECEIVE) {
		if (state->receive_thread == pid_tgid)
			received_until(sk, tp, state);
	} else if (state->send_began && state->send_thread == pid_tgid) {
		sent_until(sk, tp, state);
	}
	return 0;
}

#endif
