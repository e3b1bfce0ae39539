/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * `traceparent` for plaintext HTTP/1.1 requests of observed processes: an object of its own, loaded only when that was asked for.
 *
 * In: connections as observed processes make them, and what they send. Out: the same with one field more in each request's
 * head, or exactly the same; struct propagated for the socket hooks; counts of what was done.
 *
 * A message is given a field only where a request has to begin: at the first byte of a connection that was seen to be made,
 * and behind the last byte of a request whose length was told by its head. Positions are TCP's own sequence numbers, so
 * nothing that went past us shifts them. What does not fit has its connection left alone from then on.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#include "propagate.h"
#include "propagate_kernel.h"
#include "propagate_head.h"

/* What became of a request or a connection; the agent tells them by these places. */
enum outcome {
	OUTCOME_ADDED = 0,    /* requests with a field */
	OUTCOME_PRESENT,      /* requests that had one already */
	OUTCOME_BUSY,         /* requests for which the socket might not have had room */
	OUTCOME_FAILED,       /* requests of which the kernel refused to change the bytes: all is switched off */
	/* Connections that are left alone from then on. */
	OUTCOME_NOT_HTTP,     /* what a request should begin with is none of HTTP/1.1 */
	OUTCOME_SPLIT,        /* a head in more than one write */
	OUTCOME_TOO_LARGE,    /* a head of more than REQUEST_HEAD_MAX */
	OUTCOME_PIPELINED,    /* a write that ends one request and begins the next */
	OUTCOME_ENDLESS,      /* a request whose end its head does not tell: chunked, Upgrade, Expect */
	OUTCOME_TUNNEL,       /* CONNECT */
	OUTCOME_SKIPPED,      /* bytes went past us, or the process is not observed any more */
	OUTCOME_NO_ROOM,      /* connections that did not fit into the table */
	OUTCOME_BLOCKING,     /* a call on it would wait */
	OUTCOME_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, OUTCOME_MAX);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* Written by the agent; `on` is cleared by the kernel side as well. */
struct propagation {
	__u64 threshold;  /* of the last 56 bits of a trace id: a lower one is not sampled */
	__u32 on;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct propagation);
} propagation SEC(".maps");

enum stage {
	STAGE_ASKED = 1,  /* an observed process makes the connection */
	STAGE_OPEN = 2,   /* a request begins at `boundary`, or goes on until there */
	STAGE_LEFT = 3,   /* left alone */
	STAGE_GONE = 4,   /* out of the table as well */
};

/* Of one connection; lives and dies with it. Only used with the socket locked. */
struct lane {
	__u32 stage;
	__u32 boundary;
	struct reading reading;
	struct propagated field;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct lane);
} lanes SEC(".maps");

/* The sockets whose sends are looked at. As many as the forwarder's connections. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} propagating SEC(".maps");

/* The tables of the socket hooks, put in here by the agent: two objects cannot share a table otherwise. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE);
		__uint(max_entries, 65536);
		__type(key, __u32);
		__type(value, __u64);
	});
} selected_shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(map_flags, BPF_F_NO_PREALLOC);
		__uint(max_entries, PROPAGATED_MAX);
		__type(key, __u64);
		__type(value, struct propagated);
	});
} propagated_shared SEC(".maps");

static __always_inline void count(__u32 outcome)
{
	__u64 *sum = bpf_map_lookup_elem(&outcomes, &outcome);

	if (sum)
		__sync_fetch_and_add(sum, 1);
}

static __always_inline int leave(struct lane *lane, __u32 outcome)
{
	lane->stage = STAGE_LEFT;
	count(outcome);
	return SK_PASS;
}

static __always_inline __u32 current_process(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, tgid);
}

static __always_inline bool is_selected(__u32 pid)
{
	__u32 zero = 0, word = pid >> 6;
	void *selected = bpf_map_lookup_elem(&selected_shared, &zero);
	__u64 *bits;

	if (!selected)
		return false;
	bits = bpf_map_lookup_elem(selected, &word);
	return bits && (*bits >> (pid & 63)) & 1;
}

/*
 * Whether a receive would wait. The kernel's own code for sockets in a table ends such a wait with EAGAIN when a signal comes or the
 * peer resets, where plain TCP restarts or says so; receives that never wait are the same. So only these sockets are taken.
 */
static __always_inline bool would_wait(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return !tp || !(BPF_CORE_READ((struct sock *)tp, sk_socket, file, f_flags) & O_NONBLOCK);
}

static __always_inline struct propagation *the_switch(void)
{
	__u32 zero = 0;
	struct propagation *found = bpf_map_lookup_elem(&propagation, &zero);

	return found && found->on ? found : NULL;
}

SEC("sockops")
int propagate_connections(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk;
	struct lane *lane;
	__u64 key;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		/* In the call of who connects; when the connection stands anybody may be the current task. */
		if (!the_switch() || !is_selected(current_process()))
			break;
		sk = ops->sk;
		if (!sk)
			break;
		if (would_wait(sk)) {
			count(OUTCOME_BLOCKING);
			break;
		}
		lane = bpf_sk_storage_get(&lanes, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (lane)
			lane->stage = STAGE_ASKED;
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		sk = ops->sk;
		if (!sk)
			break;
		lane = bpf_sk_storage_get(&lanes, sk, NULL, 0);
		if (!lane || lane->stage != STAGE_ASKED)
			break;
		lane->boundary = ops->snd_nxt;
		lane->stage = STAGE_OPEN;
		key = bpf_get_socket_cookie(ops);
		if (bpf_sock_hash_update(ops, &propagating, &key, BPF_ANY)) {
			lane->stage = STAGE_LEFT;
			count(OUTCOME_NO_ROOM);
			break;
		}
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		/* What was sent is acknowledged. A connection that is left alone becomes a plain one again. */
		sk = ops->sk;
		if (!sk)
			break;
		lane = bpf_sk_storage_get(&lanes, sk, NULL, 0);
		if (!lane || lane->stage != STAGE_LEFT)
			break;
		lane->stage = STAGE_GONE;
		key = bpf_get_socket_cookie(ops);
		bpf_map_delete_elem(&propagating, &key);
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_RTT_CB_FLAG);
		break;
	}
	return 1;
}

/* Sixteen digits at `at`. A function of its own: unrolled three times they would not fit the stack. */
static __noinline int put_hex(struct propagated *field, __u32 at, __u64 number)
{
	for (__u32 i = 0; i < 16; i++) {
		__u32 digit = number >> 60, place = at + i;

		number <<= 4;
		if (place < FIELD_BYTES)
			field->text[place] = (digit < 10 ? '0' : 'a' - 10) + digit;
	}
	return 0;
}

static __always_inline __u64 random64(void)
{
	return (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
}

/* A field with a new trace and a new span. */
static __always_inline void make_field(struct propagated *field, __u64 threshold)
{
	__u64 low = random64(), span = random64();
	__u8 *text = field->text;

	low |= !low;
	span |= !span;
	__builtin_memcpy(text, "traceparent: 00-", 16);
	put_hex(field, 16, random64());
	put_hex(field, 32, low);
	text[48] = '-';
	put_hex(field, 49, span);
	__builtin_memcpy(text + 65, "-00\r\n", 5);
	text[67] += (low & ((1ULL << 56) - 1)) >= threshold;
}

/* The kernel did not do it: nothing goes on, and if the bytes cannot be put right, nothing of this call either. */
static __always_inline int failed(struct lane *lane, bool whole)
{
	struct propagation *all = the_switch();

	if (all)
		all->on = 0;
	leave(lane, OUTCOME_FAILED);
	return whole ? SK_PASS : SK_DROP;
}

/* Puts the field in at `at`. */
static __always_inline int put_in(struct sk_msg_md *message, struct bpf_sock *sk, struct lane *lane, __u32 begin, __u32 at)
{
	struct propagation *all = the_switch();
	struct propagated *field = &lane->field;
	__u64 key = (__u64)sk;
	__u32 zero = 0;
	void *shared, *data;

	shared = bpf_map_lookup_elem(&propagated_shared, &zero);
	if (!all || !shared)
		return SK_PASS;
	make_field(field, all->threshold);
	field->sequence = begin;
	field->at = at;
	/* First: what is not told of must not be sent. */
	if (bpf_map_update_elem(shared, &key, field, BPF_ANY)) {
		count(OUTCOME_BUSY);
		return SK_PASS;
	}
	if (bpf_msg_push_data(message, at, FIELD_BYTES, 0)) {
		bpf_map_delete_elem(shared, &key);
		return failed(lane, true);
	}
	if (!bpf_msg_pull_data(message, at, at + FIELD_BYTES, 0)) {
		data = (void *)(long)message->data;
		if (data + FIELD_BYTES <= (void *)(long)message->data_end) {
			__builtin_memcpy(data, field->text, FIELD_BYTES);
			lane->boundary += FIELD_BYTES;
			count(OUTCOME_ADDED);
			return SK_PASS;
		}
	}
	bpf_map_delete_elem(shared, &key);
	return failed(lane, !bpf_msg_pop_data(message, at, FIELD_BYTES, 0));
}

/* A message that begins where a request has to begin. */
static __always_inline int request(struct sk_msg_md *message, struct bpf_sock *sk, struct lane *lane, struct tcp_sock *tp)
{
	struct reading *reading = &lane->reading;
	struct reader reader = { message, reading };
	__u32 size = message->size, begin = lane->boundary, wanted, rest;
	int queued, room;

	wanted = size < REQUEST_HEAD_MAX ? size : REQUEST_HEAD_MAX;
	if ((void *)(long)message->data + wanted > (void *)(long)message->data_end &&
	    bpf_msg_pull_data(message, 0, wanted, 0))
		return leave(lane, OUTCOME_SKIPPED);
	__builtin_memset(reading, 0, sizeof(*reading));
	bpf_loop(REQUEST_HEAD_MAX, read_on, &reader, 0);
	switch (reading->state) {
	case READ_DONE:
		break;
	case READ_REFUSED:
		return leave(lane, OUTCOME_NOT_HTTP);
	default:
		return leave(lane, size < REQUEST_HEAD_MAX ? OUTCOME_SPLIT : OUTCOME_TOO_LARGE);
	}
	if (reading->tunnel)
		return leave(lane, OUTCOME_TUNNEL);
	rest = size - reading->position;
	if (!reading->endless && rest > reading->length)
		return leave(lane, OUTCOME_PIPELINED);
	if (reading->endless || reading->length >= LENGTH_MAX)
		leave(lane, OUTCOME_ENDLESS);
	else
		lane->boundary = begin + reading->position + (__u32)reading->length;
	if (reading->has_context) {
		count(OUTCOME_PRESENT);
		return SK_PASS;
	}
	/*
	 * A send that is broken off inside of the field would be begun again by a program that knows nothing of it. The kernel
	 * looks for room when it begins a packet; half of the buffer is room for the few that a head takes.
	 */
	queued = ((struct sock *)tp)->sk_wmem_queued;
	room = ((struct sock *)tp)->sk_sndbuf;
	if (queued > room >> 1) {
		count(OUTCOME_BUSY);
		return SK_PASS;
	}
	return put_in(message, sk, lane, begin, reading->at);
}

SEC("sk_msg")
int propagate_send(struct sk_msg_md *message)
{
	struct bpf_sock *sk = message->sk;
	struct tcp_sock *tp;
	struct lane *lane;
	__u32 at, size = message->size;

	if (!sk)
		return SK_PASS;
	lane = bpf_sk_storage_get(&lanes, sk, NULL, 0);
	if (!lane || lane->stage != STAGE_OPEN)
		return SK_PASS;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || !size)
		return SK_PASS;
	at = tp->write_seq;
	if ((__s32)(at - lane->boundary) < 0) {
		if ((__s32)(at + size - lane->boundary) > 0)
			return leave(lane, OUTCOME_PIPELINED);
		return SK_PASS;
	}
	if (at != lane->boundary || !is_selected(current_process()))
		return leave(lane, OUTCOME_SKIPPED);
	if (would_wait(sk))
		return leave(lane, OUTCOME_BLOCKING);
	if (!the_switch())
		return SK_PASS;
	return request(message, sk, lane, tp);
}

/* Compared with the agent's by a test; not loaded. */
const __u32 propagate_layout[] SEC("layout") __attribute__((used)) = {
	sizeof(struct propagated), sizeof(struct propagation), OUTCOME_MAX, FIELD_BYTES,
};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
