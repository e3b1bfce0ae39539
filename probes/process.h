/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * The bodies of the process hooks.
 *
 * In: fork, exec, exit of any process; sockets that begin to listen.
 * Out: struct process_event in the ring buffer `process_events`, and bits of `selected` that must be set at once so
 * that nothing of a new process is missed: the agent clears them again if it judges otherwise.
 */
#ifndef SPANTAP_PROCESS_H
#define SPANTAP_PROCESS_H

static __always_inline void select_now(__u32 pid)
{
	__u32 word = pid >> 6;
	__u64 *bits = bpf_map_lookup_elem(&selected, &word);
	if (bits)
		SET_BIT(bits, 1ULL << (pid & 63));
}

static __always_inline void deselect_now(__u32 pid)
{
	__u32 word = pid >> 6;
	__u64 *bits = bpf_map_lookup_elem(&selected, &word);
	if (bits)
		CLEAR_BIT(bits, 1ULL << (pid & 63));
}

static __always_inline struct process_event *new_process_event(__u8 kind, __u32 pid, __u64 start)
{
	struct process_event *event = bpf_ringbuf_reserve(&process_events, sizeof(*event), 0);

	if (!event) {
		count_loss(LOSS_PROCESS_RING_FULL);
		return NULL;
	}
	/* Everything but the texts, whose lengths say what is valid. */
	__builtin_memset(event, 0, offsetof(struct process_event, filename));
	event->kind = kind;
	event->pid = pid;
	event->start = start;
	return event;
}

static __always_inline int forked(struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = FIELD(child, tgid), of = FIELD(parent, tgid);
	struct process_event *event;

	if (pid == of || !is_selected(of))
		return 0;
	select_now(pid);
	event = new_process_event(RECORD_FORK, pid, FIELD(child, start_boottime));
	if (!event)
		return 0;
	event->parent = of;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

static __always_inline int executed(struct task_struct *task, struct linux_binprm *program)
{
	struct control *control = the_control();
	struct process_event *event;
	__u64 arguments, length;
	__u32 pid;
	long read;

	if (!control)
		return 0;
	pid = FIELD(task, tgid);
	if (control->provisional_exec)
		select_now(pid);
	event = new_process_event(RECORD_EXEC, pid, FIELD2(task, group_leader, start_boottime));
	if (!event)
		return 0;
	read = bpf_probe_read_kernel_str(event->filename, sizeof(event->filename), FIELD(program, filename));
	event->filename_length = read > 0 ? read - 1 : 0;
	arguments = BPF_CORE_READ(task, mm, arg_start);
	length = BPF_CORE_READ(task, mm, arg_end) - arguments;
	if (length > ARGUMENT_BYTES)
		length = ARGUMENT_BYTES;
	if (!bpf_probe_read_user(event->arguments, length, (void *)arguments))
		event->arguments_length = length;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

static __always_inline int exited(struct task_struct *task)
{
	struct process_event *event;
	__u32 pid = FIELD(task, tgid);

	if (!is_selected(pid) || BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	deselect_now(pid);
#ifndef SPANTAP_TABLE
	bpf_map_delete_elem(&tls_processes, &pid);
#endif
	event = new_process_event(RECORD_EXIT, pid, FIELD2(task, group_leader, start_boottime));
	if (event)
		bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/* A socket begins to listen, in the process that called listen(). */
static __always_inline int listening(struct sock *sk)
{
	struct task_struct *task = current_task();
	__u32 pid = bpf_get_current_pid_tgid() >> 32, port = FIELD(sk, __sk_common.skc_num), word = port >> 6;
	__u64 *bits = bpf_map_lookup_elem(&ports, &word);
	struct process_event *event;

	if (!bits || !((*bits >> (port & 63)) & 1))
		return 0;
	select_now(pid);
	event = new_process_event(RECORD_LISTEN, pid, FIELD2(task, group_leader, start_boottime));
	if (!event)
		return 0;
	event->port = port;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

#endif
