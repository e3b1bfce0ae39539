/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Requests of Node over TLS, whose library works in memory.
 *
 * In: plaintext that a thread of Node received or wants to send, at the end of the library's call. Out: as of a socket (node_socket.h).
 *
 * What the program writes before the handshake is over the library refuses, and Node gives it to it again when it is, from nowhere:
 * so for whom it was written is noted when it is refused.
 */
#ifndef SPANTAP_NODE_TLS_H
#define SPANTAP_NODE_TLS_H

/* Writes that were refused. LRU: one whose entry was pushed out is sent for nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tls_session);
	__type(value, struct node_request);
} node_refused SEC(".maps");

/* The library took nothing. */
SHARED int node_is_refused(const struct tls_session *session)
{
	struct node_thread *thread = node_this();
	struct node_request none = {};

	if (session && thread)
		bpf_map_update_elem(&node_refused, session, node_look(thread) ? &thread->now : &none, BPF_NOEXIST);
	return 0;
}

/* It took what `event` will tell. */
SHARED int node_writes(const struct tls_session *session, struct socket_event *event, int begins_turn)
{
	struct node_thread *thread = node_this();
	struct node_request *refused;

	if (!session || !event || !thread || !node_look(thread))
		return 0;
	refused = bpf_map_lookup_elem(&node_refused, session);
	if (begins_turn && event->turn & 1)
		node_asks(thread, event, event->offset, refused ? refused : &thread->now);
	if (refused)
		bpf_map_delete_elem(&node_refused, session);
	return 0;
}

/* Another session may be where this one was. */
static __always_inline void node_forgets(const struct tls_session *session)
{
	if (node_is_any())
		bpf_map_delete_elem(&node_refused, session);
}

#endif
