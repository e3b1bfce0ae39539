/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Calls of Go's crypto/tls that end (tls_go.h: how they begin, and what is known of connections).
 *
 * In: return instructions, or the entry of what Read and Write defer, when their result stands on the stack. Out: struct
 * socket_event with FLAG_TLS.
 */
#ifndef SPANTAP_TLS_GO_ENDS_H
#define SPANTAP_TLS_GO_ENDS_H

/* The write that `call` is has ended: its turn, if it moved anything. */
static __always_inline bool tls_go_written(struct socket_state *state, struct tls_go_call *call, bool moved)
{
	bool noted = state->send_began == call->began;

	if (noted)
		state->send_began = 0;
	if (!moved) {
		state->written = state->sent;
		if (noted && state->send_begins_turn && state->turn == state->send_turn) {
			state->turn--;
			state->direction = state->turn ? RECORD_RECEIVE : 0;
		}
		return false;
	}
	if (!noted) {
		turn_to(state, RECORD_SEND);
		state->send_turn = state->turn;
	}
	return state->captured_sent == 0;
}

/* A goroutine is about to leave a call that has moved `result` bytes. */
static __always_inline int tls_go_moved_by(struct tls_go_call call, struct go_stack stack, __s64 result)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), now;
	struct task_struct *task = bpf_get_current_task_btf();
	struct control *control = the_control();
	struct tls_session session = {};
	struct socket_state *state;
	struct tls_call *room;
	struct data data = {};
	bool begins_turn;

	if (!control)
		return 0;
	if (result > call.length) {
		/* That was no result: nothing is taken from it. */
		count_loss(LOSS_TLS_CALL);
		result = 0;
	}
	if (!call.socket && result > 0)
		call.socket = tls_go_socket_of(task, call.session);
	state = tls_go_state_of(call.socket, call.session);
	if (result <= 0) {
		if (state && call.direction == RECORD_SEND)
			tls_go_written(state, &call, false);
		return 0;
	}
	if (!state) {
		session.address = call.session;
		session.pid = pid_tgid >> 32;
		state = tls_state_without_socket(&session);
	}
	room = bpf_task_storage_get(&tls_calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state || !room) {
		count_loss(LOSS_TLS_CALL);
		return 0;
	}
	if (state->mode == MODE_OPAQUE)
		return 0;
	now = bpf_ktime_get_ns();
	if (call.direction == RECORD_SEND) {
		begins_turn = tls_go_written(state, &call, true);
		/* When its last bytes were handed over. */
		if (state->send_last >= call.began && state->send_last < now)
			now = state->send_last;
		describe(&room->scratch.event, task, pid_tgid, state, RECORD_SEND, now);
		room->scratch.event.turn = state->send_turn;
		room->scratch.event.offset = state->sent;
		room->scratch.event.opposite_offset = call.opposite;
		state->sent += result;
		state->written = state->sent;
		if (now > call.began)
			room->scratch.event.began_before =
				now - call.began < 0xffffffff ? now - call.began : 0xffffffff;
	} else {
		begins_turn = turn_to(state, RECORD_RECEIVE);
		describe(&room->scratch.event, task, pid_tgid, state, RECORD_RECEIVE, now);
		room->scratch.event.offset = state->received;
		/*
		 * With a write whose call has not been told; its turn comes before this one. Whether its bytes have gone out does
		 * not tell: their answer may be here before the socket has told so. One look: that call may return just now.
		 */
		room->scratch.event.opposite_offset = state->written > state->sent ? state->written : state->sent;
		state->received += result;
		if (begins_turn && state->arrived && state->arrived < now)
			room->scratch.event.queued = now - state->arrived;
	}
	room->scratch.event.flags = FLAG_TLS;
	room->scratch.event.length = result;
	data.address = call.on_stack ? stack.high - call.buffer : call.buffer;
	data.segments = 1;
	capture_and_submit(NULL, state, &room->scratch, control, &data, begins_turn);
	return 0;
}

/* A goroutine is about to leave Read or Write, whose return address stands at `at`. */
static __always_inline int tls_go_ended(struct pt_regs *regs, __u64 at, __s64 result)
{
	struct tls_go_call *found, call;
	struct tls_go_key key = {};
	struct go_stack stack;

	if (!tls_go_key_of(regs, at, bpf_get_current_pid_tgid() >> 32, &key, &stack))
		return 0;
	found = bpf_map_lookup_elem(&tls_go_calls, &key);
	if (!found) {
		/* It began before its process was selected, or too many did. */
		if (result > 0)
			count_loss(LOSS_TLS_CALL);
		return 0;
	}
	call = *found;
	bpf_map_delete_elem(&tls_go_calls, &key);
	return tls_go_moved_by(call, stack, result);
}

/* The arguments of Read, where they stand above its return address (ABIInternal, "stack spill area"). */
struct go_arguments {
	__u64 session;
	__u64 buffer;
	__u64 length;
};

/*
 * A goroutine is about to leave a Read that was not seen to begin. It is one if what it unlocks is part of its connection; of
 * a panic the caller is another, and no such thing stands there.
 */
static __always_inline int tls_go_read_ended(struct pt_regs *regs, __u64 at, __s64 result)
{
	struct go_arguments arguments;
	struct tls_go_call call = {};
	struct tls_go_key key = {};
	struct go_stack stack;
	__u64 lock;

	if (result <= 0 || !tls_go_key_of(regs, at, 0, &key, &stack) ||
	    bpf_probe_read_user(&arguments, sizeof(arguments), (void *)(at + sizeof(at))) ||
	    bpf_probe_read_user(&lock, sizeof(lock), (void *)(GO_CLOSURE(regs) + sizeof(lock))) ||
	    lock <= arguments.session || lock - arguments.session > 4096)
		return 0;
	if (!tls_go_began()) {
		/* It was under way when reading began: its socket was not seen to speak TLS. */
		count_loss(LOSS_TLS_CALL);
		return 0;
	}
	call.session = arguments.session;
	call.buffer = arguments.buffer;
	call.length = arguments.length < 1u << 31 ? arguments.length : (1u << 31) - 1;
	call.direction = RECORD_RECEIVE;
	return tls_go_moved_by(call, stack, result);
}

/* A goroutine leaves Read or Write, at a return instruction. */
static __always_inline int tls_go_left(struct pt_regs *regs)
{
	if (!is_selected(bpf_get_current_pid_tgid() >> 32))
		return 0;
	return tls_go_ended(regs, STACK_POINTER(regs), (__s64)GO_RESULT(regs));
}

/*
 * A goroutine enters the function that Read or Write has deferred. Its frame pointer is that of its caller, the saved one of
 * which stands below the return address. A panic has other callers: there is no call in that place then.
 */
static __always_inline int tls_go_done_with(struct pt_regs *regs)
{
	__u64 at = FRAME_POINTER(regs) + sizeof(__u64);
	__u32 place = INSTRUCTION(regs) & 4095;
	__u64 *where;
	__s64 result = 0;

	if (!is_selected(bpf_get_current_pid_tgid() >> 32))
		return 0;
	where = bpf_map_lookup_elem(&tls_go_results, &place);
	if (!where || !*where || (*where & GO_RESULT_AT_JUMP && JUMPS_IF_NOT_ABOVE(regs)))
		return 0;
	if (bpf_probe_read_user(&result, sizeof(result), (void *)(at - (*where & GO_RESULT_BELOW))))
		return 0;
	if (*where & GO_RESULT_IS_ALL)
		return tls_go_read_ended(regs, at, result);
	return tls_go_ended(regs, at, result);
}

#endif
