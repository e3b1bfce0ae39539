/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * A send or receive has completed.
 *
 * In: a socket, the bytes that were moved, and what calls.h noted when the call began. Out: struct socket_event in the ring
 * buffer `socket_events`.
 */
#ifndef SPANTAP_TRANSFER_H
#define SPANTAP_TRANSFER_H

#ifdef SPANTAP_TABLE
#include "without_tls.h"
#include "without_node.h"

/* Its hooks see where io_uring's data lies when the transfer begins. */
static __always_inline void defer(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				  struct control *control)
{
}
#else
#include "tls_socket.h"
#include "tls_cipher.h"
#ifdef LINKS_OF_RUNTIMES
#include "node.h"
#include "node_socket.h"
#include "node_tls.h"
#else
#include "without_node.h"
#endif

/*
 * io_uring's requests carry the address of their data, and only the completion leads to the request: the record
 * waits for it. One that is still waiting when the next comes goes out without its data.
 */
static __always_inline void defer(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				  struct control *control)
{
	__u64 key = (__u64)sk + scratch->event.kind;
	struct socket_event *waiting = bpf_map_lookup_elem(&io_uring_pending, &key);

	if (state->announced != control->announce && announce(sk, state, scratch, control))
		state->announced = control->announce;
	if (waiting) {
		count_loss(LOSS_HEAD_UNREADABLE);
		waiting->flags |= FLAG_UNREADABLE;
		if (bpf_ringbuf_output(&socket_events, waiting, sizeof(*waiting), wake_flags(scratch, control, sizeof(*waiting))))
			count_loss(LOSS_RING_FULL_OTHER);
	}
	bpf_map_update_elem(&io_uring_pending, &key, &scratch->event, BPF_ANY);
}
#endif

/* No send takes so long but one that waits, ns. */
#define SEND_WAITED 10000000ULL

/* A receive has completed with `ret` bytes. */
static __always_inline int received(struct sock *sk, int ret, int flags)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 owner = SCRATCH_RECEIVE;
	struct socket_state *state;
	struct task_struct *task;
	struct scratch *scratch;
	struct control *control;
	struct tcp_sock *tp = NULL;
	struct data *data;
	bool tcp, begins_turn, noted, io_uring = false;
	__u64 now, offset;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	if (ret < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB) || !is_stream(sk, &tcp))
		return 0;
	control = the_control();
	scratch = bpf_map_lookup_elem(&scratches, &owner);
	if (!control || !scratch)
		return 0;
	data = &scratch->data;
	__builtin_memset(data, 0, sizeof(*data));
	if (ret == 0 && !(FIELD(sk, sk_shutdown) & RCV_SHUTDOWN))
		return 0;
	state = the_state(sk, tcp, RECORD_RECEIVE, ret);
	if (!state || state->mode == MODE_OPAQUE)
		return 0;
	noted = state->receive_thread == pid_tgid;
	if (noted) {
		data->address = state->receive_data;
		data->skip = state->receive_skip;
		data->segments = state->receive_segments;
		data->kernel_array = true;
		state->receive_thread = 0;
	}

	now = bpf_ktime_get_ns();
	task = current_task();
	offset = state->received;
	if (state->tcp) {
		tp = tcp_of(sk);
		if (!tp)
			return 0;
		if (ret) {
			/* What the sequence numbers moved beyond `ret` went past us: splice, zero copy, a skipped run. */
			__u32 moved = FIELD(tp, copied_seq) - state->received_seq;
			moved -= fin_was_read(sk, tp);
			if (moved > ret && moved < 1u << 31)
				offset += moved - ret;
		}
		state->received_seq = FIELD(tp, copied_seq);
	}
	if (ret == 0) {
		if (node_is_any())
			node_received_nothing();
		if (state->mode == MODE_TLS) {
			struct socket_state *plain = tls_plain(state);

			if (!plain)
				return 0;
			describe(&scratch->event, task, pid_tgid, plain, RECORD_END_OF_STREAM, now);
			scratch->event.flags = FLAG_TLS;
			scratch->event.offset = plain->received;
			scratch->event.opposite_offset = plain->sent;
			note_record(plain, scratch, submit(sk, state, scratch, control, false), false);
			return 0;
		}
		describe(&scratch->event, task, pid_tgid, state, RECORD_END_OF_STREAM, now);
		scratch->event.offset = offset;
		scratch->event.opposite_offset = state->sent;
		note_record(state, scratch, submit(sk, state, scratch, control, false), false);
		return 0;
	}
	state->received = offset + ret;
	begins_turn = turn_to(state, RECORD_RECEIVE);
	describe_here(&scratch->event, task, pid_tgid, state, RECORD_RECEIVE, now);
	scratch->event.offset = offset;
	scratch->event.length = ret;
	scratch->event.opposite_offset = state->sent;
	if (!(flags & MSG_DONTWAIT || FIELD(task, flags) & PF_IO_WORKER))
		scratch->event.flags = FLAG_BLOCKING;
	if (tp) {
		/* Bytes that another thread is sending and has not told yet; our FIN counts as one, but is none. */
		if (!(FIELD(sk, sk_shutdown) & SEND_SHUTDOWN))
			scratch->event.opposite_offset += FIELD(tp, write_seq) - state->sent_seq;
		if (begins_turn)
			scratch->event.queued = queued_for(tp, now, control);
	}
	if (node_is_any())
		node_receives(state, now, begins_turn);
	if (state->mode == MODE_TLS) {
		tls_moved(sk, state, scratch, control, task);
		return 0;
	}
	if (flags & MSG_TRUNC)
		data->segments = 0;
	else if (!noted)
		io_uring = data_of_current(data, task);
	FORGET(scratch->begins_turn, begins_turn);
	FORGET(scratch->io_uring, io_uring);
	if (scratch->io_uring)
		defer(sk, state, scratch, control);
	else
		capture_and_submit_here(sk, state, scratch, control, data, RECORD_RECEIVE);
	if (state->mode == MODE_TLS)
		tls_begins(sk, state, scratch, control, task);
	return 0;
}

/* A send has completed with `ret` bytes. */
static __always_inline int sent(struct sock *sk, int ret)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 owner = SCRATCH_SEND;
	struct socket_state *state;
	struct task_struct *task;
	struct scratch *scratch;
	struct control *control;
	struct data *data;
	bool tcp, begins_turn, io_uring = false, seen_begun;
	__u64 began, time, offset;
	__u32 put_in = 0;

	if (!is_selected(pid_tgid >> 32) || !is_stream(sk, &tcp))
		return 0;
	control = the_control();
	scratch = bpf_map_lookup_elem(&scratches, &owner);
	if (!control || !scratch)
		return 0;
	data = &scratch->data;
	__builtin_memset(data, 0, sizeof(*data));
	state = the_state(sk, tcp, RECORD_SEND, ret > 0 ? ret : 0);
	if (!state || state->mode == MODE_OPAQUE)
		return 0;
	/* Another thread's send on this socket may be under way as well. */
	began = state->send_thread == pid_tgid ? state->send_began : 0;
	if (began)
		state->send_began = 0;
	if (ret <= 0) {
		forget_propagated(sk);
		/* Nothing was moved (the peer has gone, the buffer is full): there is no such turn, and none is missed. */
		if (began && state->send_begins_turn && state->turn == state->send_turn) {
			state->turn--;
			state->direction = state->turn ? RECORD_RECEIVE : 0;
		}
		return 0;
	}

	task = current_task();
	offset = state->sent;
	seen_begun = began != 0;
	if (began) {
		/* Began its turn if no other send of this turn was told before. */
		time = state->send_last;
		if (state->send_whole) {
			/* One that took so long has waited for room, and its last byte with it. */
			__u64 now = bpf_ktime_get_ns();

			if (now - time > SEND_WAITED)
				time = now;
		}
		begins_turn = state->captured_sent == 0;
		data->address = state->send_data;
		data->skip = state->send_skip;
		data->segments = state->send_segments;
		data->kernel_array = true;
	} else {
		time = bpf_ktime_get_ns();
		began = time;
		begins_turn = turn_to(state, RECORD_SEND);
		state->send_turn = state->turn;
	}
	if (!data->segments) {
		/* Not seen to begin; or TCP was given pages: by sendfile, or where sockmap has copied the data into them. */
		data->kernel_array = false;
		data->skip = 0;
		io_uring = data_of_current(data, task) && !seen_begun;
	}
	FORGET(scratch->begins_turn, begins_turn);
	FORGET(scratch->io_uring, io_uring);
	describe_here(&scratch->event, task, pid_tgid, state, RECORD_SEND, time);
	scratch->event.turn = state->send_turn;
	scratch->event.opposite_offset = state->received;
	if (state->tcp) {
		struct tcp_sock *tp = tcp_of(sk);
		__u32 moved;

		if (!tp)
			return 0;
		moved = FIELD(tp, write_seq) - state->sent_seq;
		/* A socket that is seen for the first time was taken to have begun with the program's bytes. */
		if (moved > ret || !(state->sent | state->received))
			put_in = propagated_bytes(sk, FIELD(tp, write_seq) - ret);
		if (put_in)
			scratch->event.flags |= FLAG_PROPAGATED;
		if (moved > ret + put_in && moved < 1u << 31)
			offset += moved - ret - put_in;
		state->sent_seq = FIELD(tp, write_seq);
		moved = FIELD(tp, copied_seq) - state->received_seq;
		if (moved < 1u << 31)
			scratch->event.opposite_offset += moved;
	}
	state->sent = offset + ret + put_in;
	scratch->event.offset = offset;
	scratch->event.length = ret;
	if (time > began)
		scratch->event.began_before = time - began < 0xffffffff ? time - began : 0xffffffff;
	if (state->mode == MODE_TLS) {
		tls_cipher_sent(sk, state, scratch, control, task, data);
		tls_moved(sk, state, scratch, control, task);
		return 0;
	}
	if (scratch->begins_turn && node_is_any())
		node_sends(&scratch->event, state->sent_seq - (__u32)(ret + put_in));
	if (scratch->io_uring)
		defer(sk, state, scratch, control);
	else
		capture_and_submit_here(sk, state, scratch, control, data, RECORD_SEND);
	if (state->mode == MODE_TLS) {
		tls_cipher_begins(sk, state, scratch, control);
		tls_begins(sk, state, scratch, control, task);
	}
	return 0;
}

#endif
