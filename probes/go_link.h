/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Which request of Go's net/http a request is made for.
 *
 * In: the handler of a request begins (net/http.serverHandler.ServeHTTP), a goroutine is made (runtime.newproc), a request is
 * sent over a connection (net/http.(*persistConn).roundTrip). Out: struct socket_event of kind RECORD_LINK, before the first
 * byte of that request.
 *
 * A goroutine serves the request whose handler it runs, and so do those that it makes. A context leads to the request that it
 * was made for, whoever uses it. Nothing is taken away when a request is answered: the forwarder knows when that was. What
 * is read proves itself (the answer's object names the request's, the connection's object holds a socket), or is not taken.
 *
 * Where fields lie depends on Go's version: there are programs for each layout.
 */
#ifndef SPANTAP_GO_LINK_H
#define SPANTAP_GO_LINK_H

/* Offsets of runtime.g.goid, runtime.g.parentGoid, net/http.Request.ctx; 16 bits each. */
#define GO_LAYOUT(id, parent, context) ((__u64)(id) | (__u64)(parent) << 16 | (__u64)(context) << 32)
#define GO_LAYOUT_ID(layout) ((layout) & 0xffff)
#define GO_LAYOUT_PARENT(layout) ((layout) >> 16 & 0xffff)
#define GO_LAYOUT_CONTEXT(layout) ((layout) >> 32 & 0xffff)
/* runtime.g.m, all versions. */
#define GO_THREAD 48
/* runtime.m: curg since Go 1.25, and behind it where it is before. */
#define GO_CURRENT 184
/* net/http.persistConn.conn, Go 1.21 to 1.26 */
#define GO_PERSIST_CONN 80

/* net/http.conn.rwc, all versions: behind a pointer and a function. */
#define GO_CONN_RWC 16
/* Contexts that are made of another begin with it: so many are looked through. */
#define GO_CONTEXTS 9

/* An object of a program: a goroutine's, or a context. */
struct go_object {
	__u64 address;
	__u32 pid;
	__u32 pad;
};

/* The request that is served. */
struct go_request {
	__u64 id;                /* of the goroutine, which is not given again in its process; of a context: its address */
	__u64 socket;            /* cookie of the connection that it came over */
	__u64 began;             /* when its handler did, ns of CLOCK_MONOTONIC */
	__u32 inherited;         /* from the goroutine that made this one */
	__u32 asked;             /* requests sent for it by this goroutine */
	__u64 connection;        /* address of the net/http.conn */
	__u64 parent;            /* address of the context that the request's was made of: that of its connection */
};

/*
 * By the goroutine's object, which Go gives to one goroutine after another: so the table holds as many as there were at a time, and
 * what is looked at is in the processor's cache. By their numbers it was filled anew with each that was made: a miss for each part of it.
 *
 * LRU: goroutines end without being seen to. One for each connection that waits for its next request, and for each goroutine
 * that works for one; of one that was pushed out nothing is known.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct go_object);
	__type(value, struct go_request);
} go_goroutines SEC(".maps");

/* The same by the address of the request's context. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct go_object);
	__type(value, struct go_request);
} go_contexts SEC(".maps");

/* What is known of an object under this number; NULL: nothing, or of another that had its place before. */
static __always_inline struct go_request *go_known(void *map, const struct go_object *object, __u64 id)
{
	struct go_request *found = bpf_map_lookup_elem(map, object);

	return found && found->id == id ? found : NULL;
}

/* In place where there is one: an LRU table takes the node unused for longest for each update, which is in no cache. */
static __always_inline void go_keep(void *map, const struct go_object *object, const struct go_request *request)
{
	struct go_request *found = bpf_map_lookup_elem(map, object);

	if (found)
		*found = *request;
	else
		bpf_map_update_elem(map, object, request, BPF_ANY);
}

/* Number of the goroutine whose object this is; 0: it is none. */
static __always_inline __u64 go_id_of(__u64 object, __u64 layout)
{
	__u64 id = 0;

	if (bpf_probe_read_user(&id, sizeof(id), (void *)(object + GO_LAYOUT_ID(layout))))
		return 0;
	return id < 1ULL << 48 ? id : 0;
}

/* func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request): four words and the goroutine. */
static __noinline int go_serves(struct pt_regs *regs, __u64 layout)
{
	__u64 answer = GO_ARGUMENT3(regs), request = GO_ARGUMENT4(regs);
	struct go_object goroutine = { .address = GO_GOROUTINE(regs) }, context = {};
	struct go_request serves = {}, *before;
	struct {
		__u64 connection;
		__u64 request;
	} response;

	goroutine.pid = bpf_get_current_pid_tgid() >> 32;
	if (!is_selected(goroutine.pid))
		return 0;
	serves.id = go_id_of(goroutine.address, layout);
	if (!serves.id)
		return 0;
	/* Of HTTP/2 the answer is another type: it has to name this request. */
	if (bpf_probe_read_user(&response, sizeof(response), (void *)answer) || response.request != request)
		goto unknown;
	/* A goroutine of HTTP/1 serves one connection, and as long as it does no other one is where that is. */
	before = go_known(&go_goroutines, &goroutine, serves.id);
	if (before && before->connection == response.connection)
		serves.socket = before->socket;
	else if (!go_sock_of(bpf_get_current_task_btf(), response.connection + GO_CONN_RWC, &serves.socket))
		goto unknown;
	serves.connection = response.connection;
	serves.began = bpf_ktime_get_ns();
	go_keep(&go_goroutines, &goroutine, &serves);
	context.pid = goroutine.pid;
	if (!bpf_probe_read_user(&context.address, sizeof(context.address),
				 (void *)(request + GO_LAYOUT_CONTEXT(layout) + 8)) &&
	    context.address &&
	    !bpf_probe_read_user(&serves.parent, sizeof(serves.parent), (void *)(context.address + 8))) {
		serves.id = context.address;
		go_keep(&go_contexts, &context, &serves);
	}
	return 0;
unknown:
	bpf_map_delete_elem(&go_goroutines, &goroutine);
	return 0;
}

/*
 * In runtime.newproc, where the new goroutine is about to run: func runqput(pp *p, gp *g, next bool). That is on the thread's own
 * stack and goroutine, whose thread says which goroutine runs there otherwise: it is the one that the new one names as its maker.
 */
static __noinline int go_spawns(struct pt_regs *regs, __u64 layout)
{
	__u64 object = GO_ARGUMENT2(regs), thread, made_by = 0, current[2];
	struct go_object parent = {}, child = { .address = object };
	struct go_request serves, *found;

	parent.pid = child.pid = bpf_get_current_pid_tgid() >> 32;
	if (!is_selected(parent.pid))
		return 0;
	if (bpf_probe_read_user(&made_by, sizeof(made_by), (void *)(object + GO_LAYOUT_PARENT(layout))) || !made_by ||
	    bpf_probe_read_user(&thread, sizeof(thread), (void *)(GO_GOROUTINE(regs) + GO_THREAD)) ||
	    bpf_probe_read_user(current, sizeof(current), (void *)(thread + GO_CURRENT)))
		return 0;
	if (go_id_of(current[0], layout) == made_by)
		parent.address = current[0];
	else if (go_id_of(current[1], layout) == made_by)
		parent.address = current[1];
	else
		return 0;
	found = go_known(&go_goroutines, &parent, made_by);
	if (!found)
		return 0;
	serves = *found;
	serves.id = go_id_of(object, layout);
	if (!serves.id)
		return 0;
	serves.inherited = 1;
	serves.asked = 0;
	go_keep(&go_goroutines, &child, &serves);
	return 0;
}

/* The request that a *Request's context leads to. */
static __always_inline struct go_request *go_of_context(__u64 request, __u64 layout, __u32 pid)
{
	struct go_object context = { .pid = pid };
	struct go_request *found;
	__u64 parent;

	if (bpf_probe_read_user(&context.address, sizeof(context.address),
				(void *)(request + GO_LAYOUT_CONTEXT(layout) + 8)))
		return NULL;
	for (int i = 0; i < GO_CONTEXTS && context.address; i++) {
		if (bpf_probe_read_user(&parent, sizeof(parent), (void *)(context.address + 8)))
			return NULL;
		found = go_known(&go_contexts, &context, context.address);
		/* Another context may have been put where that of a request had been: its parent is not that connection's. */
		if (found && found->parent == parent)
			return found;
		context.address = parent;
	}
	return NULL;
}

/* func (pc *persistConn) roundTrip(req *transportRequest) */
static __noinline int go_asks(struct pt_regs *regs, __u64 layout)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), cookie = 0, request = 0, id;
	struct go_request *by_goroutine, *by_context = NULL, *serves;
	struct go_object goroutine = { .address = GO_GOROUTINE(regs) };
	struct socket_state *plain;
	struct socket_event *event;
	struct task_struct *task;
	struct sock *sk;

	goroutine.pid = pid_tgid >> 32;
	if (!is_selected(goroutine.pid))
		return 0;
	id = go_id_of(goroutine.address, layout);
	if (!id)
		return 0;
	by_goroutine = go_known(&go_goroutines, &goroutine, id);
	/* transportRequest begins with its *Request. */
	if (!bpf_probe_read_user(&request, sizeof(request), (void *)GO_ARGUMENT2(regs)))
		by_context = go_of_context(request, layout, goroutine.pid);
	/* What the program says itself counts more than who says it: it may be a goroutine that works for many. */
	serves = by_context ? by_context : by_goroutine;
	if (!serves)
		return 0;
	task = bpf_get_current_task_btf();
	sk = go_sock_of(task, GO_ARGUMENT1(regs) + GO_PERSIST_CONN, &cookie);
	if (!sk)
		return 0;
	event = bpf_ringbuf_reserve(&socket_events, sizeof(*event), 0);
	if (!event) {
		count_loss(LOSS_RING_FULL_OTHER);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = RECORD_LINK;
	event->pid = goroutine.pid;
	event->thread = (__u32)pid_tgid;
	event->process_start = task->group_leader->start_boottime;
	event->socket = cookie;
	event->time = bpf_ktime_get_ns();
	event->opposite_offset = serves->socket;
	event->queued = serves->began;
	if (by_goroutine && by_goroutine->socket == serves->socket && by_goroutine->began == serves->began) {
		event->turn = LINK_GOROUTINE;
		if (by_goroutine->inherited)
			event->turn = by_goroutine->asked ? LINK_INHERITED_AGAIN : LINK_INHERITED;
		if (by_goroutine->asked < 1u << 31)
			by_goroutine->asked++;
	} else {
		event->turn = LINK_CONTEXT;
	}
	plain = bpf_map_lookup_elem(&tls_sockets, &cookie);
	if (plain) {
		event->flags = FLAG_TLS;
		event->offset = plain->sent;
	} else {
		event->offset = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	}
	/* What it tells of is told after it, and wakes the agent where that is due. */
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

#define GO_PROGRAM(name, body, layout)          \
	SEC("uprobe")                           \
	int name(struct pt_regs *regs)          \
	{                                       \
		STACK_OF_THE_THREAD(regs);      \
		return body(regs, layout);      \
	}

/* Go 1.21 and 1.22; 1.23 and 1.24; 1.25 and 1.26 */
GO_PROGRAM(go_serve_a, go_serves, GO_LAYOUT(152, 0, 232))
GO_PROGRAM(go_serve_b, go_serves, GO_LAYOUT(160, 0, 248))
GO_PROGRAM(go_serve_c, go_serves, GO_LAYOUT(152, 0, 248))
GO_PROGRAM(go_ask_a, go_asks, GO_LAYOUT(152, 0, 232))
GO_PROGRAM(go_ask_b, go_asks, GO_LAYOUT(160, 0, 248))
GO_PROGRAM(go_ask_c, go_asks, GO_LAYOUT(152, 0, 248))
/* Go 1.21, 1.22, 1.25; 1.23 and 1.24; 1.26 */
GO_PROGRAM(go_spawn_a, go_spawns, GO_LAYOUT(152, 272, 0))
GO_PROGRAM(go_spawn_b, go_spawns, GO_LAYOUT(160, 280, 0))
GO_PROGRAM(go_spawn_c, go_spawns, GO_LAYOUT(152, 280, 0))

#endif
