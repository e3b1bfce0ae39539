/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The two ways to the kernel's memory and to the state of a socket: this file is all that differs between the two objects.
 *
 * In: kernel pointers. Out: their fields, the current task, the state of a socket.
 *
 * The first object follows typed pointers, which the verifier checks, and keeps the state with the socket (sk_storage): its
 * programs are fentry, fexit and BTF tracepoints, Linux 5.11 and later. The second (SPANTAP_TABLE) reads every field by a
 * helper and keeps the state in a table: for kprobes, which have neither on any kernel, and for fentry on Linux 5.10.
 */
#ifndef SPANTAP_ACCESS_H
#define SPANTAP_ACCESS_H

/*
 * `value`, at most `most`, as one number of 64 bits that the compiler knows nothing of. Where it knows more it bounds another
 * register than it hands over, or a part of one; and the verifiers of 5.10 and 6.1 forget bounds of what was put on the stack
 * in between. For sizes, where they are handed over.
 */
#define BOUND(value, most)                        \
	({                                        \
		__u64 bounded = (value);          \
		asm volatile("" : "+r"(bounded)); \
		if (bounded > (most))             \
			bounded = (most);         \
		bounded;                          \
	})

#ifdef SPANTAP_TABLE

#define FIELD(pointer, field) BPF_CORE_READ(pointer, field)
#define FIELD2(pointer, first, second) BPF_CORE_READ(pointer, first, second)

/*
 * Functions that the verifier looks at once for each program that calls them, however often. Their pointer arguments have a known size
 * from 5.12 on only: here they are inlined.
 */
#define SHARED static __always_inline
#define NOT_INLINED static __noinline

/* __sync_fetch_and_or and _and are atomic operations of 5.12 and later. Nobody else changes the same bit meanwhile. */
#define SET_BIT(word, bit) ({ if (!(*(word) & (bit))) __sync_fetch_and_add(word, bit); })
#define CLEAR_BIT(word, bit) ({ if (*(word) & (bit)) __sync_fetch_and_add(word, -(bit)); })

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

static __always_inline struct tcp_sock *tcp_of(struct sock *sk)
{
	return (struct tcp_sock *)sk;
}

/* The kernel's cookie may not be made yet, and no helper makes it here: this one is unlike any that the kernel counts up to. */
static __always_inline __u64 cookie_of(struct sock *sk)
{
	__u64 unique = bpf_ktime_get_ns() << 7 | (bpf_get_smp_processor_id() & 127);

	return 1ULL << 60 | (unique & ((1ULL << 60) - 1));
}

static __always_inline struct socket_state *find_state(struct sock *sk)
{
	__u64 key = (__u64)sk;
	return bpf_map_lookup_elem(&socket_states, &key);
}

/* Of the other end of a Unix socket: known once that has moved bytes. */
static __always_inline __u64 cookie_of_peer(struct sock *peer)
{
	struct socket_state *state = find_state(peer);

	return state ? state->cookie : 0;
}

static __always_inline struct socket_state *make_state(struct sock *sk)
{
	struct socket_state fresh = {}, *state = find_state(sk);
	__u64 key = (__u64)sk;

	if (state)
		return state;
	bpf_map_update_elem(&socket_states, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&socket_states, &key);
}

/* The socket at this address is another one from now on, or none. */
static __always_inline int forget_state(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&socket_states, &key);
	return 0;
}

#else

#define FIELD(pointer, field) ((pointer)->field)
#define FIELD2(pointer, first, second) ((pointer)->first->second)
#define SHARED __noinline
#define NOT_INLINED __noinline
#define SET_BIT(word, bit) __sync_fetch_and_or(word, bit)
#define CLEAR_BIT(word, bit) __sync_fetch_and_and(word, ~(bit))

static __always_inline struct task_struct *current_task(void)
{
	return bpf_get_current_task_btf();
}

static __always_inline struct tcp_sock *tcp_of(struct sock *sk)
{
	return bpf_skc_to_tcp_sock(sk);
}

static __always_inline __u64 cookie_of(struct sock *sk)
{
	return bpf_get_socket_cookie(sk);
}

/* `peer` was read from another socket, which the verifier does not follow. */
static __always_inline __u64 cookie_of_peer(struct sock *peer)
{
	return BPF_CORE_READ(peer, __sk_common.skc_cookie.counter);
}

static __always_inline struct socket_state *find_state(struct sock *sk)
{
	return bpf_sk_storage_get(&socket_states, sk, NULL, 0);
}

static __always_inline struct socket_state *make_state(struct sock *sk)
{
	return bpf_sk_storage_get(&socket_states, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
}

/* It goes with the socket. */
static __always_inline int forget_state(struct sock *sk)
{
	return 0;
}

#endif

#endif
