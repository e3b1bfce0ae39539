//! Why the program ended.
//!
//! In: errors of all parts. Out: one message and an exit code.

use std::io;

use crate::{
    agent::AgentError,
    confinement::ConfinementError,
    endpoints::EndpointError,
    export::spool::SpoolError,
    ingest::{self, BindError},
    pipeline::StartError,
    privilege::PrivilegeError,
};

/// Why the program ended; tells the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad usage.
    #[error("{0}")]
    Usage(String),
    /// Bad configuration.
    #[error("{0}")]
    Configuration(String),
    /// The ingest socket.
    #[error("{0}")]
    Socket(#[from] BindError),
    /// The ingest socket, where the whole job was asked for by somebody who may not do it.
    #[error(
        "{0}; and to observe programs needs privilege: run the whole as root (sudo spantap), or `spantap forward` alone"
    )]
    NotRoot(#[source] BindError),
    /// The scrape or the admin endpoint.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// The spool.
    #[error("{0}")]
    Spool(#[from] SpoolError),
    /// The agent as a child.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// The agent that was started here has ended; it has said why.
    #[error("spantap-agent ended ({0}); see its message above")]
    AgentEnded(std::process::ExitStatus),
    /// Giving up privilege.
    #[error("{0}")]
    Privilege(#[from] PrivilegeError),
    /// Confinement.
    #[error("cannot be confined: {0}")]
    Confinement(#[from] ConfinementError),
    /// Exporters.
    #[error("{0}")]
    Start(#[from] StartError),
    /// Asked for its health, which is bad.
    #[error("{0}")]
    Unhealthy(String),
    /// Anything else while running.
    #[error("{0}")]
    Running(#[from] io::Error),
    /// The ingest server.
    #[error("{0}")]
    Ingest(#[from] ingest::ServeError),
}

impl Failure {
    /// Exit code by the contract of the command line (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Configuration(_) => 64,
            Self::Start(StartError::Traces(_) | StartError::Metrics(_)) => 64,
            Self::Endpoint(EndpointError::Tls(_)) | Self::Start(StartError::Endpoint(EndpointError::Tls(_))) => 64,
            Self::Privilege(_) | Self::NotRoot(_) | Self::Socket(BindError::Owner { .. }) => 77,
            Self::Socket(_)
            | Self::Endpoint(_)
            | Self::Spool(_)
            | Self::Start(StartError::Endpoint(_) | StartError::Spool(_))
            | Self::Agent(_)
            | Self::Confinement(_) => 69,
            // What the agent misses is what we miss.
            Self::AgentEnded(status) => match status.code() {
                Some(code @ (64 | 69 | 77)) => code as u8,
                _ => 1,
            },
            Self::Running(_) | Self::Ingest(_) | Self::Unhealthy(_) => 1,
        }
    }
}
