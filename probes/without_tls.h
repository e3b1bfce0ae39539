/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * In the place of tls_socket.h where no TLS library is read (the object with the table): control.tls is 0 there, so that no
 * socket is ever taken for one that speaks TLS and none of these is called.
 */
#ifndef SPANTAP_WITHOUT_TLS_H
#define SPANTAP_WITHOUT_TLS_H

static __always_inline struct socket_state *tls_plain(struct socket_state *state)
{
	return NULL;
}

static __always_inline void tls_moved(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				      struct control *control, struct task_struct *task)
{
}

static __always_inline void tls_cipher_begins(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					      struct control *control)
{
}

static __always_inline void tls_cipher_sent(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					    struct control *control, struct task_struct *task, const struct data *data)
{
}

static __always_inline void tls_begins(struct sock *sk, struct socket_state *state, struct scratch *scratch,
				       struct control *control, struct task_struct *task)
{
}

static __always_inline void tls_state_changed(struct sock *sk, struct socket_state *state, struct scratch *scratch,
					      struct control *control)
{
}

#endif
