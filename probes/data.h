/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Where the bytes of a send or receive lie in user memory, and copying the head and tail of them.
 *
 * In: a struct data (from the kernel's iterator, or from the saved registers of the system call).
 * Out: bytes in the scratch record.
 */
#ifndef SPANTAP_DATA_H
#define SPANTAP_DATA_H

/* Segments of one call that are looked at; most calls have one to three. */
#define SEGMENTS_MAX 12

#define PF_IO_WORKER 0x10

/*
 * A place where the verifier compares what it knows with what it knew when it came by before: it does so only at jumps. `pointer`
 * is known to be none of 0, so that nothing branches.
 */
#define COMPARE_HERE(pointer) asm volatile("if %0 == 0 goto +0" : : "r"(pointer) : "memory")

/* Puts a value where neither compiler nor verifier knows it any more. */
#define FORGET(place, value) ({ (place) = (value); asm volatile("" : : : "memory"); })

/* Where the data of a message lies, from the iterator that the kernel made for it; segments stay 0 for pages. */
static __always_inline void data_of_iterator(struct data *data, const struct msghdr *msg)
{
	__u32 type;

	data->kernel_array = true;
	data->skip = FIELD(msg, msg_iter.iov_offset);
	/* Until 5.13 the kind and the direction stood in one field. */
	if (bpf_core_field_exists(struct iov_iter, iter_type))
		type = FIELD(msg, msg_iter.iter_type);
	else
		type = FIELD((const struct msghdr___510 *)msg, msg_iter.type) & ~1u;
	/* From 6.0 on one segment has a kind of its own. */
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF)) {
		if (type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
			data->address = (__u64)FIELD(msg, msg_iter.ubuf);
			data->segments = 1;
			return;
		}
	}
	if (type == bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		__u64 count = FIELD(msg, msg_iter.nr_segs);

		if (bpf_core_field_exists(struct iov_iter, __iov))
			data->address = (__u64)FIELD(msg, msg_iter.__iov);
		else
			data->address = (__u64)FIELD((const struct msghdr___63 *)msg, msg_iter.iov);
		data->segments = count < 1024 ? (__u32)count + 1 : 0;
	}
}

#ifdef SPANTAP_TABLE

/* The registers of the system call are not to be had on 5.10. */
static __always_inline bool data_of_current(struct data *data, struct task_struct *task)
{
	return false;
}

#else

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

/* The data of the call that `task` is in, where it was not seen to begin. Returns true if io_uring makes it. */
static __always_inline bool data_of_current(struct data *data, struct task_struct *task)
{
	return task->flags & PF_IO_WORKER || data_of_system_call(data, task);
}

#endif

/*
 * Copies what is due of the next segment, as scratch->walk says. Returns whether the walk goes on. Functions of their own, not inlined,
 * so that the verifier looks at each once, and with their state in the map value, not in registers, so that each pass looks the
 * same to it.
 */
SHARED int copy_segment(struct scratch *scratch)
{
	__u64 base, bytes, position, skip;
	const void *place;
	struct walk *walk;
	__u32 got;

	if (!scratch)
		return 0;
	walk = &scratch->walk;
	position = walk->position;
	skip = walk->skip;
	got = walk->got;
	place = (const void *)(walk->segments + walk->next * sizeof(walk->segment));
	if (walk->next >= walk->count || position >= walk->length)
		return 0;
	if (walk->kernel_array ? bpf_probe_read_kernel(&walk->segment, sizeof(walk->segment), place)
			       : bpf_probe_read_user(&walk->segment, sizeof(walk->segment), place))
		return 0;
	walk->next++;
	base = walk->segment.base;
	bytes = walk->segment.length;
	if (skip >= bytes) {
		walk->skip = skip - bytes;
		return 1;
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
		if (part > HEAD_PIECE) {
			/* The rest of this segment is the next pass's. */
			part = HEAD_PIECE;
			bytes = HEAD_PIECE;
			walk->next--;
			walk->skip = skip + HEAD_PIECE;
		}
		if (!bpf_probe_read_user(&scratch->head[got], BOUND(part, HEAD_PIECE), (void *)base))
			walk->got = got + part;
	}
	walk->position = position + bytes;
	if (position + bytes == walk->length) {
		__u32 tail = walk->tail;

		if (tail && bytes >= tail &&
		    !bpf_probe_read_user(scratch->event.tail, BOUND(tail, TAIL_BYTES), (void *)(base + bytes - tail)))
			scratch->event.tail_length = tail;
		return 0;
	}
	return 1;
}

/* Copies the head and tail of data that lies in several segments, as scratch->walk says. */
NOT_INLINED int copy_segments(struct scratch *scratch)
{
	for (__u32 i = 0; i < SEGMENTS_MAX + HEAD_MAX / HEAD_PIECE - 1; i++) {
		if (!copy_segment(scratch))
			break;
	}
	return 0;
}

/*
 * Copies the first `want` bytes (<= HEAD_MAX) of `length` into the record, and the last TAIL_BYTES where the head
 * does not reach the end. Returns 0, or -1 if nothing could be read although something was wanted.
 */
static __always_inline int copy_data_here(struct scratch *scratch, const struct data *data, __u32 length, __u32 want)
{
	struct socket_event *event = &scratch->event;
	struct walk *walk = &scratch->walk;
	__u32 tail = 0;

	if (want > HEAD_MAX)
		want = HEAD_MAX;
	if (want < length)
		tail = length - want < TAIL_BYTES ? length - want : TAIL_BYTES;
	FORGET(walk->want, want);
	FORGET(walk->tail, tail);
	want = walk->want;
	tail = walk->tail;

	if (data->segments == 1) {
		const void *place = (const void *)(data->address + data->skip);

		if (want && bpf_probe_read_user(scratch->head, BOUND(want, HEAD_MAX), place))
			return -1;
		event->head_length = want;
		place += length - tail;
		if (tail && !bpf_probe_read_user(event->tail, BOUND(tail, TAIL_BYTES), place))
			event->tail_length = tail;
		return 0;
	}
	walk->segments = data->address;
	walk->count = data->segments - 1;
	walk->kernel_array = data->kernel_array;
	walk->position = 0;
	walk->skip = data->skip;
	walk->length = length;
	walk->got = 0;
	walk->next = 0;
	copy_segments(scratch);
	event->head_length = walk->got;
	return want && !walk->got ? -1 : 0;
}

/* The same, where it is not the usual way: the verifier looks at it once. */
SHARED int copy_data(struct scratch *scratch, const struct data *data, __u32 length, __u32 want)
{
	if (!scratch || !data)
		return -1;
	return copy_data_here(scratch, data, length, want);
}

#endif
