//! The system calls that the agent may still make once the probes are attached and the runtime stands.
//!
//! In: nothing. Out: a process of which whoever takes it over by the bytes that it reads from then on (executables, command
//! lines, socket data) cannot open a network socket, write a file, start or trace a program, or load anything into the
//! kernel.
//!
//! What no filter of numbers can tell apart is left open: reading any file (that is the work), and connecting to any
//! Unix socket that the agent's user may write to.

use libc::{self as c, c_long};
use spantap_confinement::system_calls::{
    self, Call, FilterError, Lists,
    Only::{Any, Bits, OneOf, Own},
    THREAD, WRITES,
};

/// The C library's way to find its own start parameters; rustix asks it once for the kernel's tick.
const PR_GET_AUXV: u64 = 0x4155_5856;
/// Every allowed call, with what its arguments must be, and who makes it; what differs between the C libraries and between
/// processors stands apart. Tried and refused without harm: sched_getaffinity, by which glibc's allocator counts processors in a second thread.
const LISTS: Lists<'static> = Lists { allowed: &[COMMON, C_LIBRARY, PROCESSOR], fatal: FATAL };

/// Whatever the C library.
const COMMON: &[Call] = &[
    // Files: /proc, executables, /sys/devices/system/cpu; never for writing.
    (c::SYS_read, Any, "files, eventfd and signal pipe of tokio, standard input"),
    (c::SYS_readv, Any, "tokio, from the ingest socket"),
    (c::SYS_pread64, Any, "headers of executables"),
    (c::SYS_getdents64, Any, "/proc, /proc/PID/fd"),
    (c::SYS_close, Any, "everything opened; also detaches the probes"),
    (
        c::SYS_fcntl,
        OneOf(
            1,
            &[c::F_GETFD as u64, c::F_SETFD as u64, c::F_GETFL as u64, c::F_SETFL as u64, c::F_DUPFD_CLOEXEC as u64],
        ),
        "duplicates of ring buffers and standard input; std checks descriptors that it closes; musl marks what it opens",
    ),
    // The ingest socket and the log.
    (c::SYS_socket, OneOf(0, &[c::AF_UNIX as u64]), "the ingest socket; no network"),
    (c::SYS_connect, Any, "the ingest socket; there are no sockets of other families"),
    (c::SYS_getsockopt, Any, "result of connect, user of the other end"),
    (c::SYS_sendto, Any, "tokio, to the ingest socket"),
    (c::SYS_recvfrom, Any, "tokio, from the ingest socket; answers of the process that attaches to TLS libraries"),
    (c::SYS_sendmsg, Any, "orders to that process, with the file to attach to"),
    (c::SYS_write, Any, "the log on standard error, wake-ups of tokio"),
    (c::SYS_writev, Any, "tokio, to the ingest socket"),
    (c::SYS_shutdown, Any, "tokio, end of the stream"),
    (c::SYS_epoll_ctl, Any, "tokio"),
    // Memory, never executable.
    (c::SYS_mmap, Bits(2, c::PROT_EXEC as u64, 0), "allocator, stacks of threads"),
    (c::SYS_mprotect, Bits(2, c::PROT_EXEC as u64, 0), "allocator, guard pages of threads"),
    (c::SYS_mremap, Any, "allocator"),
    (c::SYS_munmap, Any, "allocator, ring buffers at the end"),
    (c::SYS_madvise, Any, "allocator"),
    (c::SYS_brk, Any, "allocator"),
    // Threads: one for each executable that is looked into.
    (c::SYS_clone, Bits(0, !(c::CLONE_DETACHED as u64), THREAD as u64), "threads; not processes"),
    (c::SYS_sigaltstack, Any, "a thread's start and end"),
    (c::SYS_rt_sigaction, Any, "glibc, before the first thread; abort"),
    (c::SYS_rt_sigprocmask, Any, "a thread's start and end, abort"),
    (c::SYS_rt_sigreturn, Any, "return from the handlers of SIGTERM and SIGINT"),
    (c::SYS_futex, Any, "waiting for a thread"),
    (c::SYS_exit, Any, "a thread's end"),
    (c::SYS_exit_group, Any, "the end"),
    // Small things.
    (c::SYS_prctl, OneOf(0, &[c::PR_SET_NAME as u64, PR_GET_AUXV]), "a thread's name; rustix, for the kernel's tick"),
    (c::SYS_clock_gettime, Any, "time, where the kernel has no faster way (vDSO)"),
    (c::SYS_restart_syscall, Any, "the kernel, after SIGSTOP and SIGCONT in a wait"),
    (c::SYS_getrandom, Any, "keys of hash tables"),
    (c::SYS_getpid, Any, "abort; std"),
    (c::SYS_gettid, Any, "abort; std"),
];

/// The C library of the system: what `cargo build` makes.
#[cfg(target_env = "gnu")]
const C_LIBRARY: &[Call] = &[
    (c::SYS_openat, Bits(2, WRITES as u64, 0), "std::fs"),
    (c::SYS_newfstatat, Any, "std::fs, directories"),
    (c::SYS_statx, Any, "std::fs; owner of the ingest socket"),
    (c::SYS_set_robust_list, Any, "a thread's start"),
    (c::SYS_rseq, Any, "a thread's start; glibc aborts without it"),
    (c::SYS_tgkill, Own, "abort, when a panic ends the agent"),
];

/// The C library of static programs. Refused without harm: tkill, by which a thread other than the first aborts; the
/// library then crashes on purpose.
#[cfg(target_env = "musl")]
const C_LIBRARY: &[Call] = &[
    (c::SYS_fstat, Any, "std::fs, directories"),
    (c::SYS_epoll_pwait, Any, "tokio"),
    (c::SYS_tkill, Own, "abort, when a panic ends the agent"),
];

/// What arm64 does not have: it has newer calls for the same.
#[cfg(target_arch = "x86_64")]
const PROCESSOR: &[Call] = &[
    (c::SYS_readlink, Any, "/proc/PID/exe, /proc/PID/fd/N, namespaces"),
    #[cfg(target_env = "gnu")]
    (c::SYS_epoll_wait, Any, "tokio"),
    #[cfg(target_env = "musl")]
    (c::SYS_open, Bits(1, WRITES as u64, 0), "std::fs"),
    #[cfg(target_env = "musl")]
    (c::SYS_stat, Any, "std::fs"),
    #[cfg(target_env = "musl")]
    (c::SYS_lstat, Any, "std::fs"),
];

/// What stands for them on arm64.
#[cfg(target_arch = "aarch64")]
const PROCESSOR: &[Call] = &[
    (c::SYS_readlinkat, Any, "/proc/PID/exe, /proc/PID/fd/N, namespaces"),
    #[cfg(target_env = "gnu")]
    (c::SYS_epoll_pwait, Any, "tokio"),
    #[cfg(target_env = "musl")]
    (c::SYS_openat, Bits(2, WRITES as u64, 0), "std::fs"),
    #[cfg(target_env = "musl")]
    (c::SYS_newfstatat, Any, "std::fs"),
];

/// Calls that end the process.
const FATAL: &[c_long] = &[c::SYS_execve, c::SYS_execveat, c::SYS_ptrace, c::SYS_process_vm_writev];

/// Installs the filters on all threads of the process.
///
/// # Errors
/// See [`FilterError`].
pub fn install() -> Result<(), FilterError> {
    // rustix asks for the start parameters once; before Linux 6.4 by open(), which is not allowed from here on.
    let _ = rustix::param::clock_ticks_per_second();
    system_calls::install(LISTS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
