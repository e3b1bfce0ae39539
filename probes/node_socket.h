/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sockets of Node's event loop.
 *
 * In: what a thread of Node receives and sends. Out: what the event loop handles, in struct node_thread; struct socket_event of
 * kind RECORD_LINK, before the first byte of a request that is sent while another one is served.
 *
 * With TLS both are seen twice, first as ciphertext of the socket, then as plaintext (node_tls.h). Ciphertext says which connection is
 * handled: whose handshake is over may be told to the program before there is any plaintext.
 */
#ifndef SPANTAP_NODE_SOCKET_H
#define SPANTAP_NODE_SOCKET_H

struct node_socket {
	__u64 began;             /* server: when the first byte of its request was received */
	__u64 last;              /* client: the last number given when bytes of a response were received last */
	__u64 floor;             /* client: the same when the request was sent: what was given later is for it */
	__u64 asked;             /* client, TLS: a request was sent */
};

/* By cookie. LRU: of a connection whose entry was pushed out the next request begins it anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct node_socket);
} node_sockets SEC(".maps");

/* The event loop handles something else now. */
static __always_inline void node_begins(struct node_thread *thread, __u32 kind)
{
	thread->reacts = 0;
	thread->changed = 1;
	thread->flow_kind = kind;
	thread->flow_counter = kind ? thread->counter : 0;
	thread->flow_floor = thread->counter;
	thread->flow.socket = 0;
	thread->flow.began = 0;
}

/* A thread received nothing: the connection has ended. */
SHARED int node_received_nothing(void)
{
	struct node_thread *thread = node_this();

	if (!thread)
		return 0;
	node_look(thread);
	/* Whatever number it has: it may be that of another request. */
	node_begins(thread, NODE_FLOW_CLIENT);
	return 0;
}

/* Ciphertext was received. What is made before the first request is sent was made for that: a handshake takes a while. */
static __always_inline void node_receives_ciphertext(struct socket_state *state, struct node_thread *thread)
{
	__u64 cookie = state->tls_plain ? state->tls_plain : state->cookie;
	struct node_socket *socket = bpf_map_lookup_elem(&node_sockets, &cookie);

	node_begins(thread, NODE_FLOW_CLIENT);
	if (socket && !(state->turn & 1))
		thread->flow_floor = socket->asked ? socket->floor : 0;
}

/* `state`: of a socket, or of its plaintext. */
SHARED int node_receives(struct socket_state *state, __u64 now, int begins_turn)
{
	struct node_socket fresh = {}, *socket;
	struct node_thread *thread = node_this();
	__u64 cookie;

	if (!state || !thread || !node_look(thread))
		return 0;
	if (state->mode == MODE_TLS) {
		node_receives_ciphertext(state, thread);
		return 0;
	}
	cookie = state->cookie;
	socket = bpf_map_lookup_elem(&node_sockets, &cookie);
	if (!socket) {
		fresh.began = now;
		bpf_map_update_elem(&node_sockets, &cookie, &fresh, BPF_ANY);
		socket = bpf_map_lookup_elem(&node_sockets, &cookie);
		if (!socket)
			return 0;
	}
	/* Who receives first is the server. */
	if (state->turn & 1) {
		if (begins_turn)
			socket->began = now;
		node_begins(thread, NODE_FLOW_SERVER);
		thread->flow.socket = cookie;
		thread->flow.began = socket->began;
	} else {
		node_begins(thread, NODE_FLOW_CLIENT);
		thread->flow_floor = socket->floor;
		socket->last = thread->counter;
	}
	return 0;
}

/* A thread connects a socket: the number of that is not one of the requests that will be sent over it. */
SHARED int node_connects(__u64 cookie)
{
	struct node_thread *thread = node_this();
	struct node_socket fresh = {};

	if (!thread || !node_look(thread))
		return 0;
	fresh.last = thread->counter;
	bpf_map_update_elem(&node_sockets, &cookie, &fresh, BPF_ANY);
	return 0;
}

/* `thread` sends what `event` will tell, the beginning of a turn, for `serves`; `first` is the number of its first byte. */
static __always_inline void node_asks(struct node_thread *thread, struct socket_event *event, __u64 first,
				      const struct node_request *serves)
{
	struct node_socket fresh = {}, *socket;
	__u64 cookie = event->socket;
	struct socket_event *link;
	bool is_seen;

	socket = bpf_map_lookup_elem(&node_sockets, &cookie);
	if (socket) {
		socket->floor = socket->last;
		socket->asked = event->flags & FLAG_TLS;
	} else {
		/* It was open before. */
		fresh.last = thread->counter;
		fresh.floor = thread->counter;
		fresh.asked = event->flags & FLAG_TLS;
		bpf_map_update_elem(&node_sockets, &cookie, &fresh, BPF_ANY);
	}
	if (!serves->socket)
		return;
	link = bpf_ringbuf_reserve(&socket_events, sizeof(*link), 0);
	if (!link) {
		count_loss(LOSS_RING_FULL_OTHER);
		return;
	}
	__builtin_memset(link, 0, sizeof(*link));
	link->kind = RECORD_LINK;
	link->flags = event->flags & FLAG_TLS;
	link->pid = event->pid;
	link->thread = event->thread;
	link->process_start = event->process_start;
	link->socket = cookie;
	link->time = event->time;
	link->offset = first;
	link->opposite_offset = serves->socket;
	link->queued = serves->began;
	is_seen = thread->reactions || (thread->waits && thread->waits < NODE_EARLY);
	link->turn = is_seen ? LINK_NODE : LINK_NODE_BLIND;
	bpf_ringbuf_submit(link, BPF_RB_NO_WAKEUP);
}

/* `event` will be told; `first` is the number of its first byte. */
SHARED int node_sends(struct socket_event *event, __u64 first)
{
	struct node_thread *thread = node_this();

	if (event && thread && node_look(thread) && event->turn & 1)
		node_asks(thread, event, first, &thread->now);
	return 0;
}

#endif
