/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * A send or receive begins: where its data lies is known from the kernel's iterator, which has moved on when the call ends.
 *
 * In: a socket, the message. Out: a note in the state of the socket, for whoever sees the call complete: sent() and
 * received() of transfer.h, or released() of released.h. One call of each direction is noted for a socket; the note says whose,
 * so that another thread's call on the same socket is never told with this one's data.
 */
#ifndef SPANTAP_CALLS_H
#define SPANTAP_CALLS_H

/* How the beginning of a send is seen. */
enum sending {
	SENDING_PIECE,   /* tcp_sendmsg_locked: again for each piece of the same call, with the socket locked */
	SENDING_CALL,    /* entry of the call; its return is seen as well */
	SENDING_ENTRY,   /* entry of the call; it is over when the socket is released */
};

static __always_inline void note_send(struct socket_state *state, const struct msghdr *msg)
{
	struct data data = {};

	if (msg)
		data_of_iterator(&data, msg);
	state->send_data = data.address;
	state->send_skip = data.skip;
	state->send_segments = data.segments;
}

/* A send is about to move bytes. `msg` is NULL where they come from pages (sendpage). */
static __always_inline int sending(struct sock *sk, const struct msghdr *msg, enum sending how)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct socket_state *state;
	bool tcp = true;
	__u64 now;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	if (how != SENDING_PIECE && !is_stream(sk, &tcp))
		return 0;
	state = the_state(sk, tcp, RECORD_SEND, 0);
	if (!state || state->mode == MODE_OPAQUE)
		return 0;
	now = bpf_ktime_get_ns();
	if (how == SENDING_ENTRY) {
		/* A call that moved nothing leaves its note: the next one takes its place. */
		struct tcp_sock *tp = tcp_of(sk);

		if (!tp)
			return 0;
		state->send_from = FIELD(tp, write_seq);
		state->send_began = now;
		state->send_last = now;
		state->send_thread = pid_tgid;
		state->send_begins_turn = false;
		state->send_whole = true;
		note_send(state, msg);
		return 0;
	}
	if (state->send_began && (how == SENDING_PIECE || state->send_thread != pid_tgid)) {
		if (how == SENDING_PIECE)
			state->send_last = now;
		return 0;
	}
	/* What is noted of the same thread is of a call whose return the kernel skipped. */
	state->send_last = now;
	state->send_began = now;
	state->send_thread = pid_tgid;
	state->send_begins_turn = turn_to(state, RECORD_SEND);
	state->send_turn = state->turn;
	state->send_whole = how != SENDING_PIECE;
	note_send(state, msg);
	return 0;
}

/* A receive is about to wait for bytes. */
static __always_inline int receiving(struct sock *sk, const struct msghdr *msg, int flags)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct socket_state *state;
	struct data data = {};
	bool tcp;

	if (!is_selected(pid_tgid >> 32) || !is_stream(sk, &tcp))
		return 0;
	state = the_state(sk, tcp, RECORD_RECEIVE, 0);
	if (!state || state->mode == MODE_OPAQUE)
		return 0;
	state->receive_thread = 0;
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0;
	data_of_iterator(&data, msg);
	state->receive_data = data.address;
	state->receive_skip = data.skip;
	state->receive_segments = data.segments;
	state->receive_flags = flags;
	if (tcp) {
		struct tcp_sock *tp = tcp_of(sk);

		if (!tp)
			return 0;
		state->receive_from = FIELD(tp, copied_seq);
	}
	state->receive_thread = pid_tgid;
	return 0;
}

#endif
