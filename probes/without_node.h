/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * In the place of node.h and node_socket.h where Node's requests are not linked: in the object with the table, and on processors
 * without LINKS_OF_RUNTIMES (arch.h).
 */
#ifndef SPANTAP_WITHOUT_NODE_H
#define SPANTAP_WITHOUT_NODE_H

static __always_inline void node_received_nothing(void)
{
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

#endif
