/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Sends that were given a `traceparent` in the kernel: the program's call knows nothing of these bytes, the stream has them.
 *
 * In: a send that has completed, what propagate.bpf.c noted of it. Out: the field at the end of the record's head, marked by
 * FLAG_PROPAGATED, with its place in `pad`; length and offsets are those of the stream, as the other end sees it.
 */
#ifndef SPANTAP_PROPAGATED_H
#define SPANTAP_PROPAGATED_H

#ifdef SPANTAP_TABLE

static __always_inline __u32 propagated_bytes(struct sock *sk, __u32 first)
{
	return 0;
}

static __always_inline void forget_propagated(struct sock *sk)
{
}

static __always_inline void append_propagated(struct sock *sk, struct scratch *scratch)
{
}

#else

/* Empty, and of no cost, unless requests are given a field. Removed when the send is told. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PROPAGATED_MAX);
	__type(key, __u64);
	__type(value, struct propagated);
} propagated SEC(".maps");

/* Fields that no event could be told with. Not read here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} propagated_untold SEC(".maps");

static __always_inline void forget_propagated(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&propagated, &key);
}

/*
 * How many bytes were put into a send: all of a field, or none. `first` is
 * where the program's own bytes would begin if nothing had been put in.
 */
static __always_inline __u32 propagated_bytes(struct sock *sk, __u32 first)
{
	__u64 key = (__u64)sk, *untold;
	struct propagated *found = bpf_map_lookup_elem(&propagated, &key);
	__u32 zero = 0;

	if (!found)
		return 0;
	if (found->sequence == first - FIELD_BYTES)
		return FIELD_BYTES;
	bpf_map_delete_elem(&propagated, &key);
	untold = bpf_map_lookup_elem(&propagated_untold, &zero);
	if (untold)
		__sync_fetch_and_add(untold, 1);
	return 0;
}

SHARED int append_field(struct scratch *scratch)
{
	struct socket_event *event;
	struct propagated *found;
	__u64 key;

	if (!scratch)
		return 0;
	key = scratch->socket;
	found = bpf_map_lookup_elem(&propagated, &key);
	event = &scratch->event;
	event->flags &= ~FLAG_PROPAGATED;
	if (!found)
		return 0;
	/* In one call: a copy of its own goes byte by byte, to a place that is aligned to none. */
	if (bpf_probe_read_kernel(&scratch->head[BOUND(event->head_length, HEAD_MAX)], FIELD_BYTES, found->text))
		return 0;
	event->pad = found->at;
	event->flags |= FLAG_PROPAGATED;
	event->head_length += FIELD_BYTES;
	event->length += FIELD_BYTES;
	bpf_map_delete_elem(&propagated, &key);
	return 0;
}

static __always_inline void append_propagated(struct sock *sk, struct scratch *scratch)
{
	scratch->socket = (__u64)sk;
	append_field(scratch);
}

#endif

#endif
