/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sizes and offsets as the compiler of the kernel side laid them out, in a section of the object that a test of the
 * agent reads and compares with the Rust types. The order is that of the test.
 */
#ifndef SPANTAP_LAYOUT_H
#define SPANTAP_LAYOUT_H

const __u32 record_layout[] __attribute__((section("layout"), used)) = {
	sizeof(struct socket_event),
	offsetof(struct socket_event, kind),
	offsetof(struct socket_event, flags),
	offsetof(struct socket_event, head_length),
	offsetof(struct socket_event, pid),
	offsetof(struct socket_event, process_start),
	offsetof(struct socket_event, socket),
	offsetof(struct socket_event, time),
	offsetof(struct socket_event, offset),
	offsetof(struct socket_event, opposite_offset),
	offsetof(struct socket_event, length),
	offsetof(struct socket_event, thread),
	offsetof(struct socket_event, turn),
	offsetof(struct socket_event, began_before),
	offsetof(struct socket_event, queued),
	offsetof(struct socket_event, tail),
	offsetof(struct socket_event, tail_length),
	sizeof(struct connection_event),
	offsetof(struct connection_event, kind),
	offsetof(struct connection_event, family),
	offsetof(struct connection_event, path_length),
	offsetof(struct connection_event, network_namespace),
	offsetof(struct connection_event, socket),
	offsetof(struct connection_event, local_address),
	offsetof(struct connection_event, peer_address),
	offsetof(struct connection_event, local_port),
	offsetof(struct connection_event, peer_port),
	offsetof(struct connection_event, received_base),
	offsetof(struct connection_event, sent_base),
	offsetof(struct connection_event, peer_socket),
	offsetof(struct connection_event, path),
	sizeof(struct process_event),
	offsetof(struct process_event, kind),
	offsetof(struct process_event, pid),
	offsetof(struct process_event, start),
	offsetof(struct process_event, parent),
	offsetof(struct process_event, port),
	offsetof(struct process_event, filename_length),
	offsetof(struct process_event, arguments_length),
	offsetof(struct process_event, filename),
	offsetof(struct process_event, arguments),
	sizeof(struct control),
	offsetof(struct control, announce),
	offsetof(struct control, head_bytes),
	offsetof(struct control, tick),
	offsetof(struct control, provisional_exec),
	offsetof(struct control, wake_bytes),
	offsetof(struct control, ask_bytes),
	offsetof(struct control, tls),
	HEAD_MAX,
	LOSS_MAX,
	PID_WORDS,
};

#endif
