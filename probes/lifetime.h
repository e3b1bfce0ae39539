/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Changes of state of sockets.
 *
 * In: a TCP socket and its states. Out: struct socket_event without data in the ring buffer `socket_events`.
 */
#ifndef SPANTAP_LIFETIME_H
#define SPANTAP_LIFETIME_H

#define TCP_ESTABLISHED 1
#define TCP_FIN_WAIT1 4
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10

/* A TCP socket that we know has changed its state. Runs in whatever context the packet or call came. */
static __always_inline int state_changed(struct sock *sk, int old, int new)
{
	__u32 owner = SCRATCH_STATE;
	struct socket_state *state;
	struct scratch *scratch;
	struct control *control;
	__u8 kind;

	switch (new) {
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
	scratch = bpf_map_lookup_elem(&scratches, &owner);
	if (!control || !scratch)
		return 0;
	/* The caller may be anybody, an interrupt too: the forwarder knows whose socket it is. */
	__builtin_memset(&scratch->event, 0, sizeof(scratch->event));
	scratch->event.kind = kind;
	scratch->event.socket = state->cookie;
	scratch->event.time = bpf_ktime_get_ns();
	scratch->event.turn = state->turn;
	/* A send under way may itself have met the end, on the loopback: its turn is told when it has completed. */
	if (state->send_began && state->send_begins_turn && state->turn == state->send_turn)
		scratch->event.turn--;
	if (state->mode == MODE_TLS) {
		tls_state_changed(sk, state, scratch, control, new == TCP_CLOSE);
		return 0;
	}
	/* Of the direction that has ended. */
	scratch->event.offset = kind == RECORD_LOCAL_CLOSED ? state->sent : state->received;
	scratch->event.opposite_offset = kind == RECORD_LOCAL_CLOSED ? state->received : state->sent;
	submit(sk, state, scratch, control, false);
	return 0;
}

#endif
