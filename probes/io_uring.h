/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * io_uring: the completion of a request leads to its data.
 *
 * In: a completed request, and the record that `defer` left for its socket. Out: that record, with its head.
 */
#ifndef SPANTAP_IO_URING_H
#define SPANTAP_IO_URING_H

/* include/uapi/linux/io_uring.h, enum io_uring_op */
enum {
	IORING_OP_READV = 1,
	IORING_OP_WRITEV = 2,
	IORING_OP_SENDMSG = 9,
	IORING_OP_RECVMSG = 10,
	IORING_OP_READ = 22,
	IORING_OP_WRITE = 23,
	IORING_OP_SEND = 26,
	IORING_OP_RECV = 27,
};

static __always_inline int io_uring_completed(struct io_kiocb *request)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32, owner = SCRATCH_IO_URING, want, size;
	struct socket_event *waiting;
	struct scratch *scratch;
	struct control *control;
	struct data data = {};
	struct socket *socket;
	__u64 key, flags;
	__u8 opcode;

	if (!request || !is_selected(pid))
		return 0;
	opcode = BPF_CORE_READ(request, opcode);
	switch (opcode) {
	case IORING_OP_SEND:
	case IORING_OP_SENDMSG:
	case IORING_OP_WRITE:
	case IORING_OP_WRITEV:
		key = RECORD_SEND;
		break;
	case IORING_OP_RECV:
	case IORING_OP_RECVMSG:
	case IORING_OP_READ:
	case IORING_OP_READV:
		key = RECORD_RECEIVE;
		break;
	default:
		return 0;
	}
	socket = (struct socket *)BPF_CORE_READ(request, file, private_data);
	key += (__u64)BPF_CORE_READ(socket, sk);
	waiting = bpf_map_lookup_elem(&io_uring_pending, &key);
	control = the_control();
	scratch = bpf_map_lookup_elem(&scratches, &owner);
	if (!waiting || !control || !scratch)
		return 0;
	scratch->event = *waiting;
	bpf_map_delete_elem(&io_uring_pending, &key);

	switch (opcode) {
	case IORING_OP_SEND:
	case IORING_OP_RECV:
		data.address = (__u64)BPF_CORE_READ((struct io_sr_msg *)request, buf);
		data.segments = 1;
		break;
	case IORING_OP_SENDMSG:
	case IORING_OP_RECVMSG:
		data_of_user_msghdr(&data, (__u64)BPF_CORE_READ((struct io_sr_msg *)request, umsg));
		break;
	case IORING_OP_READ:
	case IORING_OP_WRITE:
		data.address = BPF_CORE_READ((struct io_rw *)request, addr);
		data.segments = 1;
		break;
	default:
		/* READV, WRITEV: the count of segments follows the address in every kernel so far. */
		data.address = BPF_CORE_READ((struct io_rw *)request, addr);
		data.segments = BPF_CORE_READ((struct io_rw *)request, len) + 1;
		break;
	}
	want = scratch->event.length < control->head_bytes ? scratch->event.length : control->head_bytes;
	if (copy_data(scratch, &data, scratch->event.length, want)) {
		scratch->event.flags |= FLAG_UNREADABLE;
		count_loss(LOSS_HEAD_UNREADABLE);
	}
	size = sizeof(scratch->event) + scratch->event.head_length;
	flags = wake_flags(scratch, control, size);
	if (bpf_ringbuf_output(&socket_events, scratch, BOUND(size, sizeof(scratch->event) + HEAD_MAX), flags))
		count_loss(LOSS_RING_FULL_OTHER);
	return 0;
}

#endif
