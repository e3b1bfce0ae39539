/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The bodies of the probes on Go's crypto/tls, Go 1.17 and later: methods of *tls.Conn, and the goroutine, in registers.
 *
 * In: entry of Read and Write, after the check of the stack's size; entry of the function that they defer, when their result
 * stands on the stack, or each of their return instructions; entry of the handshakes and of Close. Never a uretprobe: Go
 * moves its stacks, and a return address that the kernel has put there with them. Out: struct socket_event with FLAG_TLS.
 *
 * A goroutine may be on another thread, and its stack in another place, when a call returns: the key of a call is the
 * goroutine's object and how deep in its stack the call began. The socket is the one whose descriptor the connection holds,
 * which is looked at while the connection is not closed: so it cannot be the descriptor of another by then.
 */
#ifndef SPANTAP_TLS_GO_H
#define SPANTAP_TLS_GO_H

/* runtime.g: its stack, from `low` up to `high`. First field of all versions. */
struct go_stack {
	__u64 low;
	__u64 high;
};

/* An interface: what a net.Conn is. First field of tls.Conn in all versions. */
struct go_interface {
	__u64 table;
	__u64 data;
};

/* net.netFD, Go 1.17 to 1.26, which begins with internal/poll.FD; first field of net.TCPConn and net.UnixConn. */
struct go_descriptor {
	__u64 state;             /* of its mutex; bit 0: closed */
	__u64 waiting;
	__u64 number;
	__u64 others[4];
	__u64 family;
	__u64 type;
};
#define GO_CLOSED 1

/* A net.Conn may be a program's own type that begins with another net.Conn: so many are looked through. */
#define GO_WRAPPED 3

/* open(2): the type of an inode */
#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* Which call of which goroutine: `at` is where its return address stands. */
static __always_inline bool tls_go_key_of(struct pt_regs *regs, __u64 at, __u32 pid, struct tls_go_key *key,
					  struct go_stack *stack)
{
	key->goroutine = GO_GOROUTINE(regs);
	key->pid = pid;
	if (bpf_probe_read_user(stack, sizeof(*stack), (void *)key->goroutine))
		return false;
	if (at < stack->low || at >= stack->high || stack->high - at > 1ULL << 31)
		return false;
	key->depth = stack->high - at;
	return true;
}

/* The stream socket that a descriptor of this process is; NULL: it is none. */
static __always_inline struct sock *go_sock(struct task_struct *task, __u64 number)
{
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd;
	struct file *file = NULL;
	struct socket *socket;
	struct sock *sk;

	if (number >= table->max_fds || bpf_probe_read_kernel(&file, sizeof(file), files + number) || !file)
		return NULL;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	return sk && BPF_CORE_READ(sk, sk_type) == SOCK_STREAM ? sk : NULL;
}

/*
 * The socket under a net.Conn that stands at this address, such as a *tls.Conn begins with, and its cookie; NULL: it is not known, or no
 * hook has seen it. What is read proves itself, or is not taken. `bare`, if it is not NULL: it is a connection of package net itself, which no
 * other one stands before: what goes over it is what its owner says.
 */
static __always_inline struct sock *go_sock_of(struct task_struct *task, __u64 address, __u64 *cookie, bool *bare)
{
	struct go_descriptor descriptor;
	struct go_interface inner;
	__u64 place, state;
	struct sock *sk;

	for (int wrapped = 0; wrapped < GO_WRAPPED; wrapped++) {
		if (bpf_probe_read_user(&inner, sizeof(inner), (void *)address) ||
		    bpf_probe_read_user(&place, sizeof(place), (void *)inner.data))
			return NULL;
		if (!bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)place) &&
		    (descriptor.family == AF_INET || descriptor.family == AF_INET6 || descriptor.family == AF_UNIX) &&
		    descriptor.type == SOCK_STREAM && descriptor.number < 1u << 31) {
			sk = go_sock(task, descriptor.number);
			*cookie = sk ? BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) : 0;
			if (bpf_probe_read_user(&state, sizeof(state), (void *)place) || state & GO_CLOSED)
				return NULL;
			if (bare)
				*bare = wrapped == 0;
			return *cookie ? sk : NULL;
		}
		address = inner.data;
	}
	return NULL;
}

/* Cookie of the socket under a *tls.Conn; 0: not known. */
static __always_inline __u64 tls_go_socket_of(struct task_struct *task, __u64 session)
{
	__u64 cookie = 0;

	return go_sock_of(task, session, &cookie, NULL) ? cookie : 0;
}

/* The state of the plaintext of a connection, if its socket is known and speaks TLS, and nobody else's. */
static __always_inline struct socket_state *tls_go_state_of(__u64 cookie, __u64 session)
{
	struct socket_state *state = cookie ? bpf_map_lookup_elem(&tls_sockets, &cookie) : NULL;

	if (!state)
		return NULL;
	if (!state->session)
		state->session = session;
	/* TLS within TLS: the plaintext of the outer one is not that of the socket. */
	return state->session == session ? state : NULL;
}

/* From now on the sockets of this process that speak TLS have a state for their plaintext. Returns whether they had before. */
static __always_inline bool tls_go_began(void)
{
	struct tls_process fresh = { .go = 1 }, *process;
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	process = bpf_map_lookup_elem(&tls_processes, &pid);
	if (!process)
		bpf_map_update_elem(&tls_processes, &pid, &fresh, BPF_NOEXIST);
	else if (process->go)
		return true;
	else
		process->go = 1;
	return false;
}

static __always_inline int tls_go_begins(void)
{
	if (is_selected(bpf_get_current_pid_tgid() >> 32))
		tls_go_began();
	return 0;
}

/* A goroutine enters Read or Write. */
static __always_inline int tls_go_entered(struct pt_regs *regs, __u8 direction)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct socket_state *state;
	struct tls_go_call call = {};
	struct tls_go_key key = {};
	struct go_stack stack;

	if (!is_selected(pid))
		return 0;
	tls_go_began();
	if (!tls_go_key_of(regs, STACK_POINTER(regs), pid, &key, &stack)) {
		count_loss(LOSS_TLS_CALL);
		return 0;
	}
	call.session = GO_ARGUMENT1(regs);
	call.buffer = GO_ARGUMENT2(regs);
	call.length = GO_ARGUMENT3(regs) < 1u << 31 ? GO_ARGUMENT3(regs) : (1u << 31) - 1;
	call.began = bpf_ktime_get_ns();
	call.direction = direction;
	if (call.buffer >= stack.low && call.buffer < stack.high) {
		call.buffer = stack.high - call.buffer;
		call.on_stack = 1;
	}
	call.socket = tls_go_socket_of(bpf_get_current_task_btf(), call.session);
	state = tls_go_state_of(call.socket, call.session);
	if (state) {
		call.opposite = direction == RECORD_SEND ? state->received : state->sent;
		/* What another goroutine reads meanwhile may be the answer. Two writes at once wait for each other. */
		if (direction == RECORD_SEND && !state->send_began) {
			state->send_began = call.began;
			state->send_begins_turn = turn_to(state, RECORD_SEND);
			state->send_turn = state->turn;
			state->written = state->sent + call.length;
		}
	}
	if (bpf_map_update_elem(&tls_go_calls, &key, &call, BPF_ANY))
		count_loss(LOSS_TLS_CALL);
	return 0;
}

#include "tls_go_ends.h"

#endif
