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
/* Both numbers of a goroutine lie within so many bytes, all versions: they are read at once. */
#define GO_NUMBERS 136

/* An object of a program: a goroutine's, or a connection's context. */
struct go_object {
	__u64 address;
	__u32 pid;
	__u32 pad;
};

/* The request that a goroutine serves. */
struct go_request {
	__u64 id;                /* of the goroutine, which is not given again in its process */
	__u64 socket;            /* cookie of the connection that it came over */
	__u64 began;             /* when its handler did, ns of CLOCK_MONOTONIC */
	__u32 inherited;         /* from the goroutine that made this one */
	__u32 asked;             /* requests sent for it by this goroutine */
	__u64 connection;        /* address of the net/http.conn */
	__u64 context;           /* address of the request's; 0: not known */
	__u64 parent;            /* address of the context that it was made of: that of the connection, all requests of which have the same */
};

/* The request that is served of those of a connection. */
struct go_serving {
	__u64 context;           /* address of the request's */
	__u64 socket;
	__u64 began;
	/* Of the three: who reads while the next request is noted sees that it has parts of both, in whatever order they are written. */
	__u64 seal;
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

/*
 * By the address of the connection's context, of which net/http makes that of each request. By the request's own one each request took a
 * place from the oldest, for good.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct go_object);
	__type(value, struct go_serving);
} go_contexts SEC(".maps");

/* What is known of a goroutine with this number; NULL: nothing, or of another whose object this was before. */
static __always_inline struct go_request *go_known(const struct go_object *object, __u64 id)
{
	struct go_request *found = bpf_map_lookup_elem(&go_goroutines, object);

	return found && found->id == id ? found : NULL;
}

static __always_inline bool go_is_id(__u64 id)
{
	return id && id < 1ULL << 48;
}

/* Number of the goroutine whose object this is; 0: it is none. */
static __always_inline __u64 go_id_of(__u64 object, __u64 layout)
{
	__u64 id = 0;

	if (bpf_probe_read_user(&id, sizeof(id), (void *)(object + GO_LAYOUT_ID(layout))))
		return 0;
	return go_is_id(id) ? id : 0;
}

/* A connection's context leads to this request from now on, and no longer to the one before. */
static __always_inline void go_leads(__u32 pid, const struct go_request *serves)
{
	struct go_object parent = { .address = serves->parent, .pid = pid };
	struct go_serving now = {
		.context = serves->context,
		.socket = serves->socket,
		.began = serves->began,
		.seal = serves->context ^ serves->socket ^ serves->began,
	};
	struct go_serving *before = bpf_map_lookup_elem(&go_contexts, &parent);

	if (before)
		*before = now;
	else
		bpf_map_update_elem(&go_contexts, &parent, &now, BPF_ANY);
}

/* func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request): four words and the goroutine. */
static __noinline int go_serves(struct pt_regs *regs, __u64 layout)
{
	__u64 answer = GO_ARGUMENT3(regs), request = GO_ARGUMENT4(regs), id, context = 0;
	struct go_object goroutine = { .address = GO_GOROUTINE(regs) };
	struct go_request fresh = {}, *serves;
	struct {
		__u64 connection;
		__u64 request;
	} response;

	goroutine.pid = bpf_get_current_pid_tgid() >> 32;
	if (!is_selected(goroutine.pid))
		return 0;
	id = go_id_of(goroutine.address, layout);
	if (!id)
		return 0;
	/* Of HTTP/2 the answer is another type: it has to name this request. */
	if (bpf_probe_read_user(&response, sizeof(response), (void *)answer) || response.request != request ||
	    bpf_probe_read_user(&context, sizeof(context), (void *)(request + GO_LAYOUT_CONTEXT(layout) + 8)))
		goto unknown;
	/* A goroutine of HTTP/1 serves one connection, and as long as it does no other one is where that is. */
	serves = go_known(&goroutine, id);
	if (serves && serves->connection == response.connection && !serves->inherited) {
		serves->began = bpf_ktime_get_ns();
		serves->asked = 0;
		serves->context = context;
		if (context)
			go_leads(goroutine.pid, serves);
		return 0;
	}
	if (!go_sock_of(bpf_get_current_task_btf(), response.connection + GO_CONN_RWC, &fresh.socket, NULL))
		goto unknown;
	fresh.id = id;
	fresh.connection = response.connection;
	fresh.began = bpf_ktime_get_ns();
	if (context && !bpf_probe_read_user(&fresh.parent, sizeof(fresh.parent), (void *)(context + 8))) {
		fresh.context = context;
		go_leads(goroutine.pid, &fresh);
	}
	bpf_map_update_elem(&go_goroutines, &goroutine, &fresh, BPF_ANY);
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
	__u64 thread, made_by, current[2], numbers[GO_NUMBERS / 8];
	struct go_object parent = {}, child = { .address = GO_ARGUMENT2(regs) };
	struct go_request serves, *found, *place;

	parent.pid = child.pid = bpf_get_current_pid_tgid() >> 32;
	if (!is_selected(parent.pid))
		return 0;
	if (bpf_probe_read_user(&thread, sizeof(thread), (void *)(GO_GOROUTINE(regs) + GO_THREAD)) ||
	    bpf_probe_read_user(current, sizeof(current), (void *)(thread + GO_CURRENT)))
		return 0;
	/* Most makers serve nothing: then nothing else is read. */
	parent.address = current[0];
	found = bpf_map_lookup_elem(&go_goroutines, &parent);
	if (!found) {
		parent.address = current[1];
		found = bpf_map_lookup_elem(&go_goroutines, &parent);
	}
	if (!found || bpf_probe_read_user(numbers, sizeof(numbers), (void *)(child.address + GO_LAYOUT_ID(layout))))
		return 0;
	serves = *found;
	/* 128 bytes behind the one that it has itself, or 120. */
	made_by = GO_LAYOUT_PARENT(layout) - GO_LAYOUT_ID(layout) == 128 ? numbers[16] : numbers[15];
	/* No two have one number: what runs there is the goroutine that the new one names as its maker. */
	if (serves.id != made_by || !go_is_id(numbers[0]))
		return 0;
	serves.id = numbers[0];
	serves.inherited = 1;
	serves.asked = 0;
	/* In place where there is one: an LRU table takes the node unused for longest for each update, which is in no cache. */
	place = bpf_map_lookup_elem(&go_goroutines, &child);
	if (place)
		*place = serves;
	else
		bpf_map_update_elem(&go_goroutines, &child, &serves, BPF_ANY);
	return 0;
}

/* The request that a *Request's context leads to, which this goroutine may serve itself. */
static __always_inline bool go_of_context(__u64 request, __u64 layout, __u32 pid, const struct go_request *own,
					  struct go_serving *serves)
{
	struct go_object connection = { .pid = pid };
	struct go_serving *found;
	__u64 context;

	if (bpf_probe_read_user(&context, sizeof(context), (void *)(request + GO_LAYOUT_CONTEXT(layout) + 8)))
		return false;
	for (int i = 0; i < GO_CONTEXTS && context; i++) {
		/* Another context may have been put where that of a request had been: what it was made of is not that connection's. */
		if (bpf_probe_read_user(&connection.address, sizeof(connection.address), (void *)(context + 8)))
			return false;
		/* What has no context to be made of, as context.Background(), has something else behind it. */
		if (!connection.address || connection.address & 7)
			return false;
		if (own && !own->inherited && own->context == context && own->parent == connection.address) {
			serves->socket = own->socket;
			serves->began = own->began;
			return true;
		}
		found = bpf_map_lookup_elem(&go_contexts, &connection);
		if (found && found->context == context) {
			*serves = *found;
			/* What follows is of what was read here. */
			asm volatile("" ::: "memory");
			return serves->context == context &&
			       (serves->context ^ serves->socket ^ serves->began) == serves->seal;
		}
		context = connection.address;
	}
	return false;
}

/* func (pc *persistConn) roundTrip(req *transportRequest) */
static __noinline int go_asks(struct pt_regs *regs, __u64 layout)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), cookie = 0, request = 0, id;
	struct go_request *by_goroutine;
	struct go_serving serves = {};
	bool bare = false;
	struct go_object goroutine = { .address = GO_GOROUTINE(regs) };
	struct socket_state *state;
	struct socket_event *event;
	struct task_struct *task;
	struct sock *sk;

	goroutine.pid = pid_tgid >> 32;
	if (!is_selected(goroutine.pid))
		return 0;
	id = go_id_of(goroutine.address, layout);
	if (!id)
		return 0;
	by_goroutine = go_known(&goroutine, id);
	/* transportRequest begins with its *Request. */
	if (bpf_probe_read_user(&request, sizeof(request), (void *)GO_ARGUMENT2(regs)) ||
	    !go_of_context(request, layout, goroutine.pid, by_goroutine, &serves)) {
		/* What the program says itself counts more than who says it: it may be a goroutine that works for many. */
		if (!by_goroutine)
			return 0;
		serves.socket = by_goroutine->socket;
		serves.began = by_goroutine->began;
	}
	task = bpf_get_current_task_btf();
	sk = go_sock_of(task, GO_ARGUMENT1(regs) + GO_PERSIST_CONN, &cookie, &bare);
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
	event->opposite_offset = serves.socket;
	event->queued = serves.began;
	if (by_goroutine && by_goroutine->socket == serves.socket && by_goroutine->began == serves.began) {
		event->turn = LINK_GOROUTINE;
		if (by_goroutine->inherited)
			event->turn = by_goroutine->asked ? LINK_INHERITED_AGAIN : LINK_INHERITED;
		if (by_goroutine->asked < 1u << 31)
			by_goroutine->asked++;
	} else {
		event->turn = LINK_CONTEXT;
	}
	state = bare ? NULL : bpf_map_lookup_elem(&tls_sockets, &cookie);
	if (state) {
		event->flags = FLAG_TLS;
		event->offset = state->sent;
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
