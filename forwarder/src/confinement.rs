//! What the forwarder may still do once everything that it needs stands: system calls, files.
//!
//! In: nothing. Out: a process of which whoever takes it over by the bytes that it reads from then on (heads of requests,
//! answers of destinations) cannot listen on a new address, write or remove a file (but the spool's, where there is one), start or trace a program, or load
//! anything into the kernel. Connecting is left: that is the work.

use std::os::fd::BorrowedFd;

use libc::{self as c, c_long};
use spantap_confinement::{
    files::{self, FilesError},
    system_calls::{
        self, Call, FilterError, Lists,
        Only::{Any, Bits, Either, OneOf, Own},
        THREAD, WRITES,
    },
};

const LISTS: Lists<'static> = Lists { allowed: &[COMMON, C_LIBRARY, PROCESSOR, OPEN], fatal: FATAL };
/// With a spool.
const SPOOLING: Lists<'static> = Lists { allowed: &[COMMON, C_LIBRARY, PROCESSOR, SPOOL], fatal: FATAL };

/// Whatever the C library.
// The numbers of ioctl(2) are of another type in each.
#[allow(clippy::unnecessary_cast)]
const COMMON: &[Call] = &[
    // Files: certificates, resolver and time zone; never for writing.
    (c::SYS_read, Any, "files, eventfd and signal pipe of tokio"),
    (c::SYS_readv, Any, "tokio"),
    (c::SYS_pread64, Any, "std::fs; dynamic linker"),
    (c::SYS_lseek, Any, "std::fs, stdio of the resolver"),
    (c::SYS_getdents64, Any, "folders of certificates"),
    (c::SYS_close, Any, "everything opened"),
    (
        c::SYS_fcntl,
        OneOf(
            1,
            &[c::F_GETFD as u64, c::F_SETFD as u64, c::F_GETFL as u64, c::F_SETFL as u64, c::F_DUPFD_CLOEXEC as u64],
        ),
        "sockets without blocking; musl marks what it opens",
    ),
    // The network. No listen: what is served stands already.
    (
        c::SYS_socket,
        OneOf(0, &[c::AF_UNIX as u64, c::AF_INET as u64, c::AF_INET6 as u64, c::AF_NETLINK as u64]),
        "destinations, resolver; netlink: which kinds of addresses this host has",
    ),
    (c::SYS_connect, Any, "destinations, resolver"),
    (c::SYS_bind, Any, "resolver: its own port, netlink"),
    (c::SYS_accept4, Any, "agents, scrapes, admin"),
    (c::SYS_getsockopt, Any, "result of connect, user of the other end"),
    (c::SYS_setsockopt, Any, "keep-alive, no delay"),
    (c::SYS_getsockname, Any, "own address"),
    (c::SYS_getpeername, Any, "address of the other end"),
    (c::SYS_sendto, Any, "tokio, resolver"),
    (c::SYS_recvfrom, Any, "tokio, resolver"),
    (c::SYS_sendmsg, Any, "resolver"),
    (c::SYS_recvmsg, Any, "resolver"),
    (c::SYS_sendmmsg, Any, "resolver"),
    (c::SYS_shutdown, Any, "tokio, end of a connection"),
    (c::SYS_ioctl, OneOf(1, &[c::FIONREAD as u64, c::FIONBIO as u64]), "resolver; sockets without blocking"),
    (c::SYS_write, Any, "log, standard output, wake-ups of tokio"),
    (c::SYS_writev, Any, "tokio"),
    (c::SYS_epoll_ctl, Any, "tokio"),
    // Memory, never both writable and executable.
    (
        c::SYS_mmap,
        Either(&[Bits(2, c::PROT_EXEC as u64, 0), Bits(2, c::PROT_WRITE as u64, 0)]),
        "allocator, stacks of threads; modules of the resolver",
    ),
    (c::SYS_mprotect, Bits(2, c::PROT_EXEC as u64, 0), "allocator, guard pages of threads"),
    (c::SYS_mremap, Any, "allocator"),
    (c::SYS_munmap, Any, "allocator"),
    (c::SYS_madvise, Any, "allocator"),
    (c::SYS_brk, Any, "allocator"),
    // Threads: names are resolved in some.
    (c::SYS_clone, Bits(0, !(c::CLONE_DETACHED as u64), THREAD as u64), "threads; not processes"),
    (c::SYS_sigaltstack, Any, "a thread's start and end"),
    (c::SYS_rt_sigaction, Any, "a thread's start, abort"),
    (c::SYS_rt_sigprocmask, Any, "a thread's start and end, abort"),
    (c::SYS_rt_sigreturn, Any, "return from the handlers of SIGTERM, SIGINT and SIGHUP"),
    (c::SYS_futex, Any, "waiting for a thread"),
    (c::SYS_sched_yield, Any, "waiting for a thread"),
    (c::SYS_exit, Any, "a thread's end"),
    (c::SYS_exit_group, Any, "the end"),
    (c::SYS_wait4, Any, "whether the agent's supervisor has ended"),
    // Small things.
    (c::SYS_prctl, OneOf(0, &[c::PR_SET_NAME as u64]), "a thread's name"),
    (c::SYS_clock_gettime, Any, "time, where the kernel has no faster way (vDSO)"),
    (c::SYS_restart_syscall, Any, "the kernel, after SIGSTOP and SIGCONT in a wait"),
    (c::SYS_getrandom, Any, "trace ids, keys of TLS and of hash tables"),
    (c::SYS_uname, Any, "resolver"),
    (c::SYS_getpid, Any, "abort; std"),
    (c::SYS_gettid, Any, "abort; std"),
    (c::SYS_getuid, Any, "whom the ingest socket lets in"),
];

/// The C library of the system: what `cargo build` makes.
#[cfg(target_env = "gnu")]
const C_LIBRARY: &[Call] = &[
    (c::SYS_newfstatat, Any, "std::fs, resolver"),
    (c::SYS_statx, Any, "std::fs"),
    (c::SYS_set_robust_list, Any, "a thread's start"),
    (c::SYS_rseq, Any, "a thread's start; glibc aborts without it"),
    (c::SYS_sched_getaffinity, Any, "allocator: how many processors"),
    (c::SYS_tgkill, Own, "abort, when a panic ends the forwarder"),
];

/// The C library of static programs.
#[cfg(target_env = "musl")]
const C_LIBRARY: &[Call] = &[
    (c::SYS_fstat, Any, "std::fs, folders"),
    (c::SYS_epoll_pwait, Any, "tokio"),
    (c::SYS_tkill, Own, "abort, when a panic ends the forwarder"),
];

/// What arm64 does not have: it has newer calls for the same.
#[cfg(target_arch = "x86_64")]
const PROCESSOR: &[Call] = &[
    (c::SYS_readlink, Any, "the time zone's name, certificates"),
    (c::SYS_poll, Any, "resolver, standard output"),
    #[cfg(target_env = "gnu")]
    (c::SYS_epoll_wait, Any, "tokio"),
    #[cfg(target_env = "musl")]
    (c::SYS_open, Bits(1, WRITES as u64, 0), "std::fs, resolver"),
    #[cfg(target_env = "musl")]
    (c::SYS_stat, Any, "std::fs"),
    #[cfg(target_env = "musl")]
    (c::SYS_lstat, Any, "std::fs"),
];

/// What stands for them on arm64.
#[cfg(target_arch = "aarch64")]
const PROCESSOR: &[Call] = &[
    (c::SYS_readlinkat, Any, "the time zone's name, certificates"),
    (c::SYS_ppoll, Any, "resolver, standard output"),
    #[cfg(target_env = "gnu")]
    (c::SYS_epoll_pwait, Any, "tokio"),
    #[cfg(target_env = "musl")]
    (c::SYS_newfstatat, Any, "std::fs"),
];

/// Files, without a spool. By rustix, whatever the C library: for reading only.
const OPEN: &[Call] = &[(c::SYS_openat, Bits(2, WRITES as u64, 0), "std::fs, resolver")];

/// Files, with a spool: Landlock says that it is in its folder only.
const SPOOL: &[Call] = &[
    (
        c::SYS_openat,
        Either(&[Bits(2, WRITES as u64, 0), Bits(2, WRITES as u64, (c::O_CREAT | c::O_RDWR) as u64)]),
        "std::fs, resolver; a new segment",
    ),
    (c::SYS_pwrite64, Any, "how far the spool is read"),
    (c::SYS_fdatasync, Any, "what was written, once a second"),
    (c::SYS_fsync, Any, "the name of a new segment"),
    (c::SYS_ftruncate, Any, "taking back a record that did not fit on the disk"),
    (c::SYS_unlinkat, Any, "a segment that was sent"),
];

/// Calls that end the process.
const FATAL: &[c_long] = &[
    c::SYS_execve,
    c::SYS_execveat,
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_bpf,
    c::SYS_perf_event_open,
];

/// Why the process is not confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// System calls.
    #[error("{0}")]
    Calls(#[from] FilterError),
    /// Files.
    #[error("{0}")]
    Files(#[from] FilesError),
}

/// Confines the process, all threads of it that are started from here on, for good. `spool`: a folder in which files may be
/// made, written and removed.
///
/// # Errors
/// See [`ConfinementError`].
pub fn enter(spool: Option<BorrowedFd<'_>>) -> Result<(), ConfinementError> {
    // A kernel without Landlock is no reason not to run: the filter forbids writing as well, but for the spool's.
    let landlock = files::read_only_but(spool)?;
    let lists = if spool.is_some() { SPOOLING } else { LISTS };
    system_calls::install(lists)?;
    let system_calls = lists.len();
    match spool {
        None => tracing::info!(system_calls, landlock, "confined: files are for reading, no program is started"),
        Some(_) => {
            tracing::info!(
                system_calls,
                landlock,
                "confined: files are for reading but the spool's, no program is started"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
