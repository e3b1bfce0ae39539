//! The engine: found running, or built and started.
//!
//! In: this machine. Out: how to call compose.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    host::{self, Reason},
    namespaces::Host,
};

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
        /// Words that bring a program to where it runs.
        enter: Vec<String>,
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

/// The same for an engine of our own; where another one runs, it is not built for that alone.
pub fn lacks_own_engine() -> Option<Reason> {
    if std::env::args().any(|argument| argument == "--list") {
        return None;
    }
    let is_built = || {
        let path = Command::new(host::repository().join("tools/engine.sh")).arg("--path").output().ok()?;
        Path::new(String::from_utf8_lossy(&path.stdout).trim()).join("dockerd").is_file().then_some(())
    };
    if runs_here() && is_built().is_none() {
        return Some("needs an engine of its own, which tools/engine.sh builds".to_owned());
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
            tool(&[], "stop", &folder)?;
            std::fs::remove_dir_all(&folder)?;
        }
        let address = tool(&[], "start", &folder)?;
        Ok(Self::Own { programs, folder, address, enter: Vec::new() })
    }

    /// Starts ours on a host that is a network of its own, with an empty folder: there it publishes ports as Docker does by
    /// default, by rules, with docker-proxy beside them or without.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_on(host: &Host, with_proxy: bool) -> Result<Self> {
        let programs = programs().as_ref().map_err(|reason| anyhow!("{reason}"))?.clone();
        let folder = host.folder().join("engine");
        let mut enter = host.enter();
        enter.extend(["env".to_owned(), format!("ENGINE_PROXY={with_proxy}")]);
        let address = tool(&enter, "start", &folder)?;
        Ok(Self::Own { programs, folder, address, enter })
    }

    /// Makes the image `empty`: programs have to be mounted from this host.
    ///
    /// # Errors
    /// When the engine does not take it, or is not ours.
    pub fn empty_image(&self) -> Result<()> {
        let Self::Own { folder, .. } = self else { bail!("an engine of somebody else's") };
        let (tar, url) = (folder.join("empty.tar"), "http://engine/images/create?fromSrc=-&repo=empty");
        std::fs::write(&tar, [0; 10240])?;
        let mut command = Command::new("curl");
        command.args(["-sSf", "-X", "POST", "-H", "Content-Type: application/x-tar", "--unix-socket"]);
        let output =
            command.arg(folder.join("docker.sock")).arg("-T").arg(&tar).arg(url).stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && !said.contains("\"error\""), "no empty image: {said}");
        Ok(())
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
        if let Self::Own { folder, enter, .. } = self {
            let _ = tool(enter, "stop", folder);
        }
    }
}

fn tool(enter: &[String], action: &str, folder: &Path) -> Result<String> {
    let script = host::repository().join("tools/engine-run.sh").display().to_string();
    let mut words = enter.iter().map(String::as_str).chain([&*script, action]);
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).arg(folder).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "tools/engine-run.sh {action} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Bytes that a folder takes on disk.
fn size(folder: &Path) -> u64 {
    let output = Command::new("du").args(["--summarize", "--block-size=1"]).arg(folder).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
