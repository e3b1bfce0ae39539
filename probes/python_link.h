/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Which request of a program of CPython's asyncio a request is made for.
 *
 * In: the head of a request is received or sent by a thread of such a program; contexts (contextvars.Context) are made, entered.
 * Out: struct socket_event of kind RECORD_LINK, before the first byte of the request that is sent.
 *
 * Whatever asyncio runs is run in a context. The one in which a request is received belongs to that request until the next one is
 * received in it; a new one, copy or not, belongs to what the context belongs to that was current when it was made; one that is called soon while
 * a receiving one is current belongs to what that does. That an object goes is not seen, which would cost one more stop for each: whoever
 * makes one at the same address begins its entry anew. Nothing is taken away when a request is answered: the forwarder knows when
 * that was, and takes no request that is not open.
 *
 * Fields lie where the agent says (struct linked_program). What is read proves itself: the thread's state names the thread, its
 * context is an object of the type PyContext_Type; or it is not taken.
 */
#ifndef SPANTAP_PYTHON_LINK_H
#define SPANTAP_PYTHON_LINK_H

/* PyThreadState.next and PyObject.ob_type, CPython 3.9 to 3.13 */
#define PYTHON_NEXT 8
#define PYTHON_TYPE 8

/* PyContext from PYTHON_TYPE on, likewise. */
struct python_context {
	__u64 type;
	__u64 before;
	__u64 values;
	__u64 references;
	__u32 entered;           /* something runs in it, as opposed to the one that a thread has when nothing does */
};

/*
 * Thread states that are looked through at a time: the newest come first, the main one is the last, but is found while it is
 * alone. The next look goes on where this one ended. The verifier looks at each.
 */
#define PYTHON_THREADS 12
/* The states are looked through from the first again after so long, ns. */
#define PYTHON_AGAIN 100000000

#define LINKED_PROGRAMS 1024
#define LINKED_TRIES 8
#define PYTHON_UVLOOP (1ULL << 32)

/* A program of CPython, or of tokio (tokio_link.h). Written by the agent (probe-agent/src/tls/python/table.rs). */
struct linked_program {
	__u64 pid;               /* and flags; 0: nobody's. The place of a program is that of its pid, or one of the next */
	__u64 main;              /* address of the pointer to the main interpreter */
	__u64 context_type;      /* address of PyContext_Type */
	__u16 threads;           /* offsets: in the interpreter its newest thread state; in that its thread, its context */
	__u16 thread;
	__u16 context;
	__u16 calls_with_state;  /* call_soon() of _asyncio has the context as its fifth argument, not its fourth */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LINKED_PROGRAMS);
	__type(key, __u32);
	__type(value, struct linked_program);
} linked_programs SEC(".maps");

/* One bit for the lower 16 bits of each pid: others need not be looked for above. 8 KiB. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} linked_gate SEC(".maps");

struct python_object {
	__u64 address;
	__u64 pid;
};

/* The request that something is done for. */
struct python_request {
	__u64 socket;            /* cookie of the connection that it came over; 0: nothing is known */
	__u64 received;          /* when, ns of CLOCK_MONOTONIC */
	__u64 here;              /* it was received in this very context */
};

/* LRU: of a context that was pushed out nothing is known. A request has 2 to 10 of them at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct python_object);
	__type(value, struct python_request);
} python_contexts SEC(".maps");

/* What a stream of uvloop will write was given to it for. From a write to the end of the loop's turn. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct python_object);
	__type(value, struct python_request);
} python_streams SEC(".maps");

struct python_thread {
	__u64 state;             /* address of its PyThreadState; 0: not known */
	__u64 looked;            /* when it was begun to look for that; 0: it was found, or nobody did */
	__u64 next;              /* address of the state that is to be looked at next; 0: there are no more */
	__u64 current;           /* address of the pointer to its current context, while its state is known */
	__u64 receiving;         /* address of the context in which it received last */
	struct python_request waits;  /* uvloop: received, and no context entered yet */
	struct python_request writes; /* uvloop: what it writes now is written for */
};

/* By thread and process. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct python_thread);
} python_threads SEC(".maps");

/* What an entry above begins with. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct python_thread);
} python_no_thread SEC(".maps");

static __always_inline bool linked_may_be(__u32 pid)
{
	__u32 word = pid >> 6 & 1023;
	__u64 *bits = bpf_map_lookup_elem(&linked_gate, &word);

	return bits && (*bits >> (pid & 63)) & 1;
}

static __always_inline struct linked_program *linked_program_of(__u32 pid)
{
	for (__u32 i = 0; i < LINKED_TRIES; i++) {
		__u32 place = (pid + i) % LINKED_PROGRAMS;
		struct linked_program *program = bpf_map_lookup_elem(&linked_programs, &place);

		if (program && (__u32)program->pid == pid)
			return program;
	}
	return NULL;
}

static __always_inline struct python_thread *python_thread_of(__u64 pid_tgid)
{
	struct python_thread *thread = bpf_map_lookup_elem(&python_threads, &pid_tgid), *fresh;
	__u32 zero = 0;

	if (thread)
		return thread;
	fresh = bpf_map_lookup_elem(&python_no_thread, &zero);
	if (fresh)
		bpf_map_update_elem(&python_threads, &pid_tgid, fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&python_threads, &pid_tgid);
}

/* What the program has there; 0 if it cannot be read, as the helper leaves it then. */
static __always_inline __u64 python_word(__u64 address)
{
	__u64 word;

	bpf_probe_read_user(&word, sizeof(word), (void *)address);
	return word;
}

/* Looks for the state of the thread with this address of its own (pthread_self): PyThreadState.thread_id. */
static __always_inline bool python_look(struct linked_program *program, struct python_thread *thread, __u64 self)
{
	__u64 now = bpf_ktime_get_ns(), state = thread->next, named = program->thread;

	thread->state = 0;
	if (now - thread->looked >= PYTHON_AGAIN) {
		thread->looked = now;
		state = python_word(python_word(program->main) + program->threads);
	}
	for (int i = 0; i < PYTHON_THREADS && state; i++) {
		if (python_word(state + named) == self) {
			thread->state = state;
			thread->current = state + program->context;
			thread->looked = 0;
			return true;
		}
		state = python_word(state + PYTHON_NEXT);
	}
	thread->next = state;
	return false;
}

/*
 * Address of the context that the current thread runs in; 0: none, or not known. The one that it has outside of all callbacks counts as
 * none: it was not made where that is seen, and a library is at work of which nobody knows what it does next.
 */
SHARED __u64 python_context(struct linked_program *program, struct python_thread *thread)
{
	__u64 self = THREAD_POINTER(bpf_get_current_task_btf()), context;
	struct python_context read;

	if (!self || !program || !thread)
		return 0;
	/* To read what is not mapped would be dear. */
	if ((!thread->state || python_word(thread->state + program->thread) != self) && !python_look(program, thread, self))
		return 0;
	context = python_word(thread->current);
	bpf_probe_read_user(&read, sizeof(read), (void *)(context + PYTHON_TYPE));
	return read.type == program->context_type && read.entered ? context : 0;
}

/* The request that the current context belongs to. */
static __always_inline struct python_request *python_serves(struct linked_program *program, struct python_thread *thread,
							    __u32 pid, struct python_object *current)
{
	struct python_request *found;

	current->address = python_context(program, thread);
	current->pid = pid;
	found = current->address ? bpf_map_lookup_elem(&python_contexts, current) : NULL;
	return found && found->socket ? found : NULL;
}

/* What this context belongs to from now on. Entries are written in their places, mostly: addresses come again and again. */
static __always_inline void python_belongs(struct python_object *context, const struct python_request *serves)
{
	struct python_request *found = bpf_map_lookup_elem(&python_contexts, context);

	if (found)
		*found = *serves;
	else if (serves->socket)
		bpf_map_update_elem(&python_contexts, context, serves, BPF_ANY);
}

/* Whether a request begins here: what begins a turn was judged just now (judge()). */
static __always_inline bool python_is_request(struct socket_state *state, struct scratch *scratch)
{
	return !(scratch->event.flags & FLAG_UNREADABLE) && state->mode == MODE_HTTP && !state->strange_turns &&
	       *(__u32 *)scratch->head != 0x50545448 /* HTTP */;
}

/* uvloop moves bytes of sockets outside of contexts, but plaintext of TLS inside. */
static __always_inline bool python_in_turn(struct linked_program *program, struct socket_event *event)
{
	return program->pid & PYTHON_UVLOOP && !(event->flags & FLAG_TLS);
}

#include "tokio_link.h"

/* The current thread of CPython, and its program; NULL: there is none, or tokio's task has been seen to in its place. */
static __always_inline struct python_thread *python_thread_here(struct socket_state *state, struct scratch *scratch,
								 struct linked_program **program)
{
	*program = linked_program_of(scratch->event.pid);
	if (!*program)
		return NULL;
	if ((*program)->pid & PROGRAM_OF_TOKIO) {
		tokio_turn(state, scratch, (*program)->main);
		return NULL;
	}
	return python_thread_of(bpf_get_current_pid_tgid());
}

/* What begins a turn of a socket was received: it stands in `scratch`, and was not told yet. */
SHARED int python_received(struct socket_state *state, struct scratch *scratch)
{
	struct python_object current = {};
	struct linked_program *program;
	struct python_thread *thread;
	struct socket_event *event;

	if (!state || !scratch)
		return 0;
	event = &scratch->event;
	thread = python_thread_here(state, scratch, &program);
	if (!thread)
		return 0;
	thread->waits.socket = 0;
	if (!python_is_request(state, scratch))
		return 0;
	thread->waits.socket = event->socket;
	thread->waits.received = event->time;
	thread->waits.here = 1;
	if (python_in_turn(program, event))
		return 0;
	current.address = python_context(program, thread);
	current.pid = event->pid;
	thread->receiving = current.address;
	if (current.address)
		python_belongs(&current, &thread->waits);
	thread->waits.socket = 0;
	return 0;
}

/* Tells what the request is made for whose head stands in `scratch`. */
static __always_inline void python_tell(struct socket_state *state, struct scratch *scratch, __u64 socket, __u64 received)
{
	struct socket_event *of = &scratch->event, *event;

	if (!(of->flags & FLAG_TLS) && !state->tcp)
		return;
	event = bpf_ringbuf_reserve(&socket_events, sizeof(*event), 0);
	if (!event) {
		count_loss(LOSS_RING_FULL_OTHER);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = RECORD_LINK;
	event->pid = of->pid;
	event->thread = of->thread;
	event->process_start = of->process_start;
	event->socket = of->socket;
	event->time = of->time;
	event->opposite_offset = socket;
	event->queued = received;
	event->turn = LINK_PYTHON;
	event->flags = of->flags & FLAG_TLS;
	/* The state stands behind the request by now. */
	event->offset = event->flags ? of->offset : state->sent_seq - (__u32)(state->sent - of->offset);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* What begins a turn of a socket is sent: it stands in `scratch`, and was not told yet. */
SHARED int python_sent(struct socket_state *state, struct scratch *scratch)
{
	struct python_object current = {};
	struct linked_program *program;
	struct python_request *serves;
	struct python_thread *thread;
	__u64 socket, received;

	if (!state || !scratch)
		return 0;
	thread = python_thread_here(state, scratch, &program);
	if (!thread)
		return 0;
	socket = thread->writes.socket;
	received = thread->writes.received;
	thread->writes.socket = 0;
	if (!python_is_request(state, scratch))
		return 0;
	if (!socket || !python_in_turn(program, &scratch->event)) {
		serves = python_serves(program, thread, scratch->event.pid, &current);
		if (!serves)
			return 0;
		socket = serves->socket;
		received = serves->received;
	}
	python_tell(state, scratch, socket, received);
	return 0;
}

/* What begins a turn is received or sent (`kind`) by this process: it stands in `scratch`, and was not told yet. */
static __always_inline void python_turn(struct socket_state *state, struct scratch *scratch, __u32 pid, __u8 kind)
{
	if (!linked_may_be(pid))
		return;
	if (kind == RECORD_SEND)
		python_sent(state, scratch);
	else
		python_received(state, scratch);
}

#endif
