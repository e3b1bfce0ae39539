//! Why the kernel side cannot be had.
//!
//! In: what aya and the kernel said. Out: [`ProbeError`].

use std::io;

use aya::programs::ProgramError;

/// Why the kernel side cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No BTF: the types of the running kernel are not known.
    #[error("this kernel has no BTF ({0}): it needs CONFIG_DEBUG_INFO_BTF=y, file /sys/kernel/btf/vmlinux")]
    NoBtf(String),
    /// A program that everything rests on cannot be had on this kernel.
    #[error("the kernel lacks what the probe {program} needs: {reason}")]
    Unsupported {
        /// Program that failed.
        program: &'static str,
        /// What the kernel said.
        reason: String,
        /// What its verifier said.
        words: String,
    },
    /// No hook set can be had.
    #[error("no way to hook this kernel was found; {0}")]
    NoHooks(String),
    /// The kernel says that we may not.
    #[error("no permission to load the probe {program}: {reason}; it takes CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN")]
    NoPermission {
        /// Program or map that failed.
        program: &'static str,
        /// What the kernel said.
        reason: String,
        /// What its verifier said.
        words: String,
    },
    /// Anything else.
    #[error("cannot set up the kernel side: {0}")]
    Other(String),
}

impl ProbeError {
    /// The same where another hook set was taken by the same process: then it is not that it may not. A kernel without BPF
    /// trampolines refuses fentry programs with EPERM, too.
    pub fn of_a_set_passed_over(&self) -> String {
        match self {
            Self::NoPermission { program, reason, .. } => {
                format!("the kernel refuses the probe {program}: {reason}; it may have no BPF trampolines")
            }
            other => other.to_string(),
        }
    }
}

/// For what has no case of its own.
pub(super) fn other(error: impl std::fmt::Display) -> ProbeError {
    ProbeError::Other(error.to_string())
}

/// Tells a missing privilege from a missing kernel feature, by the first I/O error in the chain of causes.
pub fn classify(program: &'static str, error: &(dyn std::error::Error + 'static)) -> ProbeError {
    let told = |io: &io::Error, words: String| {
        let reason = io.to_string();
        // The verifier refuses with EACCES what it cannot prove, and says why.
        let refused_by_verifier = io.raw_os_error() == Some(libc::EACCES) && !words.trim().is_empty();
        match io.kind() {
            io::ErrorKind::PermissionDenied if !refused_by_verifier => {
                ProbeError::NoPermission { program, reason, words }
            }
            _ => ProbeError::Unsupported { program, reason, words },
        }
    };
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return told(io, String::new());
        }
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = current.downcast_ref::<ProgramError>() {
            tracing::debug!(program, %verifier_log, "the verifier's words");
            return told(io_error, verifier_log.to_string());
        }
        cause = current.source();
    }
    ProbeError::Unsupported { program, reason: error.to_string(), words: String::new() }
}
