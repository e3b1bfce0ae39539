/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Entry points at functions of tokio.
 *
 * In: a task is woken, or made. Out: what each serves, in the map of tokio_link.h; for whom a request was sent whose response
 * has arrived. Programs that are not linked cost one look-up.
 */
#ifndef SPANTAP_TOKIO_ENTRIES_H
#define SPANTAP_TOKIO_ENTRIES_H

/* The task that runs here, in `key`; NULL: nothing is known of it. */
static __always_inline struct tokio_task *tokio_running(struct tokio_key *key)
{
	struct linked_program *program;

	key->pid = bpf_get_current_pid_tgid() >> 32;
	if (!linked_may_be(key->pid))
		return NULL;
	program = linked_program_of(key->pid);
	if (!program || !(program->pid & PROGRAM_OF_TOKIO))
		return NULL;
	key->id = tokio_current(program->main);
	if (!key->id)
		return NULL;
	key->start = bpf_get_current_task_btf()->group_leader->start_boottime;
	return bpf_map_lookup_elem(&tokio_tasks, key);
}

/* Number of the task that this is the header of; 0: it is none. */
static __always_inline __u64 tokio_id_of(__u64 header)
{
	__u64 table, within, id;

	if (bpf_probe_read_user(&table, sizeof(table), (void *)(header + TOKIO_VTABLE)) ||
	    bpf_probe_read_user(&within, sizeof(within), (void *)(table + TOKIO_ID_OFFSET)) ||
	    within > TOKIO_ID_WITHIN || within & 7 ||
	    bpf_probe_read_user(&id, sizeof(id), (void *)(header + within)))
		return 0;
	return id < 1ULL << 48 ? id : 0;
}

static __always_inline bool tokio_is_bound(const struct tokio_task *task)
{
	return task->serves == TOKIO_RECEIVED || task->serves == TOKIO_INHERITED;
}

static __always_inline bool tokio_is_same(const struct tokio_request *one, const struct tokio_request *other)
{
	return one->socket == other->socket && one->received == other->received;
}

/* `asked` is the first that is woken after a response. */
static __always_inline void tokio_decides(struct tokio_key *process, struct tokio_task *task, struct tokio_task *asked)
{
	__u32 wakes = task->wakes, since = wakes - task->before;
	struct tokio_request *request = NULL;

	if (asked && tokio_is_bound(asked)) {
		/* Of the first request of a connection its task may know before it was woken once. */
		if (!since && task->asked == 1)
			request = &asked->request;
		for (int i = 0; i < TOKIO_WAKES; i++) {
			if (i < since && tokio_is_same(&task->woken_for[(wakes - 1 - i) % TOKIO_WAKES], &asked->request))
				request = &asked->request;
		}
	}
	task->answered = 0;
	task->before = wakes;
	tokio_tell(process, task->socket, task->first, bpf_ktime_get_ns(), request,
		   request ? LINK_TOKIO_WOKEN : LINK_TOKIO_NONE);
}

/* unsafe fn wake_by_val(ptr: *const ()), and wake_by_ref: of the task whose header this is. */
static __noinline int tokio_wakes(struct pt_regs *regs)
{
	__u64 header = FUNCTION_ARGUMENT1(regs), running;
	struct tokio_task *task, *woken;
	struct tokio_key key = {};
	__u32 place;

	task = tokio_running(&key);
	if (!task || (!task->answered && !tokio_is_bound(task)))
		return 0;
	running = key.id;
	key.id = tokio_id_of(header);
	if (!key.id || key.id == running)
		return 0;
	woken = bpf_map_lookup_elem(&tokio_tasks, &key);
	if (task->answered)
		tokio_decides(&key, task, woken);
	if (!tokio_is_bound(task))
		return 0;
	if (!woken)
		woken = tokio_task_of(&key);
	if (!woken)
		return 0;
	if (!tokio_is_same(&woken->request, &task->request) && woken->serves == TOKIO_INHERITED && task->serves == TOKIO_RECEIVED)
		woken->serves = TOKIO_MANY;
	/* Two at the same time: one of them is forgotten, and its request has no link. */
	place = woken->wakes % TOKIO_WAKES;
	woken->woken_for[place] = task->request;
	woken->wakes++;
	/* It has done what it was made for, or works for somebody else. */
	if (task->serves == TOKIO_INHERITED && woken->serves == TOKIO_RECEIVED)
		task->serves = TOKIO_MANY;
	return 0;
}

SEC("uprobe")
int tokio_wake(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tokio_wakes(regs);
}

/* fn schedule_option_task_without_yield(&self, task: Option<Notified>): of the runtime with several threads, where a task is made. */
static __noinline int tokio_spawns(struct pt_regs *regs)
{
	__u64 header = FUNCTION_ARGUMENT2(regs);
	struct tokio_task *task, *made;
	struct tokio_key key = {};

	task = header ? tokio_running(&key) : NULL;
	if (!task || !tokio_is_bound(task))
		return 0;
	key.id = tokio_id_of(header);
	made = key.id ? tokio_task_of(&key) : NULL;
	if (!made || made->serves != TOKIO_NOTHING)
		return 0;
	made->request = task->request;
	made->serves = TOKIO_INHERITED;
	return 0;
}

SEC("uprobe")
int tokio_spawn(struct pt_regs *regs)
{
	STACK_OF_THE_THREAD(regs);
	return tokio_spawns(regs);
}

#endif
