/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Which request of a program of tokio a request is made for.
 *
 * In: the head of a request or a response is received or sent by a thread of such a program; a task is woken, or made
 * (tokio_entries.h). Out: struct socket_event of kind RECORD_LINK, before the first byte of a request that is sent, and again when its
 * response has arrived.
 *
 * The task that receives a request serves it until it receives the next one; what it sends itself is for that request. Clients have a task for
 * each connection, to which others hand their requests. Whoever hands one over wakes it; and when it has received the response, the first that it
 * wakes is who asked. Only if these two signs lead to one request it is taken: each alone may be another's, as wakes mean many things. A task that
 * is made by one that serves a request serves it as well, as long as nothing shows that it works for others.
 *
 * Tasks are known by tokio's numbers for them, which are not given again in a process. Nothing is taken away when a request is
 * answered: the forwarder knows when that was, and takes no request that is not open.
 */
#ifndef SPANTAP_TOKIO_LINK_H
#define SPANTAP_TOKIO_LINK_H

/* With the number of a program in linked_programs: it is one of tokio, and `main` is where a thread has the number of its task, bytes
 * from its thread pointer on. */
#define PROGRAM_OF_TOKIO (1ULL << 33)

/* tokio::runtime::task::Header.vtable, and in that Vtable.id_offset: tokio 1.42 to 1.54 (probe-agent/src/tls/tokio.rs) */
#define TOKIO_VTABLE 16
#define TOKIO_ID_OFFSET 72
/* A task's number stands behind its header and its scheduler. */
#define TOKIO_ID_WITHIN 4096

/* Who woke a task that are remembered. */
#define TOKIO_WAKES 4

struct tokio_key {
	__u64 pid;
	__u64 start;             /* of the process, ns of CLOCK_BOOTTIME */
	__u64 id;
};

enum tokio_serves {
	TOKIO_NOTHING = 0,
	TOKIO_RECEIVED = 1,      /* the request that it received itself */
	TOKIO_INHERITED = 2,     /* that of the task which made it */
	TOKIO_MANY = 3,          /* it works for several: nothing is known, for good */
};

struct tokio_request {
	__u64 socket;            /* cookie of the connection that it came over */
	__u64 received;          /* when, ns of CLOCK_MONOTONIC */
};

struct tokio_task {
	struct tokio_request request;
	__u64 socket;            /* over which it has sent a request last; 0: it has sent none */
	__u64 first;             /* TCP sequence number of that one's first byte */
	__u32 serves;            /* enum tokio_serves */
	__u32 asked;             /* requests sent */
	__u32 answered;          /* a response was received: the next that it wakes has asked */
	__u32 sockets;           /* it has sent requests over several: they are not told apart */
	__u32 wakes;             /* by tasks that serve a request, so far */
	__u32 before;            /* of these before the last response */
	struct tokio_request woken_for[TOKIO_WAKES];
};

/*
 * LRU: tasks end without being seen to. One for each connection, and for each task that works for a request; of one that was
 * pushed out nothing is known. The agent makes it large where such programs are linked.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct tokio_key);
	__type(value, struct tokio_task);
} tokio_tasks SEC(".maps");

/* What an entry above begins with. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tokio_task);
} tokio_no_task SEC(".maps");

static __always_inline struct tokio_task *tokio_task_of(const struct tokio_key *key)
{
	struct tokio_task *task = bpf_map_lookup_elem(&tokio_tasks, key), *fresh;
	__u32 zero = 0;

	if (task)
		return task;
	fresh = bpf_map_lookup_elem(&tokio_no_task, &zero);
	if (fresh)
		bpf_map_update_elem(&tokio_tasks, key, fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tokio_tasks, key);
}

/* Number of the task that the current thread runs; 0: none, or not known. */
static __always_inline __u64 tokio_current(__u64 place)
{
	__u64 id = 0;

	if (bpf_probe_read_user(&id, sizeof(id), (void *)(THREAD_POINTER(bpf_get_current_task_btf()) + place)))
		return 0;
	return id < 1ULL << 48 ? id : 0;
}

/* Tells what the request is made for that was or will be sent over this socket, from this byte on. */
static __always_inline void tokio_tell(const struct tokio_key *process, __u64 socket, __u64 first, __u64 time,
				       const struct tokio_request *request, __u32 how)
{
	struct socket_event *event = bpf_ringbuf_reserve(&socket_events, sizeof(*event), 0);

	if (!event) {
		count_loss(LOSS_RING_FULL_OTHER);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = RECORD_LINK;
	event->pid = process->pid;
	event->thread = (__u32)bpf_get_current_pid_tgid();
	event->process_start = process->start;
	event->socket = socket;
	event->time = time;
	event->offset = first;
	event->turn = how;
	if (request) {
		event->opposite_offset = request->socket;
		event->queued = request->received;
	}
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* As python_received() and python_sent(), in a program of tokio. */
SHARED int tokio_turn(struct socket_state *state, struct scratch *scratch, __u64 place)
{
	struct tokio_key key = {};
	struct socket_event *event;
	struct tokio_task *task;
	bool is_http, is_response;
	__u64 first;

	if (!state || !scratch)
		return 0;
	event = &scratch->event;
	if (event->flags & FLAG_TLS || !state->tcp)
		return 0;
	key.pid = event->pid;
	key.start = event->process_start;
	key.id = tokio_current(place);
	if (!key.id)
		return 0;
	is_http = begins_like_http(scratch->head, event->head_length);
	is_response = is_http && *(__u32 *)scratch->head == 0x50545448 /* HTTP */;
	if (event->kind == RECORD_RECEIVE) {
		if (!is_http || is_response) {
			task = bpf_map_lookup_elem(&tokio_tasks, &key);
			/* 100 Continue and the like are no responses. */
			if (task)
				task->answered = is_response && task->socket == event->socket && event->head_length >= 12 &&
						 scratch->head[9] != '1';
			return 0;
		}
		task = tokio_task_of(&key);
		if (!task)
			return 0;
		task->answered = 0;
		if (task->serves == TOKIO_RECEIVED && task->request.socket != event->socket)
			task->serves = TOKIO_MANY;
		if (task->serves == TOKIO_MANY)
			return 0;
		task->request.socket = event->socket;
		task->request.received = event->time;
		task->serves = TOKIO_RECEIVED;
		return 0;
	}
	if (!is_http || is_response)
		return 0;
	task = tokio_task_of(&key);
	if (!task)
		return 0;
	/* The state stands behind the request by now. */
	first = state->sent_seq - (__u32)(state->sent - event->offset);
	if (task->serves == TOKIO_RECEIVED) {
		tokio_tell(&key, event->socket, first, event->time, &task->request, LINK_TOKIO_ITSELF);
		return 0;
	}
	if (task->asked && task->socket != event->socket)
		task->sockets = 1;
	task->asked = 1 + !!task->asked;
	task->answered = 0;
	if (task->sockets)
		return 0;
	task->socket = event->socket;
	task->first = first;
	tokio_tell(&key, event->socket, first, event->time, NULL, LINK_TOKIO_LATER);
	return 0;
}

#endif
