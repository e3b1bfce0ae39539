/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Where the bytes of a send or receive lie in user memory, and copying the head and tail of them.
 *
 * In: a struct data (from the saved registers of the system call, or from the iterator of tcp_sendmsg_locked).
 * Out: bytes in the scratch record.
 */
#ifndef SPANTAP_DATA_H
#define SPANTAP_DATA_H

/* Segments of one call that are looked at; most calls have one to three. */
#define SEGMENTS_MAX 12

struct data {
	__u64 address;    /* the data, or the array of iovecs */
	__u64 skip;       /* bytes of the first segment to skip */
	__u32 segments;   /* 0: cannot be read; 1: address is the data; n + 1: address is an array of n iovecs */
	bool kernel_array; /* the array of iovecs is the kernel's copy */
};

static __always_inline void data_of_user_msghdr(struct data *data, __u64 address)
{
	struct user_msghdr___user {
		void *msg_name;
		int msg_namelen;
		struct iovec *msg_iov;
		__u64 msg_iovlen;
	} header = {};

	if (bpf_probe_read_user(&header, sizeof(header), (void *)address))
		return;
	data->address = (__u64)header.msg_iov;
	data->segments = header.msg_iovlen < 1024 ? (__u32)header.msg_iovlen + 1 : 0;
}

/*
 * The data of the system call that `task` is in. Leaves segments at 0 where it is none of the calls that carry
 * the address of their data. Returns true if the call is io_uring's, whose requests carry their addresses themselves.
 */
static __always_inline bool data_of_system_call(struct data *data, struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	switch (SYSCALL_NUMBER(regs)) {
	case SYS_READ:
	case SYS_WRITE:
	case SYS_SENDTO:
	case SYS_RECVFROM:
		data->address = ARGUMENT2(regs);
		data->segments = 1;
		break;
	case SYS_READV:
	case SYS_WRITEV:
	case SYS_PREADV2:
	case SYS_PWRITEV2:
		data->address = ARGUMENT2(regs);
		data->segments = ARGUMENT3(regs) < 1024 ? (__u32)ARGUMENT3(regs) + 1 : 0;
		break;
	case SYS_SENDMSG:
	case SYS_RECVMSG:
		data_of_user_msghdr(data, ARGUMENT2(regs));
		break;
	case SYS_IO_URING_ENTER:
		return true;
	}
	return false;
}

/*
 * Copies the head and tail of data that lies in several segments, as scratch->walk says. A function of its own, not
 * inlined, so that the verifier looks at the loop once, and with its state in the map value, not in registers, so that
 * each pass looks the same to it.
 */
__noinline int copy_segments(struct scratch *scratch)
{
	struct walk *walk;

	if (!scratch)
		return 0;
	walk = &scratch->walk;
	for (__u32 i = 0; i < SEGMENTS_MAX; i++) {
		const void *place = (const void *)(walk->segments + i * sizeof(walk->segment));
		__u64 base, bytes, position = walk->position, skip = walk->skip;
		__u32 got = walk->got;

		if (i >= walk->count || position >= walk->length)
			break;
		if (walk->kernel_array ? bpf_probe_read_kernel(&walk->segment, sizeof(walk->segment), place)
				       : bpf_probe_read_user(&walk->segment, sizeof(walk->segment), place))
			break;
		base = walk->segment.base;
		bytes = walk->segment.length;
		if (skip >= bytes) {
			walk->skip = skip - bytes;
			continue;
		}
		walk->skip = 0;
		base += skip;
		bytes -= skip;
		if (bytes > walk->length - position)
			bytes = walk->length - position;
		if (got < walk->want && got == position && got < HEAD_MAX) {
			__u64 part = walk->want - got;

			if (part > bytes)
				part = bytes;
			if (part > HEAD_MAX)
				part = HEAD_MAX;
			if (!bpf_probe_read_user(&scratch->head[got], part, (void *)base))
				walk->got = got + part;
		}
		walk->position = position + bytes;
		if (position + bytes == walk->length) {
			__u32 tail = walk->tail;

			if (tail && tail <= TAIL_BYTES && bytes >= tail &&
			    !bpf_probe_read_user(scratch->event.tail, tail, (void *)(base + bytes - tail)))
				scratch->event.tail_length = tail;
			break;
		}
	}
	return 0;
}

/*
 * Copies the first `want` bytes (<= HEAD_MAX) of `length` into the record, and the last TAIL_BYTES where the head
 * does not reach the end. Returns 0, or -1 if nothing could be read although something was wanted.
 */
static __always_inline int copy_data(struct scratch *scratch, const struct data *data, __u32 length, __u32 want)
{
	struct socket_event *event = &scratch->event;
	struct walk *walk = &scratch->walk;
	__u32 tail = 0;

	if (want > HEAD_MAX)
		want = HEAD_MAX;
	if (want < length)
		tail = length - want < TAIL_BYTES ? length - want : TAIL_BYTES;

	if (data->segments == 1) {
		if (want && bpf_probe_read_user(scratch->head, want, (void *)(data->address + data->skip)))
			return -1;
		event->head_length = want;
		if (tail && !bpf_probe_read_user(event->tail, tail,
						 (void *)(data->address + data->skip + length - tail)))
			event->tail_length = tail;
		return 0;
	}
	walk->segments = data->address;
	walk->count = data->segments - 1;
	walk->kernel_array = data->kernel_array;
	walk->position = 0;
	walk->skip = data->skip;
	walk->length = length;
	walk->want = want;
	walk->tail = tail;
	walk->got = 0;
	copy_segments(scratch);
	event->head_length = walk->got;
	return want && !walk->got ? -1 : 0;
}

#endif
