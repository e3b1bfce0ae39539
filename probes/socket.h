/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The bodies of the socket hooks, apart from how they are attached.
 *
 * In: a socket, the result of a send or receive, and where its data lies.
 * Out: struct socket_event and struct connection_event in the ring buffer `socket_events`.
 */
#ifndef SPANTAP_SOCKET_H
#define SPANTAP_SOCKET_H

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_DONTWAIT 0x40
#define MSG_ERRQUEUE 0x2000
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2

/* Captured of each call, however much of its turn has been captured before: where a message begins, and chunk sizes. */
#define GLANCE_BYTES 16

/* Turns in a row that do not begin like HTTP, after which a socket is given up. */
#define STRANGE_TURNS_FIRST 6    /* on a socket that never spoke HTTP */
#define STRANGE_TURNS_LATER 24   /* after HTTP: an upgrade, a tunnel */
#define STRANGE_TURNS_HTTP2 24   /* from its preface on: telemetry that is exported by gRPC shows in the first calls, with their ends */

static __always_inline struct control *the_control(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline void count_losses(__u32 which, __u32 number)
{
	__u64 *count = bpf_map_lookup_elem(&losses, &which);
	if (count)
		__sync_fetch_and_add(count, number);
}

static __always_inline void count_loss(__u32 which)
{
	count_losses(which, 1);
}

static __always_inline bool is_selected(__u32 pid)
{
	__u32 word = pid >> 6;
	__u64 *bits = bpf_map_lookup_elem(&selected, &word);
	return bits && (*bits >> (pid & 63)) & 1;
}

static __always_inline bool is_stream(struct sock *sk, bool *tcp)
{
	__u16 family = FIELD(sk, __sk_common.skc_family);

	*tcp = family != AF_UNIX;
	if (family == AF_UNIX)
		return FIELD(sk, sk_type) == SOCK_STREAM;
	return (family == AF_INET || family == AF_INET6) && FIELD(sk, sk_protocol) == IPPROTO_TCP;
}

/* 1 if the peer's FIN has been read, together with the last data: it counts as one in copied_seq, but is no byte. */
static __always_inline __u32 fin_was_read(struct sock *sk, struct tcp_sock *tp)
{
	return FIELD(sk, sk_shutdown) & RCV_SHUTDOWN && FIELD(tp, copied_seq) == FIELD(tp, rcv_nxt);
}

#include "hand_over.h"

/* State of a socket, made on first use: `already` bytes of this direction have just been moved. */
static __always_inline struct socket_state *the_state(struct sock *sk, bool tcp, __u8 direction, __u32 already)
{
	struct socket_state *state = make_state(sk);

	if (!state) {
		count_loss(LOSS_NO_SOCKET_STATE);
		return NULL;
	}
	if (!state->cookie) {
		state->cookie = cookie_of(sk);
		state->tcp = tcp;
		if (tcp) {
			struct tcp_sock *tp = tcp_of(sk);
			if (!tp)
				return NULL;
			state->received_seq = FIELD(tp, copied_seq);
			state->sent_seq = FIELD(tp, write_seq);
			if (direction == RECORD_RECEIVE)
				state->received_seq -= already + fin_was_read(sk, tp);
			else
				state->sent_seq -= already;
		}
	}
	return state;
}

/* Notes the direction of a transfer that begins now. Returns true if it begins a turn. */
static __always_inline bool turn_to(struct socket_state *state, __u8 direction)
{
	if (state->direction == direction)
		return false;
	state->direction = direction;
	state->turn++;
	if (direction == RECORD_SEND)
		state->captured_sent = 0;
	else
		state->captured_received = 0;
	return true;
}

#define FOUR(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

/*
 * Whether bytes begin like an HTTP/1 message. Only decides whether a socket goes on being watched: a client's
 * unusual method is covered by its server's "HTTP/1.x".
 */
static __always_inline bool begins_like_http(const __u8 *head, __u32 length)
{
	__u32 first;

	if (length < 4)
		return false;
	first = *(const __u32 *)head;
	return first == FOUR('H', 'T', 'T', 'P') || first == FOUR('G', 'E', 'T', ' ') ||
	       first == FOUR('P', 'O', 'S', 'T') || first == FOUR('P', 'U', 'T', ' ') ||
	       first == FOUR('H', 'E', 'A', 'D') || first == FOUR('D', 'E', 'L', 'E') ||
	       first == FOUR('P', 'A', 'T', 'C') || first == FOUR('O', 'P', 'T', 'I') ||
	       first == FOUR('C', 'O', 'N', 'N') || first == FOUR('T', 'R', 'A', 'C') ||
	       first == FOUR('Q', 'U', 'E', 'R');
}

/* Decides at the start of a turn whether the socket speaks HTTP; marks the record that is its last. */
static __always_inline void judge(struct socket_state *state, struct scratch *scratch)
{
	if (begins_like_http(scratch->head, scratch->event.head_length)) {
		state->mode = MODE_HTTP;
		state->strange_turns = 0;
		return;
	}
	if (scratch->event.head_length >= 4 && *(const __u32 *)scratch->head == FOUR('P', 'R', 'I', ' '))
		state->strange_turns = STRANGE_TURNS_FIRST - STRANGE_TURNS_HTTP2;
	if (++state->strange_turns >= (state->mode == MODE_HTTP ? STRANGE_TURNS_LATER : STRANGE_TURNS_FIRST)) {
		state->mode = MODE_OPAQUE;
		scratch->event.flags |= FLAG_OPAQUE;
	}
}

/*
 * How long the data that was just read had lain in the kernel, at least. tcp_mstamp is the time of the last packet
 * in either direction (microseconds, CLOCK_MONOTONIC), lrcvtime the jiffy of the last packet with data: both are
 * never before the arrival, so each gives a lower bound, the second one coarse but not moved by our own ACKs.
 */
static __always_inline __u64 queued_for(struct tcp_sock *tp, __u64 now, struct control *control)
{
	__u64 stamp = FIELD(tp, tcp_mstamp) * 1000;
	__u64 queued = stamp && now > stamp ? now - stamp : 0;
	__u32 jiffies = (__u32)bpf_jiffies64() - FIELD(tp, inet_conn.icsk_ack.lrcvtime);

	/* A wait of more than an hour is a stale stamp. */
	if (control->tick && jiffies >= 2 && jiffies < 1000 * 3600) {
		__u64 coarse = (__u64)(jiffies - 1) * control->tick;
		if (coarse > queued)
			queued = coarse;
	}
	return queued;
}

/* Begins a record of the current thread. */
static __always_inline void describe_here(struct socket_event *event, struct task_struct *task, __u64 pid_tgid,
					  struct socket_state *state, __u8 kind, __u64 time)
{
	COMPARE_HERE(event);
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->pid = pid_tgid >> 32;
	event->thread = (__u32)pid_tgid;
	event->process_start = FIELD2(task, group_leader, start_boottime);
	event->socket = state->cookie;
	event->time = time;
	event->turn = state->turn;
}

SHARED int describe_event(struct socket_event *event, struct socket_state *state, __u64 pid_tgid, __u32 kind, __u64 time)
{
	if (event && state)
		describe_here(event, current_task(), pid_tgid, state, kind, time);
	return 0;
}

static __always_inline void describe(struct socket_event *event, struct task_struct *task, __u64 pid_tgid,
				     struct socket_state *state, __u8 kind, __u64 time)
{
	describe_event(event, state, pid_tgid, kind, time);
}

/* Where the direction stood that has ended, and the other one. */
static __always_inline void set_ended(struct scratch *scratch, const struct socket_state *state)
{
	if (scratch->event.kind == RECORD_LOCAL_CLOSED) {
		scratch->event.offset = state->sent;
		scratch->event.opposite_offset = state->received;
	} else {
		scratch->event.offset = state->received;
		scratch->event.opposite_offset = state->sent;
	}
}

/* A TLS record: change_cipher_spec to application_data, version 3.0 to 3.4, its length (RFC 8446 section 5.1). */
static __always_inline bool begins_like_tls(const __u8 *head, __u32 length)
{
	return length >= 5 && head[0] >= 0x14 && head[0] <= 0x17 && head[1] == 3 && head[2] <= 4 && head[3] <= 0x41;
}

/*
 * Copies what is due of the call's data and judges the socket at the start of a turn, which scratch->begins_turn says. Returns 1 if
 * the socket turns out to speak TLS: then the record is not for anybody. `is_socket`: its bytes are a socket's, not plaintext of TLS.
 */
static __always_inline int capture_here(struct socket_state *state, struct scratch *scratch, struct control *control,
					const struct data *data, __u8 kind, bool is_socket)
{
	struct socket_event *event = &scratch->event;
	__u32 *captured = kind == RECORD_SEND ? &state->captured_sent : &state->captured_received;
	__u32 budget = control->head_bytes > *captured ? control->head_bytes - *captured : 0;
	__u32 want;

	if (!data->segments) {
		event->flags |= FLAG_UNREADABLE;
		return 0;
	}
	if (budget < GLANCE_BYTES)
		budget = GLANCE_BYTES;
	want = event->length < budget ? event->length : budget;
	if (copy_data_here(scratch, data, event->length, want)) {
		event->flags |= FLAG_UNREADABLE;
		count_loss(LOSS_HEAD_UNREADABLE);
		return 0;
	}
	COMPARE_HERE(scratch);
	want = scratch->walk.want;
	if (scratch->begins_turn) {
		if (is_socket && control->tls && state->mode == MODE_UNDECIDED &&
		    begins_like_tls(scratch->head, event->head_length)) {
			state->mode = MODE_TLS;
			return 1;
		}
		*captured = event->head_length;
		judge(state, scratch);
	} else if (want < event->length && want < control->head_bytes &&
		   begins_like_http(scratch->head, event->head_length)) {
		/* Another message of the same turn: it is due its own head. */
		want = event->length < control->head_bytes ? event->length : control->head_bytes;
		event->tail_length = 0;
		if (!copy_data(scratch, data, event->length, want))
			*captured = event->head_length;
	} else {
		*captured += event->head_length;
	}
	return 0;
}

SHARED int capture(struct socket_state *state, struct scratch *scratch, struct control *control, const struct data *data,
		   int is_socket)
{
	return state && scratch && control && data ? capture_here(state, scratch, control, data, scratch->event.kind, is_socket) : 0;
}

#if defined(SPANTAP_TABLE) || !defined(LINKS_OF_RUNTIMES)
#define python_turn(state, scratch, pid, kind)
#else
#include "python_link.h"
#endif

/* The same, and hands the record over. `sk` is NULL for plaintext. */
static __always_inline void capture_and_submit(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					       struct control *control, const struct data *data, bool begins_turn)
{
	scratch->begins_turn = begins_turn;
	if (!capture(state, scratch, control, data, sk != NULL))
		note_record(state, scratch, submit(sk, state, scratch, control, begins_turn), false);
}

/* The same of a socket, on the usual way; scratch->begins_turn says whether it begins a turn. */
static __always_inline void capture_and_submit_here(struct sock *sk, struct socket_state *state, struct scratch *scratch,
						    struct control *control, const struct data *data, __u8 kind)
{
	bool told;

	COMPARE_HERE(scratch);
	if (capture_here(state, scratch, control, data, kind, true))
		return;
	COMPARE_HERE(scratch);
	if (scratch->begins_turn)
		python_turn(state, scratch, scratch->event.pid, kind);
	if (kind == RECORD_SEND && scratch->event.flags & FLAG_PROPAGATED)
		append_propagated(sk, scratch);
	announce_if_due(sk, state, scratch, control);
	COMPARE_HERE(scratch);
	told = hand_over_here(scratch, control);
	if (told && state->told && state->told <= scratch->event.turn)
		state->told = scratch->event.turn;
	else
		note_record(state, scratch, told, true);
}

#endif
