//! The system calls that the agent may still make once the probes are attached and the runtime stands.
//!
//! In: nothing. Out: filters on the calling thread and on every thread that it starts later; nothing removes them.
//!
//! From that point on the agent reads what other programs wrote: executables, command lines, socket data. Whoever takes
//! it over by such bytes finds a process that cannot open a network socket, write a file, start or trace a program, or
//! load anything into the kernel.
//!
//! What is not in [`ALLOWED`] fails with EPERM, and does not kill: a C library of another version may try calls that
//! this one does not, and has a way out, while an agent that is dead observes nothing. What stands in [`FATAL`] kills
//! the process: nothing in the agent or its libraries ever has a reason for it. That is not silent: a kernel with audit
//! logs it, and the agent's exit status is SIGSYS, which `spantap` tells where it started the agent.
//!
//! What no filter of numbers can tell apart is left open: reading any file (that is the work), and connecting to any
//! Unix socket that the agent's user may write to.

// Another processor has other numbers, and another C library makes other calls (musl: open, fstat, epoll_pwait).
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the table of allowed system calls (seccomp.rs) is written for x86-64 with glibc only");

use libc::{self as c, c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Commands of bpf(2) that are in use after attaching: counters of losses and the control record.
const BPF_MAP_LOOKUP_ELEM: u64 = 1;
const BPF_MAP_UPDATE_ELEM: u64 = 2;
/// The C library's way to find its own start parameters; rustix asks it once for the kernel's tick.
const PR_GET_AUXV: u64 = 0x4155_5856;
/// What pthread_create asks of clone(2): a thread, and nothing that makes a process or a namespace.
const THREAD: c_int = c::CLONE_VM
    | c::CLONE_FS
    | c::CLONE_FILES
    | c::CLONE_SIGHAND
    | c::CLONE_THREAD
    | c::CLONE_SYSVSEM
    | c::CLONE_SETTLS
    | c::CLONE_PARENT_SETTID
    | c::CLONE_CHILD_CLEARTID;
/// Any of these makes open(2) more than reading. O_TMPFILE is among them by its need of write access.
const WRITES: c_int = c::O_ACCMODE | c::O_CREAT | c::O_TRUNC;

/// What an argument must be; one of several rules of a call has to hold.
enum Only {
    /// Any arguments.
    Any,
    /// Argument with this index is one of these.
    OneOf(u8, &'static [u64]),
    /// Of the argument with this index, these bits (mask) are that.
    Bits(u8, u64, u64),
    /// The first argument is this process.
    Own,
}
use Only::{Any, Bits, OneOf, Own};

/// Every allowed call, with what its arguments must be, and who makes it. Tried and refused without harm:
/// sched_getaffinity, by which glibc's allocator counts processors in a second thread.
const ALLOWED: &[(c_long, Only, &str)] = &[
    // Files: /proc, executables, /sys/devices/system/cpu; never for writing.
    (c::SYS_openat, Bits(2, WRITES as u64, 0), "std::fs"),
    (c::SYS_read, Any, "files, eventfd and signal pipe of tokio, standard input"),
    (c::SYS_readv, Any, "tokio, from the ingest socket"),
    (c::SYS_pread64, Any, "headers of executables"),
    (c::SYS_newfstatat, Any, "std::fs, directories"),
    (c::SYS_statx, Any, "std::fs; owner of the ingest socket"),
    (c::SYS_readlink, Any, "/proc/PID/exe, /proc/PID/fd/N, namespaces"),
    (c::SYS_getdents64, Any, "/proc, /proc/PID/fd"),
    (c::SYS_close, Any, "everything opened; also detaches the probes"),
    (
        c::SYS_fcntl,
        OneOf(1, &[c::F_GETFD as u64, c::F_GETFL as u64, c::F_SETFL as u64, c::F_DUPFD_CLOEXEC as u64]),
        "duplicates of ring buffers and standard input; std checks descriptors that it closes",
    ),
    // The ingest socket and the log.
    (c::SYS_socket, OneOf(0, &[c::AF_UNIX as u64]), "the ingest socket; no network"),
    (c::SYS_connect, Any, "the ingest socket; there are no sockets of other families"),
    (c::SYS_getsockopt, Any, "result of connect, user of the other end"),
    (c::SYS_sendto, Any, "tokio, to the ingest socket"),
    (c::SYS_recvfrom, Any, "tokio, from the ingest socket"),
    (c::SYS_write, Any, "the log on standard error, wake-ups of tokio"),
    (c::SYS_writev, Any, "tokio, to the ingest socket"),
    (c::SYS_shutdown, Any, "tokio, end of the stream"),
    (c::SYS_epoll_wait, Any, "tokio"),
    (c::SYS_epoll_ctl, Any, "tokio"),
    // The kernel side.
    (c::SYS_bpf, OneOf(0, &[BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM]), "loss counters, control record; no loading"),
    // Memory, never executable.
    (c::SYS_mmap, Bits(2, c::PROT_EXEC as u64, 0), "allocator, stacks of threads"),
    (c::SYS_mprotect, Bits(2, c::PROT_EXEC as u64, 0), "allocator, guard pages of threads"),
    (c::SYS_mremap, Any, "allocator"),
    (c::SYS_munmap, Any, "allocator, ring buffers at the end"),
    (c::SYS_madvise, Any, "allocator"),
    (c::SYS_brk, Any, "allocator"),
    // Threads: one for each executable that is looked into.
    (c::SYS_clone, Bits(0, !(c::CLONE_DETACHED as u64), THREAD as u64), "threads; not processes"),
    (c::SYS_set_robust_list, Any, "a thread's start"),
    (c::SYS_rseq, Any, "a thread's start; glibc aborts without it"),
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
    (c::SYS_geteuid, Any, "whether the other end of the ingest socket is the agent's own user"),
    (c::SYS_tgkill, Own, "abort, when a panic ends the agent"),
];

/// Calls that end the process.
const FATAL: &[c_long] = &[c::SYS_execve, c::SYS_execveat, c::SYS_ptrace, c::SYS_process_vm_writev];

/// Answered with "no such call", so that the C library takes clone(2): the arguments of clone3 are in memory, where
/// no filter sees them.
const UNKNOWN: &[c_long] = &[c::SYS_clone3];

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table cannot be translated.
    #[error("the filter of system calls cannot be made: {0}")]
    Table(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error("the kernel does not take the filter of system calls (it needs CONFIG_SECCOMP_FILTER=y): {0}")]
    Refused(#[from] seccompiler::Error),
}

/// Installs the filters on this thread and those that it starts later.
///
/// # Errors
/// See [`FilterError`].
pub fn install() -> Result<(), FilterError> {
    let eperm = SeccompAction::Errno(c::EPERM.unsigned_abs());
    let enosys = SeccompAction::Errno(c::ENOSYS.unsigned_abs());
    let mut allowed = vec![];
    for (call, only, _) in ALLOWED {
        allowed.push((*call, only.rules()?));
    }
    // The strictest answer of all filters counts. What is answered by another filter passes this one.
    allowed.extend(UNKNOWN.iter().chain(FATAL).map(|call| (*call, vec![])));
    let all = |calls: &[c_long]| calls.iter().map(|call| (*call, vec![])).collect();
    let filters = [
        (all(FATAL), SeccompAction::Allow, SeccompAction::KillProcess),
        (all(UNKNOWN), SeccompAction::Allow, enosys),
        // Last: it forbids to install more.
        (allowed, eperm, SeccompAction::Allow),
    ];
    for (rules, others, these) in filters {
        let filter = SeccompFilter::new(rules.into_iter().collect(), others, these, TargetArch::x86_64)?;
        apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

impl Only {
    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let rule = |index, is, value| SeccompRule::new(vec![SeccompCondition::new(index, Dword, is, value)?]);
        match *self {
            Any => Ok(vec![]),
            OneOf(index, values) => values.iter().map(|value| rule(index, Is::Eq, *value)).collect(),
            Bits(index, mask, value) => Ok(vec![rule(index, Is::MaskedEq(mask), value)?]),
            Own => Ok(vec![rule(0, Is::Eq, std::process::id().into())?]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
