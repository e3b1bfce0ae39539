/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Changes of state of sockets.
 *
 * In: a TCP socket and its states. Out: struct socket_event without data in the ring buffer `socket_events`.
 */
#ifndef SPANTAP_LIFETIME_H
#define SPANTAP_LIFETIME_H

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10

/* Has the kernel store a flag now, not when it suits the compiler. */
#define SET_BUSY(scratch, value) (*(volatile __u32 *)&(scratch)->busy = (value))

/* Room of this processor for an event, marked as busy; an interrupt within gets another one. */
static __always_inline struct scratch *take_scratch(void)
{
	__u32 owner = SCRATCH_STATE;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &owner);

	if (scratch && scratch->busy) {
		owner = SCRATCH_STATE_WITHIN;
		scratch = bpf_map_lookup_elem(&scratches, &owner);
	}
	if (scratch)
		SET_BUSY(scratch, 1);
	return scratch;
}

/*
 * A thread connects a socket: what an event loop sends over it first is sent later, when it is connected, but for what the
 * thread does now. Gives the socket its cookie, which no other hook has seen yet.
 */
static __always_inline int connecting(struct sock *sk)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct socket_state socket = {};
	struct scratch *scratch;
	struct control *control;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	control = the_control();
	scratch = control ? take_scratch() : NULL;
	if (!scratch)
		return 0;
	socket.cookie = cookie_of(sk);
	socket.announced = control->announce;
	describe(&scratch->event, current_task(), pid_tgid, &socket, RECORD_CONNECT, bpf_ktime_get_ns());
	submit(NULL, &socket, scratch, control, false);
	SET_BUSY(scratch, 0);
	if (node_is_any())
		node_connects(socket.cookie);
	return 0;
}

/* A TCP socket that we know has changed its state. Runs in whatever context the packet or call came. */
static __always_inline int state_changed(struct sock *sk, int old, int new)
{
	struct socket_state *state;
	struct scratch *scratch;
	struct control *control;
	__u8 kind;

	switch (new) {
	case TCP_SYN_SENT:
		return connecting(sk);
	case TCP_ESTABLISHED:
		/* Whatever the table knows of this address is of a socket before. */
		return forget_state(sk);
	case TCP_CLOSE_WAIT:
		kind = RECORD_PEER_CLOSED;
		break;
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		kind = RECORD_LOCAL_CLOSED;
		break;
	case TCP_CLOSE:
		kind = old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT || FIELD(sk, sk_err) ? RECORD_RESET : RECORD_CLOSED;
		break;
	default:
		return 0;
	}
	state = find_state(sk);
	if (!state || !state->cookie || state->mode == MODE_OPAQUE)
		return 0;
	control = the_control();
	scratch = control ? take_scratch() : NULL;
	if (!scratch)
		return 0;
	/* The caller may be anybody, an interrupt too: the forwarder knows whose socket it is. */
	COMPARE_HERE(scratch);
	__builtin_memset(&scratch->event, 0, sizeof(scratch->event));
	FORGET(scratch->event.kind, kind);
	COMPARE_HERE(scratch);
	scratch->event.socket = state->cookie;
	scratch->event.time = bpf_ktime_get_ns();
	scratch->event.turn = state->turn;
	/* A send under way may itself have met the end, on the loopback: its turn is told when it has completed. */
	if (state->send_began && state->send_begins_turn && state->turn == state->send_turn)
		scratch->event.turn--;
	if (state->mode == MODE_TLS) {
		tls_state_changed(sk, state, scratch, control);
		SET_BUSY(scratch, 0);
		return 0;
	}
	set_ended(scratch, state);
	note_record(state, scratch, submit(sk, state, scratch, control, false), false);
	SET_BUSY(scratch, 0);
	return 0;
}

#endif
