/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Records on their way to the agent.
 *
 * In: a record in `scratch`, the state of the socket that it tells of. Out: the ring buffer `socket_events`, with the addresses of
 * a socket before its first record; what there was no room for in `losses`.
 */
#ifndef SPANTAP_HAND_OVER_H
#define SPANTAP_HAND_OVER_H

/*
 * Wake-ups cost a hundred times what a record costs, and each takes a processor from what is watched: the agent is woken
 * when wake_bytes wait for it; its own timer covers what stays below. Each program looks at the fill level once in
 * ask_bytes of its own records.
 */
static __always_inline __u64 wake_flags(struct scratch *scratch, struct control *control, __u32 size)
{
	scratch->unasked += size;
	if (scratch->unasked < control->ask_bytes)
		return BPF_RB_NO_WAKEUP;
	scratch->unasked = 0;
	if (bpf_ringbuf_query(&socket_events, BPF_RB_AVAIL_DATA) < control->wake_bytes)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

/*
 * What is called in several places is not inlined there: the verifier looks at it once for each program. Such functions take no
 * typed pointers, so the socket's address stands in `scratch`, and fields are read by helper. But each call costs 20 to 40 ns where
 * the kernel guards its returns (retbleed, SRSO): on the usual way of a send and a receive everything is inlined, by the functions
 * whose names end in `_here`.
 */

/* The path of a Unix socket: a server's carries the path it listens on, a client's only its peer's. */
static __always_inline void tell_path(const struct unix_sock *end, struct connection_event *event)
{
	struct unix_sock *peer = (struct unix_sock *)BPF_CORE_READ(end, peer);
	struct unix_address *address = BPF_CORE_READ(end, addr);
	int length;

	if (!address)
		address = peer ? BPF_CORE_READ(peer, addr) : NULL;
	event->peer_socket = peer ? cookie_of_peer((struct sock *)peer) : 0;
	length = address ? BPF_CORE_READ(address, len) - 2 : 0;
	if (length > 0) {
		const void *path = (const void *)address + bpf_core_field_offset(struct unix_address, name) + 2;

		if (length > PATH_BYTES)
			length = PATH_BYTES;
		if (!bpf_probe_read_kernel(event->path, BOUND(length, PATH_BYTES), path))
			event->path_length = length;
	}
}

/* Tells the addresses of the socket at scratch->socket. Returns 0, or not if there was no room. */
SHARED int tell_connection(struct socket_state *state, struct scratch *scratch, struct control *control)
{
	__u32 size = offsetof(struct connection_event, path);
	struct connection_event *event;
	struct tcp_sock *tp;
	struct sock *sk;

	if (!state || !scratch || !control)
		return -1;
	event = &scratch->connection;
	sk = (struct sock *)scratch->socket;
	__builtin_memset(event, 0, offsetof(struct connection_event, path));
	event->kind = RECORD_CONNECTION;
	event->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	event->socket = state->tls_plain ? state->tls_plain : state->cookie;
	event->network_namespace = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	event->peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (state->tcp) {
		/* 1 if the peer's FIN has been read: see fin_was_read(). */
		__u32 fin;

		tp = (struct tcp_sock *)sk;
		fin = BPF_CORE_READ(sk, sk_shutdown) & RCV_SHUTDOWN &&
		      BPF_CORE_READ(tp, copied_seq) == BPF_CORE_READ(tp, rcv_nxt);
		event->received_base = state->received_seq - (__u32)state->received - fin;
		event->sent_base = state->sent_seq - (__u32)state->sent;
	}
	if (event->family == AF_INET) {
		__be32 local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), peer = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		__builtin_memcpy(event->local_address, &local, 4);
		__builtin_memcpy(event->peer_address, &peer, 4);
	} else if (event->family == AF_INET6) {
		BPF_CORE_READ_INTO(&event->local_address, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&event->peer_address, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		tell_path((struct unix_sock *)sk, event);
		size = sizeof(*event);
	}
	return bpf_ringbuf_output(&socket_events, event, size, wake_flags(scratch, control, size));
}

/* Tells the addresses of a socket. Returns false if there was no room. */
static __always_inline bool announce(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				     struct control *control)
{
	scratch->socket = (__u64)sk;
	return !tell_connection(state, scratch, control);
}

/* Hands the record in `scratch` over. Returns false if there was no room. */
static __always_inline bool hand_over_here(struct scratch *scratch, struct control *control)
{
	__u32 size = sizeof(scratch->event) + scratch->event.head_length;
	__u64 flags = wake_flags(scratch, control, size);

	return !bpf_ringbuf_output(&socket_events, scratch, BOUND(size, sizeof(scratch->event) + HEAD_MAX + FIELD_BYTES), flags);
}

SHARED int hand_over(struct scratch *scratch, struct control *control, int begins_turn)
{
	if (scratch && control && hand_over_here(scratch, control))
		return 1;
	count_loss(begins_turn ? LOSS_RING_FULL_TURN : LOSS_RING_FULL_OTHER);
	return 0;
}

/*
 * The record in `scratch`, of `state`, was handed over, or was not (`told`). What is missing between two records shows by their
 * turns, to whoever hears of both. What nobody hears of is counted here: requests before the first record, if that is a later
 * one's, and behind the last, if there is no room for the record of the end. Requests are every second turn from the first on, as
 * on any connection that was seen from its beginning. `uncounted`: that there was no room is yet to be counted.
 */
SHARED int note_record(struct socket_state *state, struct scratch *scratch, int told, int uncounted)
{
	__u32 before, turn, unseen;
	__u8 kind;

	if (!state || !scratch)
		return 0;
	if (!told && uncounted)
		count_loss(scratch->begins_turn ? LOSS_RING_FULL_TURN : LOSS_RING_FULL_OTHER);
	kind = scratch->event.kind;
	turn = scratch->event.turn;
	before = state->told;
	if (told && before) {
		if (turn > before)
			state->told = turn;
		return 0;
	}
	if ((!told && kind != RECORD_CLOSED && kind != RECORD_RESET) || !turn)
		return 0;
	if (turn > before)
		state->told = turn;
	/* A response that begins shows its request; an end shows nothing to who has heard of nothing else. */
	if (kind == RECORD_SEND || kind == RECORD_RECEIVE)
		unseen = (scratch->begins_turn ? turn - 1 : turn) / 2;
	else
		unseen = turn > before ? (turn + 1) / 2 - (before + 1) / 2 : 0;
	if (unseen && state->mode == MODE_HTTP)
		count_losses(LOSS_EXCHANGE, unseen);
	return 0;
}

/* Announces if that is due. */
static __always_inline void announce_if_due(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					    struct control *control)
{
	/* Plaintext of TLS comes without a socket: that was announced when its bytes moved. */
	if (sk && state->announced != control->announce && announce(sk, state, scratch, control))
		state->announced = control->announce;
}

/* The same, then hands the record in `scratch` over. Returns whether there was room. */
static __always_inline bool submit(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				   struct control *control, bool begins_turn)
{
	announce_if_due(sk, state, scratch, control);
	return hand_over(scratch, control, begins_turn);
}

#endif
