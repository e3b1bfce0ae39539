/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What differs between processors: where a system call's number and arguments stand in the saved user registers,
 * and the numbers of the calls that carry socket data.
 *
 * LINKS_OF_RUNTIMES: requests of Node and CPython are linked. That takes registers of V8's code, and the pointer by which a thread
 * knows itself, which the kernel does not keep up to date on arm64 while the thread runs.
 */
#ifndef SPANTAP_ARCH_H
#define SPANTAP_ARCH_H

#if defined(__TARGET_ARCH_x86)
#define LINKS_OF_RUNTIMES
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
/* Where compilers hold first what outlives a call. */
#define HELD(regs) ((regs)->bx)
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
#elif defined(__TARGET_ARCH_arm64)
#define SYSCALL_NUMBER(regs) ((regs)->syscallno)
#define ARGUMENT2(regs) ((regs)->regs[1])
#define ARGUMENT3(regs) ((regs)->regs[2])
/* Procedure Call Standard for the Arm 64-bit Architecture, section 6.4. */
#define FUNCTION_ARGUMENT1(regs) ((regs)->regs[0])
#define FUNCTION_ARGUMENT2(regs) ((regs)->regs[1])
#define FUNCTION_ARGUMENT3(regs) ((regs)->regs[2])
#define FUNCTION_ARGUMENT4(regs) ((regs)->regs[3])
#define FUNCTION_RESULT(regs) ((regs)->regs[0])
#define GO_ARGUMENT1(regs) ((regs)->regs[0])
#define GO_ARGUMENT2(regs) ((regs)->regs[1])
#define GO_ARGUMENT3(regs) ((regs)->regs[2])
#define GO_ARGUMENT4(regs) ((regs)->regs[3])
#define GO_RESULT(regs) ((regs)->regs[0])
#define GO_CLOSURE(regs) ((regs)->regs[26])
#define GO_GOROUTINE(regs) ((regs)->regs[28])
#define STACK_POINTER(regs) ((regs)->sp)
#define FRAME_POINTER(regs) ((regs)->regs[29])
#define INSTRUCTION(regs) ((regs)->pc)
/* The same (b.ls): not C, or Z, which are bits 29 and 30 (N is 31). */
#define JUMPS_IF_NOT_ABOVE(regs) (((regs)->pstate >> 29 & 3) != 1)
/* include/uapi/asm-generic/unistd.h */
enum syscall_number {
	SYS_READ = 63,
	SYS_WRITE = 64,
	SYS_READV = 65,
	SYS_WRITEV = 66,
	SYS_SENDTO = 206,
	SYS_RECVFROM = 207,
	SYS_SENDMSG = 211,
	SYS_RECVMSG = 212,
	SYS_PREADV2 = 286,
	SYS_PWRITEV2 = 287,
	SYS_IO_URING_ENTER = 426,
};
#else
#error "this processor is not supported yet"
#endif

#endif
