/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What differs between processors: where a system call's number and arguments stand in the saved user registers,
 * and the numbers of the calls that carry socket data.
 */
#ifndef SPANTAP_ARCH_H
#define SPANTAP_ARCH_H

#if defined(__TARGET_ARCH_x86)
#define SYSCALL_NUMBER(regs) ((regs)->orig_ax)
#define ARGUMENT2(regs) ((regs)->si)
#define ARGUMENT3(regs) ((regs)->dx)
/* Arguments and result of a function, of user space or the kernel (System V ABI, AMD64, section 3.2.3). */
#define FUNCTION_ARGUMENT1(regs) ((regs)->di)
#define FUNCTION_ARGUMENT2(regs) ((regs)->si)
#define FUNCTION_ARGUMENT3(regs) ((regs)->dx)
#define FUNCTION_ARGUMENT4(regs) ((regs)->cx)
#define FUNCTION_ARGUMENT5(regs) ((regs)->r8)
#define FUNCTION_RESULT(regs) ((regs)->ax)
/* The same of Go since 1.17 (ABIInternal, src/cmd/compile/abi-internal.md): the goroutine has a register of its own. */
#define GO_ARGUMENT1(regs) ((regs)->ax)
#define GO_ARGUMENT2(regs) ((regs)->bx)
#define GO_ARGUMENT3(regs) ((regs)->cx)
#define GO_ARGUMENT4(regs) ((regs)->di)
#define GO_RESULT(regs) ((regs)->ax)
#define GO_CLOSURE(regs) ((regs)->dx)
#define GO_GOROUTINE(regs) ((regs)->r14)
#define STACK_POINTER(regs) ((regs)->sp)
#define FRAME_POINTER(regs) ((regs)->bp)
#define INSTRUCTION(regs) ((regs)->ip)
/* Whether a jump at this place that is taken if something is not above something else (jbe) will be taken: CF or ZF. */
#define JUMPS_IF_NOT_ABOVE(regs) ((regs)->flags & 0x41)
/* What pthread_self() gives (the thread control block begins with its own address: ELF TLS, section 3.4.6). */
#define THREAD_POINTER(task) BPF_CORE_READ(task, thread.fsbase)
enum syscall_number {
	SYS_READ = 0,
	SYS_WRITE = 1,
	SYS_READV = 19,
	SYS_WRITEV = 20,
	SYS_SENDTO = 44,
	SYS_RECVFROM = 45,
	SYS_SENDMSG = 46,
	SYS_RECVMSG = 47,
	SYS_PREADV2 = 327,
	SYS_PWRITEV2 = 328,
	SYS_IO_URING_ENTER = 426,
};
#else
#error "this processor is not supported yet"
#endif

#endif
