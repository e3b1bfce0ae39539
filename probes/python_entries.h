/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Entry points at functions of CPython and of uvloop.
 *
 * In: a context is made, entered, called soon; a stream of uvloop is given bytes, or writes them. Out: what each belongs
 * to, in the maps of python_link.h. Programs that are not linked cost one look-up.
 */
#ifndef SPANTAP_PYTHON_ENTRIES_H
#define SPANTAP_PYTHON_ENTRIES_H

/* PyObject *PyContext_CopyCurrent(void), or whatever else makes contexts, has made this one. */
static __noinline int python_copied(__u64 made)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct python_object current = {}, copy = {};
	struct python_request *found, serves = {};
	struct linked_program *program;
	struct python_thread *thread;

	copy.pid = pid_tgid >> 32;
	copy.address = made;
	if (!copy.address || !linked_may_be(copy.pid))
		return 0;
	program = linked_program_of(copy.pid);
	thread = program ? python_thread_of(pid_tgid) : NULL;
	if (!thread)
		return 0;
	found = python_serves(program, thread, copy.pid, &current);
	if (found && current.address != copy.address) {
		serves = *found;
		serves.here = 0;
	}
	python_belongs(&copy, &serves);
	return 0;
}

/* Where they return. */
SEC("uretprobe")
int py_copied(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return python_copied(FUNCTION_RESULT(regs));
}

/* Within them, where it stands in a register already (probe-agent/src/tls/python/made.rs). */
SEC("uprobe")
int py_made(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return python_copied(HELD(regs));
}

/* int call_soon([state,] loop, function, argument, context) of _asyncio: a task that waited goes on. */
static __noinline int python_calls(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), fifth;
	struct python_object current = {}, called = {};
	struct python_request *found, serves;
	struct linked_program *program;
	struct python_thread *thread;

	called.pid = pid_tgid >> 32;
	called.address = FUNCTION_ARGUMENT4(regs);
	/* The verifier takes no choice between two places of the registers. */
	fifth = FUNCTION_ARGUMENT5(regs);
	asm volatile("" : "+r"(fifth));
	if (!linked_may_be(called.pid))
		return 0;
	thread = bpf_map_lookup_elem(&python_threads, &pid_tgid);
	if (!thread || !thread->receiving)
		return 0;
	/* Most calls come from elsewhere; what follows proves what is read here. */
	if (bpf_probe_read_user(&current.address, sizeof(current.address), (void *)thread->current) ||
	    current.address != thread->receiving)
		return 0;
	program = linked_program_of(called.pid);
	if (!program)
		return 0;
	if (program->calls_with_state)
		called.address = fifth;
	if (!called.address)
		return 0;
	found = python_serves(program, thread, called.pid, &current);
	if (!found || !found->here || current.address == called.address)
		return 0;
	serves = *found;
	serves.here = 0;
	python_belongs(&called, &serves);
	return 0;
}

SEC("uprobe")
int py_calls(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return python_calls(regs);
}

/* int PyContext_Enter(PyObject *): uvloop handles what it has received at once. */
SEC("uprobe")
int py_enters(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct python_object entered = {};
	struct python_thread *thread;

	STACK_OF_THE_THREAD(regs);
	entered.pid = pid_tgid >> 32;
	entered.address = FUNCTION_ARGUMENT1(regs);
	if (!linked_may_be(entered.pid))
		return 0;
	thread = bpf_map_lookup_elem(&python_threads, &pid_tgid);
	if (!thread)
		return 0;
	thread->writes.socket = 0;
	if (thread->waits.socket) {
		python_belongs(&entered, &thread->waits);
		thread->receiving = entered.address;
		thread->waits.socket = 0;
	} else if (thread->receiving == entered.address) {
		/* All connections of a server have one: what it is entered for now is not that request. */
		thread->receiving = 0;
		python_belongs(&entered, &thread->waits);
	}
	return 0;
}

/* UVStream._buffer_write(self, bytes) */
static __noinline int python_buffers(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct python_object current = {}, stream = {};
	struct python_request *found, serves;
	struct linked_program *program;
	struct python_thread *thread;

	stream.pid = pid_tgid >> 32;
	stream.address = FUNCTION_ARGUMENT1(regs);
	if (!linked_may_be(stream.pid))
		return 0;
	program = linked_program_of(stream.pid);
	thread = program ? python_thread_of(pid_tgid) : NULL;
	if (!thread)
		return 0;
	found = python_serves(program, thread, stream.pid, &current);
	if (!found) {
		bpf_map_delete_elem(&python_streams, &stream);
		return 0;
	}
	serves = *found;
	bpf_map_update_elem(&python_streams, &stream, &serves, BPF_ANY);
	return 0;
}

SEC("uprobe")
int py_buffers(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return python_buffers(regs);
}

/* UVStream._exec_write(self): its bytes are sent within this call. */
SEC("uprobe")
int py_writes(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct python_object stream = {};
	struct python_request *found;
	struct python_thread *thread;

	STACK_OF_THE_THREAD(regs);
	stream.pid = pid_tgid >> 32;
	stream.address = FUNCTION_ARGUMENT1(regs);
	if (!linked_may_be(stream.pid))
		return 0;
	thread = python_thread_of(pid_tgid);
	if (!thread)
		return 0;
	thread->writes.socket = 0;
	found = bpf_map_lookup_elem(&python_streams, &stream);
	if (!found)
		return 0;
	thread->writes = *found;
	bpf_map_delete_elem(&python_streams, &stream);
	return 0;
}

#endif
