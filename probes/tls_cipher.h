/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Programs whose TLS library works in memory (memory BIOs: Node, asyncio): they move the bytes themselves, later, in
 * another call, perhaps in another thread. What ties such a session to its socket are the encrypted bytes themselves.
 *
 * In: what a session writes to its transport (BIO_write, within a call of the library), and what begins a send of a socket.
 * Out: a tie of the session to the socket that was given the same bytes by the same process; none if two sessions wrote
 * the same ones, or if they are not such as only one session can have written.
 */
#ifndef SPANTAP_TLS_CIPHER_H
#define SPANTAP_TLS_CIPHER_H

/* Random of a HelloRetryRequest, the same for all (RFC 8446 section 4.1.3); its first bytes as they lie in memory. */
#define HELLO_RETRY 0x11619ae574ad21cfULL

/*
 * Whether these bytes begin a record that no other session can have written: a ClientHello or ServerHello with its random
 * (RFC 5246 section 7.4.1, RFC 8446 section 4.1), or encrypted data, but not what a cipher that does nothing leaves
 * readable. Certificates, alerts and the like are the same in every connection.
 */
static __always_inline bool tls_is_unique(const __u8 *bytes)
{
	__u32 data;
	__u64 random;

	if (bytes[1] != 3)
		return false;
	if (bytes[0] == 0x17) {
		__builtin_memcpy(&data, bytes + 5, sizeof(data));
		return !begins_like_http((const __u8 *)&data, sizeof(data));
	}
	if (bytes[0] != 0x16)
		return false;
	__builtin_memcpy(&random, bytes + 11, sizeof(random));
	return bytes[5] == 1 || (bytes[5] == 2 && random != HELLO_RETRY);
}

/* The process has sessions that no call ties to a socket: the agent has their ciphertext compared. */
static __always_inline void tls_works_in_memory(struct task_struct *task)
{
	struct tls_process fresh = { .untied = 1 }, *process;
	struct process_event *event;
	__u32 pid = task->tgid;

	process = bpf_map_lookup_elem(&tls_processes, &pid);
	if (process && process->untied)
		return;
	if (process)
		process->untied = 1;
	else
		bpf_map_update_elem(&tls_processes, &pid, &fresh, BPF_NOEXIST);
	event = bpf_ringbuf_reserve(&process_events, sizeof(*event), 0);
	if (!event) {
		count_loss(LOSS_PROCESS_RING_FULL);
		return;
	}
	__builtin_memset(event, 0, offsetof(struct process_event, filename));
	event->kind = RECORD_TLS_IN_MEMORY;
	event->pid = pid;
	event->start = task->group_leader->start_boottime;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
}

/* int BIO_write(BIO *, const void *data, int length), within a call on a session. */
static __always_inline int tls_cipher_written(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), cookie, *tie;
	struct tls_cipher cipher = {}, *known;
	__u8 bytes[CIPHER_BYTES];
	struct tls_call *call;

	if (!is_selected(pid_tgid >> 32))
		return 0;
	call = bpf_task_storage_get(&tls_calls, bpf_get_current_task_btf(), NULL, 0);
	if (!call || !call->session || call->socket || (__s32)FUNCTION_ARGUMENT3(regs) < CIPHER_BYTES)
		return 0;
	cipher.session.address = call->session;
	cipher.session.pid = pid_tgid >> 32;
	tie = bpf_map_lookup_elem(&tls_ties, &cipher.session);
	if (tie && !(*tie & TIE_WAITS)) {
		cookie = *tie & ~TIE_BY_CIPHER;
		if (bpf_map_lookup_elem(&tls_sockets, &cookie))
			return 0;
		tie = NULL;
	}
	if (bpf_probe_read_user(bytes, sizeof(bytes), (void *)FUNCTION_ARGUMENT2(regs)) || !tls_is_unique(bytes))
		return 0;
	if (tie) {
		cipher.mark = *tie;
	} else {
		/* Gone with the session: what waits to be sent then ties nothing that comes to lie at the same address. */
		cipher.mark = TIE_WAITS | bpf_ktime_get_ns();
		bpf_map_update_elem(&tls_ties, &cipher.session, &cipher.mark, BPF_ANY);
	}
	known = bpf_map_lookup_elem(&tls_ciphers, bytes);
	if (known && known->mark != cipher.mark)
		known->mark = 0;
	else if (!known)
		bpf_map_update_elem(&tls_ciphers, bytes, &cipher, BPF_ANY);
	return 0;
}

/* The state of the plaintext of a session that is tied now, under the cookie that was told of it before, if any. */
static __always_inline struct socket_state *tls_state_tied(struct socket_state *state, struct tls_session *session)
{
	struct socket_state *untied = bpf_map_lookup_elem(&tls_untied, session), fresh = {}, *plain;
	__u64 cookie = untied ? untied->cookie : state->cookie;

	if (!untied)
		fresh.cookie = cookie;
	if (bpf_map_update_elem(&tls_sockets, &cookie, untied ? untied : &fresh, BPF_ANY)) {
		count_loss(LOSS_NO_SOCKET_STATE);
		return NULL;
	}
	plain = bpf_map_lookup_elem(&tls_sockets, &cookie);
	if (untied)
		bpf_map_delete_elem(&tls_untied, session);
	return plain;
}

/*
 * Ties the session that has written what scratch->head begins with to the socket of `state`; returns 0 if there is none. A
 * function of its own, not inlined, so that the verifier looks at it once.
 */
__noinline int tls_match(struct scratch *scratch, struct socket_state *state)
{
	struct tls_cipher *cipher, found;
	struct socket_state *plain;
	__u64 bytes[CIPHER_BYTES / 8];
	__u64 *tie, tied;

	if (!scratch || !state)
		return 0;
	__builtin_memcpy(bytes, __builtin_assume_aligned(scratch->head, 8), sizeof(bytes));
	cipher = bpf_map_lookup_elem(&tls_ciphers, bytes);
	if (!cipher)
		return 0;
	found = *cipher;
	tie = bpf_map_lookup_elem(&tls_ties, &found.session);
	if (found.session.pid != bpf_get_current_pid_tgid() >> 32 || !tie || *tie != found.mark)
		return 0;
	bpf_map_delete_elem(&tls_ciphers, bytes);
	plain = tls_state_tied(state, &found.session);
	if (!plain)
		return 0;
	tied = plain->cookie | TIE_BY_CIPHER;
	bpf_map_update_elem(&tls_ties, &found.session, &tied, BPF_ANY);
	state->tls_plain = plain->cookie;
	state->tls_tied = 1;
	return 1;
}

/* The head of what was sent on a socket that was found to speak TLS just now is there. Call before tls_begins. */
static __always_inline void tls_cipher_begins(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					      struct control *control)
{
	if (scratch->event.head_length >= CIPHER_BYTES && tls_match(scratch, state))
		state->announced = announce(sk, state, scratch, control) ? control->announce : control->announce - 1;
}

/*
 * Bytes were sent on a socket that speaks TLS, as scratch->event describes. If they begin with what a session has written,
 * this is its socket. Call before tls_moved.
 */
static __always_inline void tls_cipher_sent(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					    struct control *control, struct task_struct *task, const struct data *data)
{
	struct tls_call *call;

	if (state->tls_tied || scratch->event.length < CIPHER_BYTES || !data->segments)
		return;
	call = bpf_task_storage_get(&tls_calls, task, NULL, 0);
	if ((call && call->session) || copy_data(scratch, data, scratch->event.length, CIPHER_BYTES))
		return;
	tls_cipher_begins(sk, state, scratch, control);
}

#endif
