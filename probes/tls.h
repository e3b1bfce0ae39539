/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The bodies of the probes on functions of TLS libraries with OpenSSL's interface, or with one of the same form (GnuTLS).
 *
 * In: entry and return of these functions, in any process that uses the library; unselected ones cost one look-up.
 * Out: struct socket_event with FLAG_TLS, as of the socket whose bytes the same thread moved between entry and return. A
 * call that found its bytes in the library belongs to the socket that the same session used before. If the library works in
 * memory, the session's ciphertext leads to its socket (tls_cipher.h). If nothing is known, the record has a cookie of its
 * own, and no connection is told for it unless its ciphertext is seen on one: nothing is guessed.
 */
#ifndef SPANTAP_TLS_H
#define SPANTAP_TLS_H

/* What a function does. */
enum tls_function {
	TLS_READ = 1,      /* int f(SSL *, void *buffer, int size): bytes, or <= 0 */
	TLS_READ_EX = 2,   /* int f(SSL *, void *buffer, size_t size, size_t *bytes): 1, or not */
	TLS_WRITE = 3,
	TLS_WRITE_EX = 4,
	TLS_OTHER = 5,     /* int f(SSL *, ..) that moves bytes of the socket, but no plaintext */
	TLS_FLUSH = 6,     /* the same; the functions above that it calls itself move what they took before */
};

/* No program maps anything below, as far as kernels are set up (mmap_min_addr). */
#define LOWEST_BUFFER 65536

/* A thread enters a function. */
static __always_inline int tls_entered(struct pt_regs *regs, enum tls_function function)
{
	struct task_struct *task;
	struct tls_call *call;

	if (!is_selected(bpf_get_current_pid_tgid() >> 32))
		return 0;
	task = bpf_get_current_task_btf();
	call = bpf_task_storage_get(&tls_calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!call) {
		count_loss(LOSS_TLS_CALL);
		return 0;
	}
	if (call->flushes && call->session == FUNCTION_ARGUMENT1(regs)) {
		call->within++;
		return 0;
	}
	call->flushes = function == TLS_FLUSH;
	call->within = 0;
	call->buffer = FUNCTION_ARGUMENT2(regs);
	call->length_at = function == TLS_READ_EX || function == TLS_WRITE_EX ? FUNCTION_ARGUMENT4(regs) : 0;
	call->direction = function >= TLS_OTHER ? 0 : function <= TLS_READ_EX ? RECORD_RECEIVE : RECORD_SEND;
	call->ambiguous = 0;
	call->socket = 0;
	call->sent = 0;
	call->queued = 0;
	call->began = bpf_ktime_get_ns();
	call->session = FUNCTION_ARGUMENT1(regs);
	return 0;
}

/* Bytes that the call has moved. */
static __always_inline __u32 tls_bytes(struct pt_regs *regs, struct tls_call *call)
{
	__s32 result = (__s32)FUNCTION_RESULT(regs);
	__u64 length = 0;

	if (result <= 0)
		return 0;
	if (!call->length_at)
		return result;
	if (bpf_probe_read_user(&length, sizeof(length), (void *)call->length_at)) {
		count_loss(LOSS_TLS_CALL);
		return 0;
	}
	return length < 1u << 31 ? length : 0;
}

/* The state of a socket's plaintext, made on first use. */
static __noinline struct socket_state *tls_state_of(__u64 cookie)
{
	struct socket_state fresh = {}, *state = bpf_map_lookup_elem(&tls_sockets, &cookie);

	if (state)
		return state;
	fresh.cookie = cookie;
	if (bpf_map_update_elem(&tls_sockets, &cookie, &fresh, BPF_NOEXIST)) {
		count_loss(LOSS_NO_SOCKET_STATE);
		return NULL;
	}
	return bpf_map_lookup_elem(&tls_sockets, &cookie);
}

/* The same for a session of which no socket is known. Not inlined: what else the caller calls needs its stack. */
static __noinline struct socket_state *tls_state_without_socket(struct tls_session *session)
{
	struct socket_state fresh = {}, *state = bpf_map_lookup_elem(&tls_untied, session);

	if (state)
		return state;
	tls_works_in_memory(bpf_get_current_task_btf());
	/* The kernel counts cookies up from 1: with the highest bit, none is this. */
	fresh.cookie = 1ULL << 63 | (bpf_ktime_get_ns() << 10 | (bpf_get_smp_processor_id() & 1023)) >> 1;
	bpf_map_update_elem(&tls_untied, session, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tls_untied, session);
}

/* The state of the plaintext of a call that has ended. */
static __always_inline struct socket_state *tls_state_of_call(struct tls_call *call, struct tls_session *session,
							      __s32 result)
{
	__u64 *tie = bpf_map_lookup_elem(&tls_ties, session), cookie;
	struct socket_state *state;

	if (tie && *tie & TIE_BY_CIPHER) {
		cookie = *tie & ~TIE_BY_CIPHER;
		state = bpf_map_lookup_elem(&tls_sockets, &cookie);
		/* Its socket is closed, and what it still writes goes nowhere; unless it has another one now. */
		if (state || !call->socket)
			return call->direction ? state : NULL;
	}
	if (call->socket && !call->ambiguous) {
		cookie = call->socket;
		if (!tie || *tie != cookie)
			bpf_map_update_elem(&tls_ties, session, &cookie, BPF_ANY);
		/* Made by a handshake as well: a request that came with its end may lie in the library by then (Apache). */
		state = tls_state_of(cookie);
		return call->direction ? state : NULL;
	}
	if (!call->direction) {
		/* A handshake that ended without a socket. */
		if (result == 1 && !call->socket && (!tie || *tie & TIE_WAITS))
			tls_works_in_memory(bpf_get_current_task_btf());
		return NULL;
	}
	if (tie && !(*tie & TIE_WAITS) && !call->ambiguous) {
		cookie = *tie;
		state = bpf_map_lookup_elem(&tls_sockets, &cookie);
		if (state)
			return state;
	}
	return tls_state_without_socket(session);
}

/* A thread leaves a function. */
static __always_inline int tls_returned(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), now;
	struct tls_session session = {};
	struct socket_state *state;
	struct task_struct *task;
	struct control *control;
	struct tls_call *call;
	struct data data = {};
	bool begins_turn;
	__u32 length;
	__u8 kind;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	task = bpf_get_current_task_btf();
	call = bpf_task_storage_get(&tls_calls, task, NULL, 0);
	control = the_control();
	if (!control)
		return 0;
	if (!call || !call->session) {
		/* It began before its process was selected, or another call began within it. */
		if ((__s32)FUNCTION_RESULT(regs) > 0)
			count_loss(LOSS_TLS_CALL);
		return 0;
	}
	if (call->within) {
		call->within--;
		return 0;
	}
	session.address = call->session;
	session.pid = pid_tgid >> 32;
	call->session = 0;
	call->flushes = 0;
	length = call->direction ? tls_bytes(regs, call) : 0;
	if (call->direction == RECORD_SEND && !length && node_is_any())
		node_is_refused(&session);
	if (call->direction && !length)
		call->direction = 0;
	state = tls_state_of_call(call, &session, (__s32)FUNCTION_RESULT(regs));
	if (!state || !length || state->mode == MODE_OPAQUE)
		return 0;
	kind = call->direction;
	now = call->socket ? call->moved : bpf_ktime_get_ns();
	begins_turn = turn_to(state, kind);
	describe(&call->scratch.event, task, pid_tgid, state, kind, now);
	call->scratch.event.flags = FLAG_TLS;
	call->scratch.event.length = length;
	if (kind == RECORD_SEND) {
		call->scratch.event.offset = state->sent;
		call->scratch.event.opposite_offset = state->received;
		state->sent += length;
		if (now > call->began)
			call->scratch.event.began_before =
				now - call->began < 0xffffffff ? now - call->began : 0xffffffff;
	} else {
		call->scratch.event.offset = state->received;
		call->scratch.event.opposite_offset = state->sent;
		state->received += length;
		if (begins_turn)
			call->scratch.event.queued = call->queued;
	}
	if (node_is_any()) {
		if (kind == RECORD_SEND)
			node_writes(&session, &call->scratch.event, begins_turn);
		else
			node_receives(state, now, begins_turn);
	}
	data.address = call->buffer;
	/* No address of a buffer: none is given anew for a call that goes on, and SSL_sendfile has a descriptor there. */
	data.segments = call->buffer >= LOWEST_BUFFER;
	call->scratch.begins_turn = begins_turn;
	if (capture(state, &call->scratch, control, &data, false))
		return 0;
	if (begins_turn)
		python_turn(state, &call->scratch, session.pid, kind);
	note_record(state, &call->scratch, submit(NULL, state, &call->scratch, control, begins_turn), false);
	return 0;
}

/* A session ends, or begins anew: at the same address may be another one next. */
static __always_inline int tls_session_over(__u64 address)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tls_session session = {};
	struct socket_state *state;
	struct task_struct *task;
	struct control *control;
	struct tls_call *call;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	session.address = address;
	session.pid = pid_tgid >> 32;
	bpf_map_delete_elem(&tls_ties, &session);
	node_forgets(&session);
	state = bpf_map_lookup_elem(&tls_untied, &session);
	if (!state)
		return 0;
	task = bpf_get_current_task_btf();
	control = the_control();
	call = bpf_task_storage_get(&tls_calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (call && control && state->mode != MODE_OPAQUE) {
		describe(&call->scratch.event, task, pid_tgid, state, RECORD_CLOSED, bpf_ktime_get_ns());
		call->scratch.event.flags = FLAG_TLS;
		call->scratch.event.offset = state->received;
		call->scratch.event.opposite_offset = state->sent;
		note_record(state, &call->scratch, submit(NULL, state, &call->scratch, control, false), false);
	}
	bpf_map_delete_elem(&tls_untied, &session);
	return 0;
}

static __always_inline int tls_forgotten(struct pt_regs *regs)
{
	return tls_session_over(FUNCTION_ARGUMENT1(regs));
}

#endif
