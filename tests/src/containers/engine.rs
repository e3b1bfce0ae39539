//! The engine: found running, or built and started.
//!
//! In: this machine. Out: how to call compose.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::host::{self, Reason};

/// The first release of Docker whose list of capabilities has BPF and PERFMON.
const KNOWS_BPF: u32 = 23;
/// Bytes that our engine's folder may take before it is begun anew: each build of changed sources adds to it.
const FOLDER_LIMIT: u64 = 12 << 30;

/// An engine that answers.
#[derive(Debug)]
pub enum Engine {
    /// It ran before, and stays.
    Found,
    /// Ours, stopped when dropped.
    Own {
        /// Its programs.
        programs: PathBuf,
        /// Its socket, data, process ids.
        folder: PathBuf,
        /// Value of `DOCKER_HOST`.
        address: String,
    },
}

/// `None` if there is an engine or one can be built here, else what is missing. Builds it where that has not been done,
/// which takes minutes and says so on standard error; not for `--list`.
pub fn lacks_engine() -> Option<Reason> {
    if std::env::args().any(|argument| argument == "--list") || runs_here() {
        return None;
    }
    programs().as_ref().err().cloned()
}

fn programs() -> &'static Result<PathBuf, Reason> {
    static PROGRAMS: OnceLock<Result<PathBuf, Reason>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let tool = host::repository().join("tools/engine.sh");
        match Command::new(&tool).stderr(Stdio::inherit()).output() {
            Ok(output) if output.status.success() => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
            Ok(output) if output.status.code() == Some(3) => {
                Err("needs Docker 23 or later with compose, or Go to build an engine".to_owned())
            }
            Ok(output) => Err(format!("the container engine could not be built: {}", output.status)),
            Err(error) => Err(format!("{}: {error}", tool.display())),
        }
    })
}

/// Whether Docker runs here, with compose, new enough.
fn runs_here() -> bool {
    let said = |words: &[&str]| {
        let output = Command::new("docker").args(words).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = said(&["version", "--format", "{{.Server.Version}}"]);
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= KNOWS_BPF) && said(&["compose", "version"]).is_some()
}

impl Engine {
    /// Takes the one that runs, or starts ours.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        if runs_here() {
            return Ok(Self::Found);
        }
        let programs = programs().as_ref().map_err(|reason| anyhow!("{reason}"))?.clone();
        let folder = programs.parent().context("the engine has no folder")?.join("engine-of-tests");
        if size(&folder.join("data")) > FOLDER_LIMIT {
            tool("stop", &folder)?;
            std::fs::remove_dir_all(&folder)?;
        }
        let address = tool("start", &folder)?;
        Ok(Self::Own { programs, folder, address })
    }

    /// A command that takes compose's words.
    pub fn compose(&self) -> Command {
        match self {
            Self::Found => {
                let mut command = Command::new("docker");
                command.arg("compose");
                command
            }
            Self::Own { programs, address, .. } => {
                let mut command = Command::new(programs.join("docker-compose"));
                command.env("DOCKER_HOST", address);
                command
            }
        }
    }

    /// Sees to it that the images are there from which ours are built.
    ///
    /// # Errors
    /// When they can neither be found nor made.
    pub fn base_images(&self) -> Result<()> {
        // An engine of the user's pulls what it needs.
        let Self::Own { address, .. } = self else { return Ok(()) };
        let tool = host::repository().join("tools/base-images.sh");
        let output = Command::new(tool).env("DOCKER_HOST", address).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "tools/base-images.sh ended with {}", output.status);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Self::Own { folder, .. } = self {
            let _ = tool("stop", folder);
        }
    }
}

fn tool(action: &str, folder: &Path) -> Result<String> {
    let tool = host::repository().join("tools/engine-run.sh");
    let output = Command::new(tool).arg(action).arg(folder).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "tools/engine-run.sh {action} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Bytes that a folder takes on disk.
fn size(folder: &Path) -> u64 {
    let output = Command::new("du").args(["--summarize", "--block-size=1"]).arg(folder).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
