/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Functions that wait for a promise of Node's to be settled, and for which request.
 *
 * In: the functions of a reaction as it is stored, as it runs, and when V8 has moved objects. Out: the request that it was stored for.
 *
 * A reaction is known by the address of its function. V8 moves objects when it collects garbage and leaves the new address in
 * the place of the old object's first word; so all that wait are looked through then.
 *
 * Some fifty times for a request with fetch: so this is a table of its own, in an array. One of the kernel's that forgets what was unused
 * for longest takes 0.5 to 0.7 µs for each change, of which there would be four for each promise.
 */
#ifndef SPANTAP_NODE_REACTIONS_H
#define SPANTAP_NODE_REACTIONS_H

#define NODE_BUCKETS 8192 /* a power of two */
#define NODE_WAYS 4       /* places of a bucket, a power of two */

struct node_reaction {
	struct node_request serves;
	__u64 other;             /* address of the function for the other outcome */
	__u32 thread;            /* objects belong to one */
	__u32 check;             /* of all of this, with the address: what two threads wrote at once is none of both */
};

struct node_bucket {
	__u64 address[NODE_WAYS]; /* with V8's tag: an object has 1 in its two lowest bits */
	__u64 age[NODE_WAYS];    /* how many were there before; 0: nothing is there, so the one with the least is the place for the next */
	__u64 filled;            /* how many were there */
	struct node_reaction reaction[NODE_WAYS];
};

/* Not every promise is settled: what waits in vain goes when its place is needed, and is the oldest of its bucket. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NODE_BUCKETS);
	__type(key, __u32);
	__type(value, struct node_bucket);
} node_reactions SEC(".maps");

#define NODE_IS_OBJECT(address) (((address) & 3) == 1)

/* A function takes 64 bytes: neighbours share a bucket, so those made one after another are near each other here as well. */
static __always_inline struct node_bucket *node_bucket(__u32 thread, __u64 address)
{
	__u32 bucket = ((__u32)(address >> 7) + thread * 40503) & (NODE_BUCKETS - 1);

	return bpf_map_lookup_elem(&node_reactions, &bucket);
}

static __always_inline __u32 node_check(__u64 address, const struct node_reaction *reaction)
{
	__u64 sum = address + reaction->other * 3 + reaction->serves.socket * 5 + reaction->serves.began * 7 + reaction->thread;

	return sum ^ sum >> 32;
}

static __always_inline void node_empty(struct node_bucket *bucket, int way)
{
	*(volatile __u64 *)&bucket->address[way] = 0;
	*(volatile __u64 *)&bucket->age[way] = 0;
}

/* Forgets a function, if it is there. `reaction`: where what was known of it shall stand, or NULL. */
SHARED int node_take(__u64 address, struct node_reaction *reaction)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct node_bucket *bucket = node_bucket(thread, address);

	if (!bucket || !address)
		return 0;
	for (int i = 0; i < NODE_WAYS; i++) {
		if (bucket->address[i] != address || bucket->reaction[i].thread != thread)
			continue;
		if (reaction)
			*reaction = bucket->reaction[i];
		node_empty(bucket, i);
		return 1;
	}
	return 0;
}

/* A function waits for `serves`. Its place is found without a branch, which the verifier would follow. */
SHARED int node_keep(__u64 address, __u64 other, const struct node_request *serves)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct node_bucket *bucket = node_bucket(thread, address);
	__u64 way = 0, least = ~0ULL >> 1;
	struct node_reaction *reaction;

	if (!bucket || !serves)
		return 0;
	for (int i = 0; i < NODE_WAYS; i++) {
		/* Its own place is less than any. */
		__u64 age = (bucket->age[i] + 1) & node_is_some(bucket->address[i] ^ address);
		__u64 is_less = -((age - least) >> 63);

		asm volatile("" : "+r"(is_less));
		least ^= (least ^ age) & is_less;
		way ^= (way ^ i) & is_less;
	}
	way &= NODE_WAYS - 1;
	reaction = &bucket->reaction[way];
	*(volatile __u64 *)&bucket->address[way] = 0;
	reaction->serves = *serves;
	reaction->other = other;
	reaction->thread = thread;
	reaction->check = node_check(address, reaction);
	bucket->age[way] = ++bucket->filled;
	*(volatile __u64 *)&bucket->address[way] = address;
	return 0;
}

/* The functions of a reaction wait for `serves`. What waits for nobody is nowhere, nor is what lay there before. */
static __always_inline void node_keep_both(__u64 fulfilled, __u64 rejected, const struct node_request *serves)
{
	if (NODE_IS_OBJECT(fulfilled)) {
		if (serves->socket)
			node_keep(fulfilled, rejected, serves);
		else
			node_take(fulfilled, NULL);
	}
	if (NODE_IS_OBJECT(rejected)) {
		if (serves->socket)
			node_keep(rejected, fulfilled, serves);
		else
			node_take(rejected, NULL);
	}
}

/* One of them runs: for whom, and none of both waits any more. */
static __always_inline void node_runs(__u64 address, struct node_request *serves)
{
	struct node_reaction reaction = {};

	if (!node_take(address, &reaction))
		return;
	node_take(reaction.other, NULL);
	if (reaction.check == node_check(address, &reaction))
		*serves = reaction.serves;
}

/* Where V8 has moved an object to; the same if it has not; 0: it cannot be read. */
static __always_inline __u64 node_now_at(__u64 address)
{
	__u64 word = 0;

	if (bpf_probe_read_user(&word, sizeof(word), (void *)(address - 1)))
		return 0;
	return word & 1 || !word ? address : word + 1;
}

static long node_moved(void *map, __u32 *key, struct node_bucket *bucket, __u32 *thread)
{
	for (int i = 0; i < NODE_WAYS; i++) {
		__u64 address = bucket->address[i], now;
		struct node_reaction reaction;

		if (!address || bucket->reaction[i].thread != *thread)
			continue;
		now = node_now_at(address);
		if (now == address)
			continue;
		reaction = bucket->reaction[i];
		node_empty(bucket, i);
		if (!now || reaction.check != node_check(address, &reaction))
			continue;
		if (NODE_IS_OBJECT(reaction.other))
			reaction.other = node_now_at(reaction.other);
		node_keep(now, reaction.other, &reaction.serves);
	}
	return 0;
}

#endif
