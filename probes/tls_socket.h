/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sockets that speak TLS. Their bytes are not told: what was in them is, by the calls of the TLS library (tls.h).
 *
 * In: transfers and changes of state of such a socket, in the thread that made the call. Out: which socket the call of the
 * TLS library belongs to that this thread is in; changes of state, with the offsets of the plaintext; a record with
 * FLAG_ENCRYPTED for a socket to which no call belongs.
 */
#ifndef SPANTAP_TLS_SOCKET_H
#define SPANTAP_TLS_SOCKET_H

/* Turns without a call after which a socket is told as encrypted: more than a handshake has. */
#define TLS_TURNS_UNTIED 6
/* The same where the connection ends: a handshake that failed has lost nothing. */
#define TLS_TURNS_AT_END 4
/* The same in a process whose sessions are tied by their ciphertext: one that was open before takes some records. */
#define TLS_TURNS_IN_MEMORY 64
/* A process is told to speak TLS once in so long, ns. */
#define TLS_TELL_AGAIN 1000000000ULL

/* The state of the plaintext of a socket; NULL if none was moved. */
static __always_inline struct socket_state *tls_plain(struct socket_state *state)
{
	__u64 cookie = state->tls_plain ? state->tls_plain : state->cookie;
	return state->tls_tied ? bpf_map_lookup_elem(&tls_sockets, &cookie) : NULL;
}

/* Whether the process has sessions that no call ties to a socket. */
static __always_inline bool tls_in_memory(__u32 pid)
{
	struct tls_process *process = bpf_map_lookup_elem(&tls_processes, &pid);
	return process && process->untied;
}

/* Tells that nobody reads this socket. */
static __always_inline void tls_unread(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				       struct control *control)
{
	__u32 pid = state->tls_pid;

	state->tls_told = 1;
	scratch->event.pad = pid;
	scratch->event.head_length = 0;
	scratch->event.tail_length = 0;
	scratch->event.flags = FLAG_ENCRYPTED | FLAG_UNREADABLE | (tls_in_memory(pid) ? FLAG_UNTIED : 0);
	submit(sk, state, scratch, control, false);
}

#include "tls_go_socket.h"

/* The agent looks for the TLS library of a process when it hears that it speaks TLS. */
static __always_inline void tls_tell_process(struct task_struct *task)
{
	__u32 pid = task->tgid;
	struct tls_process fresh = { .told = bpf_ktime_get_ns() }, *known = bpf_map_lookup_elem(&tls_processes, &pid);
	struct process_event *event;

	if (known) {
		if (fresh.told - known->told < TLS_TELL_AGAIN)
			return;
		known->told = fresh.told;
	} else {
		bpf_map_update_elem(&tls_processes, &pid, &fresh, BPF_ANY);
	}
	event = bpf_ringbuf_reserve(&process_events, sizeof(*event), 0);
	if (!event) {
		count_loss(LOSS_PROCESS_RING_FULL);
		return;
	}
	__builtin_memset(event, 0, offsetof(struct process_event, filename));
	event->kind = RECORD_TLS;
	event->pid = pid;
	event->start = task->group_leader->start_boottime;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
}

/*
 * Bytes of a socket were moved that speaks TLS; scratch->event describes them. If the thread is in a call of a TLS library,
 * that call is about this socket.
 */
static __always_inline void tls_moved(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				      struct control *control, struct task_struct *task)
{
	struct tls_call *call = bpf_task_storage_get(&tls_calls, task, NULL, 0);

	if (call && call->session) {
		bool receives = scratch->event.kind == RECORD_RECEIVE;

		/* A read that makes the handshake first sends in it: what it received before that was no plaintext. */
		if (!call->socket || (call->sent && receives && call->direction == RECORD_RECEIVE)) {
			call->moved = scratch->event.time;
			call->queued = scratch->event.queued;
		}
		call->sent = !receives;
		if (!call->socket)
			call->socket = state->cookie;
		else if (call->socket != state->cookie)
			call->ambiguous = 1;
		/* Told before, it was forgotten. */
		if (!state->tls_tied || state->announced != control->announce)
			state->announced = announce(sk, state, scratch, control) ? control->announce : control->announce - 1;
		state->tls_tied = TIED_BY_CALL;
		return;
	}
	if (tls_go_moved(sk, state, scratch, control))
		return;
	/* Tied by its ciphertext: told again to a forwarder that has forgotten it. */
	if (state->tls_plain && state->announced != control->announce && announce(sk, state, scratch, control))
		state->announced = control->announce;
	if (!state->tls_tied && !state->tls_told && state->turn >= TLS_TURNS_UNTIED &&
	    (state->turn >= TLS_TURNS_IN_MEMORY || !tls_in_memory(state->tls_pid)))
		tls_unread(sk, state, scratch, control);
}

/* The first bytes of a socket that was found to speak TLS have been moved. */
static __always_inline void tls_begins(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				       struct control *control, struct task_struct *task)
{
	state->tls_pid = task->tgid;
	tls_tell_process(task);
	tls_moved(sk, state, scratch, control, task);
}

/* scratch->event describes the change of state, but for its offsets. */
static __always_inline void tls_state_changed(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					      struct control *control)
{
	__u64 cookie = state->cookie;
	struct socket_state *plain;
	bool over;

	tls_go_tie(state);
	plain = tls_plain(state);
	over = scratch->event.kind == RECORD_CLOSED || scratch->event.kind == RECORD_RESET;
	if (plain) {
		cookie = plain->cookie;
		scratch->event.socket = cookie;
		scratch->event.flags = FLAG_TLS;
		scratch->event.turn = plain->turn;
		/*
		 * A write of Go under way is told when it has completed, and so is its turn (see state_changed); what another
		 * goroutine received meanwhile waits for it.
		 */
		if (plain->send_began && plain->send_begins_turn)
			scratch->event.turn = plain->send_turn - 1;
		set_ended(scratch, plain);
		note_record(plain, scratch, submit(sk, state, scratch, control, false), false);
	} else if (over && !state->tls_tied && !state->tls_told && state->turn >= TLS_TURNS_AT_END) {
		tls_unread(sk, state, scratch, control);
	}
	if (!over)
		return;
	bpf_map_delete_elem(&tls_sockets, &cookie);
	/* Of Go it is there before anything is tied. */
	cookie = state->cookie;
	bpf_map_delete_elem(&tls_sockets, &cookie);
}

#endif
