//! Files (Landlock).
//!
//! In: a folder to write in, or none. Out: a process, with all threads that it starts later, that can read what its user may read, and can write,
//! make, remove or execute nothing else that it has not opened before; on newer kernels it can signal no process outside itself,
//! nor reach abstract Unix sockets of others.
//!
//! Not for the agent: the kernel lets a process under Landlock look into no process outside (ptrace access mode, which
//! `/proc/PID/exe`, `fd` and `root` ask for), whatever capabilities it has.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

/// Newest version of the interface whose rights are known here; of an older kernel those that it has are taken.
const NEWEST: ABI = ABI::V6;

/// Why files are not confined.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The kernel has Landlock and refuses.
    #[error("the kernel refuses the rules for files (Landlock): {0}")]
    Refused(#[from] landlock::RulesetError),
    /// The root folder cannot be opened.
    #[error("the root folder cannot be opened for the rules for files: {0}")]
    Root(#[from] landlock::PathFdError),
}

/// Takes every right to files but reading; `folder`: one in which plain files may be made, written and removed, too. Returns
/// whether the kernel has Landlock. Needs [`super::seal`] before. Holds for this thread, and for those that it starts.
///
/// # Errors
/// See [`FilesError`].
pub fn read_only_but(folder: Option<BorrowedFd<'_>>) -> Result<bool, FilesError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadFile | AccessFs::ReadDir))?;
    if let Some(folder) = folder {
        rules = rules.add_rule(PathBeneath::new(
            folder,
            AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate,
        ))?;
    }
    let RestrictionStatus { ruleset, .. } = rules.restrict_self()?;
    Ok(ruleset != RulesetStatus::NotEnforced)
}
