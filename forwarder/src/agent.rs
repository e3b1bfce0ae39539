//! The agent as a child process, for the one-command way.
//!
//! In: the configuration file. Out: a running `spantap-agent` that starts another in its place should it die, and that stops
//! when this process does: it holds the other end of its standard input, and that end closes whatever becomes of us.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Name of the agent's program.
pub const PROGRAM: &str = "spantap-agent";

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Not found.
    #[error(
        "{PROGRAM} is neither beside {beside} nor in PATH; install both, or start it yourself and run `spantap forward`"
    )]
    NotFound {
        /// Folder that was looked into.
        beside: PathBuf,
    },
    /// Found, but does not start.
    #[error("cannot start {path}: {error}")]
    Start {
        /// Program that was tried.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Starts the agent with the same configuration file and environment; the ingest socket must listen already.
///
/// # Errors
/// See [`AgentError`].
pub fn start(config: Option<&Path>, socket: &Path, log_format: Option<&str>) -> Result<Child, AgentError> {
    let path = find()?;
    let mut command = Command::new(&path);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    if let Some(format) = log_format {
        command.arg("--log-format").arg(format);
    }
    command
        .args(["--supervise", "--stop-with-stdin"])
        .arg("--exclude-pid")
        .arg(std::process::id().to_string())
        .env("SPANTAP_SOCKET", socket)
        .stdin(Stdio::piped())
        // Standard output carries what was asked for, and nothing of the agent's.
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| AgentError::Start { path, error })
}

/// The agent's program: beside this one, else in PATH.
///
/// # Errors
/// [`AgentError::NotFound`].
pub fn find() -> Result<PathBuf, AgentError> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned())).unwrap_or_default();
    let in_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    [beside.clone()]
        .into_iter()
        .chain(in_path)
        .map(|folder| folder.join(PROGRAM))
        .find(|candidate| candidate.is_file())
        .ok_or(AgentError::NotFound { beside })
}
