/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * In the place of node.h, node_socket.h and node_tls.h where Node's requests are not linked: in the object with the table, and on processors
 * without LINKS_OF_RUNTIMES (arch.h).
 */
#ifndef SPANTAP_WITHOUT_NODE_H
#define SPANTAP_WITHOUT_NODE_H

static __always_inline bool node_is_any(void)
{
	return false;
}

static __always_inline int node_received_nothing(void)
{
	return 0;
}

static __always_inline int node_receives(struct socket_state *state, __u64 now, int begins_turn)
{
	return 0;
}

static __always_inline int node_connects(__u64 cookie)
{
	return 0;
}

static __always_inline int node_sends(struct socket_event *event, __u64 first)
{
	return 0;
}

#ifndef SPANTAP_TABLE
static __always_inline int node_is_refused(const struct tls_session *session)
{
	return 0;
}

static __always_inline int node_writes(const struct tls_session *session, struct socket_event *event, int begins_turn)
{
	return 0;
}

static __always_inline void node_forgets(const struct tls_session *session)
{
}
#endif

#endif
