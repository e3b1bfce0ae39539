//! The system calls that are left to the process that attaches probes.
//!
//! In: nothing. Out: a process that can attach probes and answer, and do nothing else: no other network or file, no loading
//! into the kernel, no program.

use libc::{self as c, c_long};
use spantap_confinement::system_calls::{
    self, Call, FilterError, Lists,
    Only::{Any, Bits, OneOf, Own},
    WRITES,
};

/// Attaching a loaded program to what perf_event_open gave (bpf(2)).
const BPF_LINK_CREATE: u64 = 28;

const CALLS: &[Call] = &[
    (c::SYS_recvmsg, Any, "orders"),
    (c::SYS_sendto, Any, "answers, on the one socket there is"),
    (c::SYS_perf_event_open, Any, "a place for a probe"),
    (c::SYS_bpf, OneOf(0, &[BPF_LINK_CREATE]), "attaching to it"),
    (c::SYS_openat, Bits(2, WRITES as u64, 0), "the type of such places in /sys"),
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    (c::SYS_open, Bits(1, WRITES as u64, 0), "the same"),
    (c::SYS_read, Any, "the same"),
    (c::SYS_statx, Any, "the same"),
    (c::SYS_fstat, Any, "the same"),
    (c::SYS_lseek, Any, "the same"),
    (c::SYS_uname, Any, "aya, for the kernel's version"),
    (
        c::SYS_fcntl,
        OneOf(1, &[c::F_GETFD as u64, c::F_SETFD as u64, c::F_DUPFD_CLOEXEC as u64]),
        "duplicates of programs",
    ),
    (c::SYS_close, Any, "files; detaches probes"),
    (c::SYS_write, Any, "the log on standard error"),
    (c::SYS_mmap, Bits(2, c::PROT_EXEC as u64, 0), "allocator"),
    (c::SYS_mremap, Any, "allocator"),
    (c::SYS_munmap, Any, "allocator"),
    (c::SYS_madvise, Any, "allocator"),
    (c::SYS_brk, Any, "allocator"),
    (c::SYS_futex, Any, "locks"),
    (c::SYS_getrandom, Any, "keys of hash tables"),
    (c::SYS_rt_sigprocmask, Any, "abort"),
    (c::SYS_rt_sigaction, Any, "abort"),
    (c::SYS_getpid, Any, "abort"),
    (c::SYS_gettid, Any, "abort"),
    (c::SYS_tgkill, Own, "abort"),
    (c::SYS_sigaltstack, Any, "the end"),
    (c::SYS_exit_group, Any, "the end"),
    (c::SYS_restart_syscall, Any, "the kernel, after SIGSTOP and SIGCONT in a wait"),
];

const FATAL: &[c_long] = &[c::SYS_execve, c::SYS_execveat, c::SYS_ptrace, c::SYS_process_vm_writev];

/// Installs it.
///
/// # Errors
/// See [`FilterError`].
pub(super) fn install() -> Result<(), FilterError> {
    system_calls::install(Lists { allowed: &[CALLS], fatal: FATAL })
}
