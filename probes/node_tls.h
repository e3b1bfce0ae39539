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
	struct node_request serves = {};
	struct tls_session key;

	if (!session || !thread)
		return 0;
	/* On the stack: before Linux 6.2 the verifier takes no argument of a function as a key or a value. */
	key = *session;
	if (node_look(thread))
		serves = thread->now;
	bpf_map_update_elem(&node_refused, &key, &serves, BPF_NOEXIST);
	return 0;
}

/* It took what `event` will tell. */
SHARED int node_writes(const struct tls_session *session, struct socket_event *event, int begins_turn)
{
	struct node_thread *thread = node_this();
	struct node_request *refused;
	struct tls_session key;

	if (!session || !event || !thread || !node_look(thread))
		return 0;
	key = *session;
	refused = bpf_map_lookup_elem(&node_refused, &key);
	if (begins_turn && event->turn & 1)
		node_asks(thread, event, event->offset, refused ? refused : &thread->now);
	if (refused)
		bpf_map_delete_elem(&node_refused, &key);
	return 0;
}

/* Another session may be where this one was. */
static __always_inline void node_forgets(const struct tls_session *session)
{
	if (node_is_any())
		bpf_map_delete_elem(&node_refused, session);
}

#endif
