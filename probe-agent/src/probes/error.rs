//! Why the kernel side cannot be had.
//!
//! In: what aya and the kernel said. Out: [`ProbeError`].

use std::{io, path::PathBuf};

use aya::programs::ProgramError;

use crate::locked_memory;

/// Why the kernel side cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProbeError {
    /// No BTF: the types of the running kernel are not known.
    #[error(
        "this kernel has no BTF ({0}): it needs CONFIG_DEBUG_INFO_BTF=y and /sys mounted, or the BTF of exactly this kernel in \
         a file that spantap.btf names"
    )]
    NoBtf(String),
    /// The file that was named in its place will not do.
    #[error("spantap.btf: {}: {reason}; it takes the BTF of exactly this kernel", file.display())]
    BadBtf {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    /// The kernel would take it, and has an error that makes it dangerous.
    #[error("{0}")]
    KernelError(&'static str),
    /// Lockdown for confidentiality (kernel_lockdown(7)).
    #[error(
        "this kernel is locked down for confidentiality, and lets no probe read its memory: boot with lockdown=integrity or \
         without lockdown"
    )]
    LockedDown,
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
    /// The kernel counts what probes take as locked memory, and allows too little of that.
    #[error(
        "this kernel counts the memory of probes as locked memory, of which {limit} bytes are allowed: {probe} was refused; raise the \
         limit (systemd: LimitMEMLOCK=infinity, docker: --ulimit memlock=-1), or start with CAP_SYS_RESOURCE"
    )]
    LockedMemory {
        /// Program or map that failed.
        probe: &'static str,
        /// Bytes.
        limit: u64,
    },
    /// Anything else.
    #[error("cannot set up the kernel side: {0}")]
    Other(String),
}

/// Lines of the verifier that are shown: the last ones tell the reason.
const MAX_WORDS: usize = 6;

impl ProbeError {
    /// The verifier's last lines, if it said anything.
    pub(crate) fn last_words(&self) -> Vec<String> {
        match self {
            Self::Unsupported { words, .. } | Self::NoPermission { words, .. } => last_words(words),
            _ => Vec::new(),
        }
    }

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
        if keeps_its_memory(&words) {
            return ProbeError::LockedDown;
        }
        let reason = io.to_string();
        // The verifier refuses with EACCES what it cannot prove, and says why.
        let refused_by_verifier = io.raw_os_error() == Some(libc::EACCES) && !words.trim().is_empty();
        match io.kind() {
            // What the limit refuses is refused with EPERM, too.
            io::ErrorKind::PermissionDenied if !refused_by_verifier => match locked_memory::limit() {
                Some(limit) => ProbeError::LockedMemory { probe: program, limit },
                None => ProbeError::NoPermission { program, reason, words },
            },
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

fn last_words(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(MAX_WORDS)).map(|line| (*line).to_owned()).collect()
}

/// Whether the verifier refuses what reads the kernel's memory: then the function is not there for anybody.
fn keeps_its_memory(words: &str) -> bool {
    let refusals = ["unknown func bpf_probe_read", "cannot use helper bpf_probe_read"];
    refusals.iter().any(|refusal| words.contains(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: String = (0..1000).map(|n| format!("line {n}\n\n")).collect();
        assert_eq!(last_words(&log).len(), MAX_WORDS);
        assert_eq!(last_words(&log).last().map(String::as_str), Some("line 999"));
        assert!(last_words("").is_empty());
    }

    #[test]
    fn lockdown_is_known_by_the_verifiers_words() {
        assert!(keeps_its_memory(
            "34: (85) call bpf_probe_read#4\nprogram of this type cannot use helper bpf_probe_read#4\n"
        ));
        assert!(keeps_its_memory("292: (85) call bpf_probe_read#4\nunknown func bpf_probe_read#4\n"));
        assert!(keeps_its_memory("64: (85) call bpf_probe_read_str#45\nunknown func bpf_probe_read_str#45\n"));
        assert!(!keeps_its_memory("85: (85) call bpf_probe_read#4\nR2 min value is negative\n"));
        assert!(!keeps_its_memory("unknown func bpf_task_storage_get#156\n"));
    }
}
