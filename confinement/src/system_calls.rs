//! Filters of system calls (seccomp).
//!
//! In: [`Lists`]. Out: filters on all threads of the process, and on those that they start; nothing removes them.
//!
//! What is not allowed fails with EPERM, and does not kill: a C library of another version may try calls that this one
//! does not, and has a way out, while a process that is dead does no work. What is fatal kills: nothing in the program or
//! its libraries ever has a reason for it. That is not silent: a kernel with audit logs it, and the exit status
//! is SIGSYS.

use libc::{self as c, c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Whose numbers the lists hold.
#[cfg(target_arch = "x86_64")]
const PROCESSOR: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const PROCESSOR: TargetArch = TargetArch::aarch64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "the lists of allowed system calls are written for x86-64 and arm64 only: another processor has other calls"
);

/// What an argument must be; arguments are counted from 0, and their lower 32 bits are compared.
#[derive(Debug, Clone, Copy)]
pub enum Only {
    /// Any arguments.
    Any,
    /// The argument with this index is one of these.
    OneOf(u8, &'static [u64]),
    /// Of the argument with this index, these bits (mask) are that.
    Bits(u8, u64, u64),
    /// The first argument is this process.
    Own,
    /// One of these holds.
    Either(&'static [Only]),
}

/// What pthread_create asks of clone(2): a thread, and nothing that makes a process or a namespace.
pub const THREAD: c_int = c::CLONE_VM
    | c::CLONE_FS
    | c::CLONE_FILES
    | c::CLONE_SIGHAND
    | c::CLONE_THREAD
    | c::CLONE_SYSVSEM
    | c::CLONE_SETTLS
    | c::CLONE_PARENT_SETTID
    | c::CLONE_CHILD_CLEARTID;
/// Any of these makes open(2) more than reading. O_TMPFILE is among them by its need of write access.
pub const WRITES: c_int = c::O_ACCMODE | c::O_CREAT | c::O_TRUNC;

/// A call by number, what its arguments must be, and who makes it.
pub type Call = (c_long, Only, &'static str);

/// What a process may do.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// Allowed; whatever stands in no list fails with EPERM. Each call stands in one place only.
    pub allowed: &'a [&'a [Call]],
    /// End the process.
    pub fatal: &'a [c_long],
}

/// Answered with "no such call", so that the C library takes clone(2): the arguments of clone3 are in memory, where
/// no filter sees them.
const UNKNOWN: &[c_long] = &[c::SYS_clone3];

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The lists cannot be translated.
    #[error("the filter of system calls cannot be made: {0}")]
    Lists(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error(
        "the kernel does not take the filter of system calls (it needs CONFIG_SECCOMP_FILTER=y, and to be allowed seccomp: systemd: SystemCallFilter=seccomp): {0}"
    )]
    Refused(#[from] seccompiler::Error),
}

/// Installs the filters on all threads of the process.
///
/// # Errors
/// See [`FilterError`].
pub fn install(lists: Lists<'_>) -> Result<(), FilterError> {
    let eperm = SeccompAction::Errno(c::EPERM.unsigned_abs());
    let enosys = SeccompAction::Errno(c::ENOSYS.unsigned_abs());
    let mut allowed = vec![];
    for (call, only, _) in lists.allowed.iter().copied().flatten() {
        allowed.push((*call, only.rules()?));
    }
    // The strictest answer of all filters counts. What is answered by another filter passes this one.
    allowed.extend(UNKNOWN.iter().chain(lists.fatal).map(|call| (*call, vec![])));
    let all = |calls: &[c_long]| calls.iter().map(|call| (*call, vec![])).collect();
    let filters = [
        (all(lists.fatal), SeccompAction::Allow, SeccompAction::KillProcess),
        (all(UNKNOWN), SeccompAction::Allow, enosys),
        // Last: it forbids to install more.
        (allowed, eperm, SeccompAction::Allow),
    ];
    for (rules, others, these) in filters {
        let filter = SeccompFilter::new(rules.into_iter().collect(), others, these, PROCESSOR)?;
        apply_filter_all_threads(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

impl Lists<'_> {
    /// Number of allowed calls.
    pub fn len(&self) -> usize {
        self.allowed.iter().map(|part| part.len()).sum()
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first call that stands in the lists twice, or of which nobody is named who makes it.
    pub fn flaw(&self) -> Option<c_long> {
        let mut seen = std::collections::BTreeSet::from_iter(UNKNOWN.iter().copied());
        let named = self.allowed.iter().copied().flatten().map(|(call, _, why)| (*call, !why.is_empty()));
        let fatal = self.fatal.iter().map(|call| (*call, true));
        named.chain(fatal).find(|(call, named)| !named || !seen.insert(*call)).map(|(call, _)| call)
    }
}

impl Only {
    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let rule = |index, is, value| SeccompRule::new(vec![SeccompCondition::new(index, Dword, is, value)?]);
        match *self {
            Self::Any => Ok(vec![]),
            Self::OneOf(index, values) => values.iter().map(|value| rule(index, Is::Eq, *value)).collect(),
            Self::Bits(index, mask, value) => Ok(vec![rule(index, Is::MaskedEq(mask), value)?]),
            Self::Either(these) => {
                let rules: Result<Vec<_>, _> = these.iter().map(Self::rules).collect();
                Ok(rules?.into_iter().flatten().collect())
            }
            Self::Own => Ok(vec![rule(0, Is::Eq, std::process::id().into())?]),
        }
    }
}
