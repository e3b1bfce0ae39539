/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Entry points of what reads TLS, with every hook set of the first object.
 */
#ifndef SPANTAP_TLS_ENTRIES_H
#define SPANTAP_TLS_ENTRIES_H

/* Attached to functions of the TLS libraries of selected processes: one program for each kind of function. */

SEC("uprobe")
int tls_read(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_READ);
}

SEC("uprobe")
int tls_read_ex(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_READ_EX);
}

SEC("uprobe")
int tls_write(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_WRITE);
}

SEC("uprobe")
int tls_write_ex(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_WRITE_EX);
}

SEC("uprobe")
int tls_other(struct pt_regs *regs)
{
	return tls_entered(regs, TLS_OTHER);
}

SEC("uretprobe")
int tls_return(struct pt_regs *regs)
{
	return tls_returned(regs);
}

/* BIO_write, only in processes whose library works in memory. */
SEC("uprobe")
int tls_cipher(struct pt_regs *regs)
{
	return tls_cipher_written(regs);
}

SEC("uprobe")
int tls_forget(struct pt_regs *regs)
{
	return tls_forgotten(regs);
}

/* Attached to methods of Go's *tls.Conn. */

SEC("uprobe")
int tls_go_read(struct pt_regs *regs)
{
	return tls_go_entered(regs, RECORD_RECEIVE);
}

SEC("uprobe")
int tls_go_write(struct pt_regs *regs)
{
	return tls_go_entered(regs, RECORD_SEND);
}

SEC("uprobe")
int tls_go_return(struct pt_regs *regs)
{
	return tls_go_left(regs);
}

SEC("uprobe")
int tls_go_start(struct pt_regs *regs)
{
	return tls_go_begins();
}

SEC("uprobe")
int tls_go_close(struct pt_regs *regs)
{
	return tls_session_over(GO_ARGUMENT1(regs));
}

#endif
