/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Entry points at functions of Node 20, 22 and 24, libuv and V8 in one file; see node.h. Nothing is written, no return is caught.
 *
 * In: a callback begins, a thing that will call back is made, a reaction to a promise is stored or runs, V8 has moved objects.
 * Out: what is known of the thread, and of reactions that wait.
 */
#ifndef SPANTAP_NODE_ENTRIES_H
#define SPANTAP_NODE_ENTRIES_H

#include "node_reactions.h"

/* node::async_context: doubles */
struct node_context {
	__u64 executed;
	__u64 trigger;
};

/* What will be executed stands there. */
static __always_inline void node_executes(struct node_thread *thread, __u64 address)
{
	struct node_context context;
	__u64 executed, trigger, wrong = 0;

	if (bpf_probe_read_user(&context, sizeof(context), (void *)address))
		return;
	executed = node_whole(context.executed, &wrong);
	trigger = node_whole(context.trigger, &wrong);
	if (wrong || !executed || executed > thread->counter)
		return;
	thread->executed = executed;
	node_serves(thread, executed, trigger);
	/* As they will stand in memory: unless they do not, or others are given, the next look has nothing to do. */
	thread->seen[0] = context.executed;
	thread->seen[1] = context.trigger;
	thread->changed = 0;
}

/*
 * InternalCallbackScope(Environment *, …, const async_context &, …): the one function that each thread passes, with where its
 * numbers are. What it will execute is not among them yet.
 */
static __noinline int node_enters(struct pt_regs *regs, __u64 offset, __u64 context)
{
	__u64 environment = FUNCTION_ARGUMENT2(regs), pid_tgid = bpf_get_current_pid_tgid(), fields = 0;
	__u32 number = (__u32)pid_tgid, zero = 0;
	struct node_thread *thread;
	struct node_thread fresh;
	struct node_fields read;
	__u64 bits[4], *any;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	if (bpf_probe_read_user(&fields, sizeof(fields), (void *)(environment + offset)) || !fields)
		return 0;
	thread = node_this();
	if (thread && thread->fields == fields) {
		if (node_look_here(thread))
			node_executes(thread, context);
		return 0;
	}
	__builtin_memset(&fresh, 0, sizeof(fresh));
	if (bpf_probe_read_user(bits, sizeof(bits), (void *)fields) || !node_numbers(bits, &read))
		return 0;
	fresh.start = bpf_get_current_task_btf()->start_boottime;
	fresh.fields = fields;
	fresh.counter = read.counter;
	fresh.executed = read.executed;
	any = bpf_map_lookup_elem(&node_any, &zero);
	if (!any)
		return 0;
	fresh.place = thread ? thread->place : *any % NODE_PLACES * NODE_IDS;
	++*any;
	bpf_map_update_elem(&node_threads, &number, &fresh, BPF_ANY);
	return 0;
}

SEC("uprobe")
int node_scope_a(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return node_enters(regs, 0x480, FUNCTION_ARGUMENT4(regs));
}

/* Since Node 22 the argument before it takes two registers. */
SEC("uprobe")
int node_scope_b(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return node_enters(regs, 0x480, FUNCTION_ARGUMENT5(regs));
}

SEC("uprobe")
int node_scope_c(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return node_enters(regs, 0x488, FUNCTION_ARGUMENT5(regs));
}

/* InternalCallbackScope(AsyncWrap *, …), which has the other one inlined: the thing has its numbers in itself. */
static __noinline int node_enters_of(struct pt_regs *regs, __u64 offset)
{
	struct node_thread *thread = node_this();

	if (thread && node_look_here(thread))
		node_executes(thread, FUNCTION_ARGUMENT2(regs) + offset);
	return 0;
}

SEC("uprobe")
int node_wrap_a(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return node_enters_of(regs, 0x28);
}

SEC("uprobe")
int node_wrap_b(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return node_enters_of(regs, 0x38);
}

/* A stream, or a message, is handled: numbers that were given before are those of things that are used again and again. */
SEC("uprobe")
int node_event(struct pt_regs *regs)
{
	struct node_thread *thread;

	STACK_OF_THE_THREAD(regs);
	thread = node_this();
	if (thread && node_look_here(thread))
		node_begins(thread, NODE_FLOW_CLIENT);
	return 0;
}

/* Something is done that was asked for: timers, immediates, what threads did, connections. */
SEC("uprobe")
int node_turn(struct pt_regs *regs)
{
	struct node_thread *thread;

	STACK_OF_THE_THREAD(regs);
	thread = node_this();
	if (thread && node_look_here(thread))
		node_begins(thread, NODE_FLOW_NONE);
	return 0;
}

/* A thing of C++ is given the next number. */
SEC("uprobe")
int node_made(struct pt_regs *regs)
{
	struct node_thread *thread;

	STACK_OF_THE_THREAD(regs);
	thread = node_this();
	if (thread && node_look_here(thread)) {
		node_give(thread->place, thread->counter + 1, thread->executed, 1, &thread->now);
		thread->counter++;
		thread->changed = 1;
	}
	return 0;
}

static __always_inline void node_waits(__u64 fulfilled, __u64 rejected)
{
	struct node_thread *thread = node_this();

	if (!thread)
		return;
	node_look_here(thread);
	thread->waits++;
	node_keep_both(fulfilled, rejected, &thread->now);
}

/* PerformPromiseThen: its functions stand in registers that V8 has for them. */
SEC("uprobe")
int node_await(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	node_waits(regs->bx, regs->cx);
	return 0;
}

/* Promise.prototype.then(fulfilled, rejected): on the stack, above the return address and `this`. */
SEC("uprobe")
int node_then(struct pt_regs *regs)
{
	__u64 functions[2];

	STACK_OF_THE_THREAD(regs);
	if (!bpf_probe_read_user(functions, sizeof(functions), (void *)(STACK_POINTER(regs) + 16)))
		node_waits(functions[0], functions[1]);
	return 0;
}

static __always_inline void node_reacts_with(__u64 address)
{
	struct node_thread *thread = node_this();

	if (!thread)
		return;
	node_look_here(thread);
	thread->reacts = 1;
	thread->reaction_executed = thread->executed;
	thread->reaction.socket = 0;
	thread->reaction.began = 0;
	thread->reactions++;
	if (address)
		node_runs(address, &thread->reaction);
	thread->now = thread->reaction;
}

/* PromiseFulfillReactionJob, PromiseRejectReactionJob */
SEC("uprobe")
int node_react(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	node_reacts_with(regs->bx);
	return 0;
}

/* PromiseResolveThenableJob: for whom is not known. */
SEC("uprobe")
int node_adopt(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	node_reacts_with(0);
	return 0;
}

/* MicrotaskQueue::OnCompleted: no reaction runs any more. */
SEC("uprobe")
int node_idle(struct pt_regs *regs)
{
	struct node_thread *thread;

	STACK_OF_THE_THREAD(regs);
	thread = node_this();
	if (thread) {
		node_look_here(thread);
		thread->reacts = 0;
		thread->now.socket = 0;
		thread->now.began = 0;
		thread->changed = 1;
	}
	return 0;
}

/* GCTracer::StopAtomicPause: garbage was collected, the program does not run yet. */
SEC("uprobe")
int node_collected(struct pt_regs *regs)
{
	__u32 number = (__u32)bpf_get_current_pid_tgid();

	STACK_OF_THE_THREAD(regs);
	if (node_this())
		bpf_for_each_map_elem(&node_reactions, node_moved, &number, 0);
	return 0;
}

#endif
