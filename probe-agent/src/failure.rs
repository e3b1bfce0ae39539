//! Why the agent ended.
//!
//! In: errors of its parts. Out: what is said, and the exit code by the contract of the command line (sysexits.h).

use std::io;

use crate::probes::ProbeError;

/// Why the agent ended; tells the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad usage or configuration.
    #[error("{0}")]
    Configuration(String),
    /// A privilege is missing.
    #[error("{0}")]
    Privilege(String),
    /// Something that is needed is not there.
    #[error("{0}")]
    Unavailable(String),
    /// Asked for its health, which is bad.
    #[error("{0}")]
    Unhealthy(String),
    /// Failed while running.
    #[error("{0}")]
    Running(#[from] io::Error),
    /// The supervised agent ended so, and has said why.
    #[error("the agent ended with code {0}")]
    Child(u8),
}

impl Failure {
    /// Exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIGURATION,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Privilege(_) => PRIVILEGE,
            Self::Running(_) | Self::Unhealthy(_) => 1,
            Self::Child(code) => *code,
        }
    }

    /// Whether an agent that ended with this code would end so again at once.
    pub fn is_final(code: u8) -> bool {
        matches!(code, CONFIGURATION | UNAVAILABLE | PRIVILEGE)
    }
}

const CONFIGURATION: u8 = 64;
const UNAVAILABLE: u8 = 69;
const PRIVILEGE: u8 = 77;

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::BadBtf { .. } => Self::Configuration(error.to_string()),
            ProbeError::NoPermission { .. } | ProbeError::LockedMemory { .. } => Self::Privilege(error.to_string()),
            ProbeError::NoBtf(_)
            | ProbeError::KernelError(_)
            | ProbeError::LockedDown
            | ProbeError::NoHooks(_)
            | ProbeError::Unsupported { .. }
            | ProbeError::Other(_) => Self::Unavailable(error.to_string()),
        }
    }
}
