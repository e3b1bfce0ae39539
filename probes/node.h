/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Which request a thread of Node serves at this moment.
 *
 * In: Node's own numbers (double[4] async_id_fields of node::AsyncHooks: what is executed, what that was triggered by, the last
 * number given, a default), read whenever the thread passes one of our hooks; what it received; which reaction to a promise
 * runs. Out: `now` of struct node_thread.
 *
 * Node gives each thing that will call back a number. Numbers given between two looks belong to what was executed at the first of
 * them: if that is not certain (another was executed at the second), the number must name it as its trigger when it is
 * executed itself, or nothing is known of it. Things of C++ are seen when they are made, and need no such sign.
 */
#ifndef SPANTAP_NODE_H
#define SPANTAP_NODE_H

/*
 * Numbers of a thread that are remembered, a power of two, and places for threads. Threads that share a place overwrite each other's now and
 * then, as their numbers go on. One that was overwritten is not known.
 */
#define NODE_IDS 32768
#define NODE_PLACES 4
/* So many reactions may be stored before one runs. */
#define NODE_EARLY 64
/* Numbers given between two looks at most that are remembered; a request takes some twenty. */
#define NODE_IDS_AT_ONCE 40
/* The verifier follows each turn of a loop: so one over five of them is called eight times. */
#define NODE_IDS_AT_A_CALL 5

/* A request that was received; all 0: none. */
struct node_request {
	__u64 socket;            /* cookie of its connection */
	__u64 began;             /* when its first byte was received, ns of CLOCK_MONOTONIC */
};

/* What a number was given for. */
struct node_id {
	__u32 id;                /* its lower half; 0: being written */
	__u32 thread;
	__u32 creator;           /* what was executed then, lower half */
	__u32 native;            /* seen as it was given */
	struct node_request serves;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NODE_IDS *NODE_PLACES);
	__type(key, __u32);
	__type(value, struct node_id);
} node_ids SEC(".maps");

enum node_flow {
	NODE_FLOW_NONE = 0,
	NODE_FLOW_SERVER = 1,    /* bytes of a request were received */
	NODE_FLOW_CLIENT = 2,    /* bytes of a response were, or something happened on a stream */
};

struct node_thread {
	__u64 start;             /* of the thread, ns of CLOCK_BOOTTIME: numbers of threads are given again */
	__u64 fields;            /* address of async_id_fields */
	__u64 counter;           /* the last number given, when it was last looked */
	__u64 executed;          /* what was executed then */
	struct node_request now; /* the request that was served then */
	__u64 reactions;         /* that were seen to run: 0 where the program runs copies of V8's code, which are not stopped at */
	__u64 waits;             /* that were seen to be stored */
	struct node_request reaction; /* of the one that runs */
	__u64 reaction_executed; /* what is executed meanwhile */
	struct node_request flow; /* NODE_FLOW_SERVER: the request of the bytes */
	__u64 flow_counter;      /* the last number given before */
	__u64 flow_floor;        /* NODE_FLOW_CLIENT: the last one given before the request was made, or 0 */
	__u32 flow_kind;         /* enum node_flow: what the event loop handles */
	__u32 reacts;            /* a reaction runs */
	__u64 place;             /* of its numbers: the first one */
	__u64 seen[3];           /* the numbers when it was last looked, as they stand in memory */
	__u64 read[4];           /* the same, while it is looked: the stack is small */
	__u64 changed;           /* `now` does not follow from them: something has begun since, or ended */
};

/* Threads with an event loop of Node's; one that was pushed out is found again, and what it did is not known. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct node_thread);
} node_threads SEC(".maps");

/* How many there were so far: with none, the hooks of sockets cost nothing more. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} node_any SEC(".maps");

static __always_inline bool node_is_any(void)
{
	__u32 zero = 0;
	__u64 *any = bpf_map_lookup_elem(&node_any, &zero);

	return any && *any;
}

/* This thread, if it is known as one of Node's. */
static __always_inline struct node_thread *node_this(void)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct node_thread *found;

	if (!node_is_any())
		return NULL;
	found = bpf_map_lookup_elem(&node_threads, &thread);
	return found && found->start == bpf_get_current_task_btf()->start_boottime ? found : NULL;
}

/* All bits, or none if this is 0. Nothing that the compiler could make a branch of. */
static __always_inline __u64 node_is_some(__u64 number)
{
	__u64 negative = -number;

	asm volatile("" : "+r"(negative));
	return -((number | negative) >> 63);
}

/*
 * The whole number that a double is (IEEE 754); sets bits of `wrong` if it is none, or negative. Without a branch: the verifier follows
 * each one to the end.
 */
static __always_inline __u64 node_whole(__u64 bits, __u64 *wrong)
{
	__u64 shift = 1075 - (bits >> 52), mantissa = (bits & ((1ULL << 52) - 1)) | 1ULL << 52;
	__u64 bad = (shift | (52 - shift)) >> 63, some = node_is_some(bits);

	shift &= 63;
	bad |= mantissa & ((1ULL << shift) - 1);
	*wrong |= bad & some;
	return mantissa >> shift & some;
}

struct node_fields {
	__u64 executed;
	__u64 trigger;
	__u64 counter;
};

#define NODE_MINUS_ONE 0xbff0000000000000

/* Makes numbers of async_id_fields; false: these are others. */
static __always_inline bool node_numbers(const __u64 bits[4], struct node_fields *fields)
{
	__u64 wrong = 0;

	node_whole(bits[3], &wrong);
	/* The default is -1 when there is none. */
	wrong &= node_is_some(bits[3] ^ NODE_MINUS_ONE);
	fields->executed = node_whole(bits[0], &wrong);
	fields->trigger = node_whole(bits[1], &wrong);
	fields->counter = node_whole(bits[2], &wrong);
	wrong |= (fields->counter - 1 | fields->counter - fields->executed | fields->counter - fields->trigger) >> 63;
	return !wrong;
}

static __always_inline struct node_id *node_slot(__u64 place, __u64 id)
{
	__u32 slot = (__u32)place + ((__u32)id & (NODE_IDS - 1));

	return bpf_map_lookup_elem(&node_ids, &slot);
}

/* A number was given while `serves` was served. Threads may share a slot: whoever reads looks at `id` before and after. */
static __always_inline void node_give(__u64 place, __u64 id, __u64 creator, __u32 native, const struct node_request *serves)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct node_id *slot = node_slot(place, id);

	if (!slot)
		return;
	*(volatile __u32 *)&slot->id = 0;
	slot->thread = thread;
	slot->creator = (__u32)creator;
	slot->native = native;
	slot->serves = *serves;
	*(volatile __u32 *)&slot->id = (__u32)id;
}

/* What a number was given for; false: that is not known. */
static __always_inline bool node_known(__u64 place, __u64 id, struct node_id *known)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct node_id *slot = node_slot(place, id);

	if (!slot)
		return false;
	*known = *slot;
	return known->id && known->id == (__u32)id && known->thread == thread && *(volatile __u32 *)&slot->id == known->id;
}

/* Sets `now`: the request that is served while this is executed. */
SHARED int node_serves(struct node_thread *thread, __u64 executed, __u64 trigger)
{
	struct node_request none = {};
	struct node_id id = {}, above = {};
	bool is_older, known;

	if (!thread)
		return 0;
	thread->now = none;
	if (thread->reacts && executed == thread->reaction_executed) {
		thread->now = thread->reaction;
		return 0;
	}
	if (!executed)
		return 0;
	is_older = executed <= thread->flow_counter;
	known = node_known(thread->place, executed, &id);
	if (is_older && (!known || id.native)) {
		/* A connection's own number is older than the request that it is used for, unless it was given for that. */
		if (thread->flow_kind == NODE_FLOW_CLIENT && executed <= thread->flow_floor)
			return 0;
		if (thread->flow_kind == NODE_FLOW_SERVER) {
			thread->now = thread->flow;
			return 0;
		}
	}
	if (!known)
		return 0;
	/* What a socket does for itself names the socket: if that was made for the same request, it is certain as well. */
	if (!id.native && id.creator != (__u32)trigger &&
	    !(node_known(thread->place, trigger, &above) && above.native && above.serves.socket == id.serves.socket &&
	      above.serves.began == id.serves.began))
		return 0;
	thread->now = id.serves;
	return 0;
}

/* The numbers from `first` on, at most NODE_IDS_AT_A_CALL of them and up to the last one, were given while `serves` was served. */
SHARED int node_give_some(struct node_thread *thread, __u64 first, __u64 creator, const struct node_request *serves)
{
	if (!thread || !serves)
		return 0;
	for (int i = 0; i < NODE_IDS_AT_A_CALL; i++) {
		if (first + i > thread->counter)
			break;
		node_give(thread->place, first + i, creator, 0, serves);
	}
	return 0;
}

/* The same of all of them. */
SHARED int node_give_all(struct node_thread *thread, __u64 first, __u64 creator, const struct node_request *serves)
{
	if (!thread || !serves)
		return 0;
	for (int i = 0; i < NODE_IDS_AT_ONCE / NODE_IDS_AT_A_CALL; i++) {
		if (first > thread->counter)
			break;
		node_give_some(thread, first, creator, serves);
		first += NODE_IDS_AT_A_CALL;
	}
	return 0;
}

/* `now` does not follow from these numbers. One condition, so that the verifier goes on once. */
static __always_inline bool node_is_news(const struct node_thread *thread, const __u64 bits[4])
{
	return (thread->changed | (bits[0] ^ thread->seen[0]) | (bits[1] ^ thread->seen[1]) | (bits[2] ^ thread->seen[2])) != 0;
}

/*
 * Looks at the numbers in `read`. False: nothing is known. What is done here stands in functions and loops in steps, so that the verifier
 * looks at little: it is in three programs of sockets.
 */
SHARED int node_looked(struct node_thread *thread)
{
	struct node_request before;
	struct node_fields fields;
	__u64 last, first, creator;
	__u64 *bits;

	if (!thread)
		return 0;
	bits = thread->read;
	/* Where nothing has changed, which is most often, no more is to be done. */
	if (!node_is_news(thread, bits))
		return 1;
	if (!node_numbers(bits, &fields))
		goto unknown;
	thread->seen[0] = bits[0];
	thread->seen[1] = bits[1];
	thread->seen[2] = bits[2];
	thread->changed = 0;
	last = thread->counter;
	if (fields.counter < last)
		last = fields.counter;
	before = thread->now;
	creator = thread->executed;
	thread->counter = fields.counter;
	thread->executed = fields.executed;
	/* Of a number that was given since nothing is known yet. */
	if (fields.executed <= last || !creator)
		node_serves(thread, fields.executed, fields.trigger);
	/* Nothing was executed then: what is now was begun since. */
	if (!creator && fields.executed && !thread->reacts) {
		before = thread->now;
		creator = fields.executed;
	}
	first = last + 1;
	if (fields.counter - last > NODE_IDS_AT_ONCE)
		first = fields.counter - NODE_IDS_AT_ONCE + 1;
	if (first <= fields.counter)
		node_give_all(thread, first, creator, &before);
	if (fields.executed > last)
		node_serves(thread, fields.executed, fields.trigger);
	return 1;
unknown:
	thread->changed = 1;
	thread->now.socket = 0;
	thread->now.began = 0;
	return 0;
}

/* Looks at what is executed. False: nothing is known. */
SHARED int node_look(struct node_thread *thread)
{
	if (!thread)
		return 0;
	/* Numbers that are none, if they cannot be read. */
	if (bpf_probe_read_user(thread->read, sizeof(thread->read), (void *)thread->fields))
		thread->changed = 1;
	return node_looked(thread);
}

/*
 * The same where functions of the program are stopped at, often: with the numbers on the stack, of which there is enough here. The
 * kernel takes longer to see that a map's memory may be written to.
 */
static __always_inline int node_look_here(struct node_thread *thread)
{
	__u64 bits[4];

	if (bpf_probe_read_user(bits, sizeof(bits), (void *)thread->fields))
		thread->changed = 1;
	else if (!node_is_news(thread, bits))
		return 1;
	for (int i = 0; i < 4; i++)
		thread->read[i] = bits[i];
	return node_looked(thread);
}

#endif
