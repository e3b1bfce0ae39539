//! Programs started one by one, each under the user and with the capabilities that a test wants.
//!
//! In: what to observe, the words before a program's name (such as `setpriv …`). Out: guarded processes in one folder that share
//! a configuration and an ingest socket; exchanges are printed, so that no Collector is needed.

use std::{
    cell::Cell,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    host, http,
    process::Process,
    spantap::{clear_environment, reachable_programs},
};

/// Longest time for a start, an end, or an exchange to be printed; agents are started again within it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A folder with programs, configuration and socket.
#[derive(Debug)]
pub struct Place {
    folder: tempfile::TempDir,
    programs: PathBuf,
    started: Cell<u32>,
}

/// What a program that has ended said.
#[derive(Debug)]
pub struct Ended {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard error.
    pub log: String,
}

impl Place {
    /// `port` is observed; `own_keys` are further lines under `spantap:`, each with two blanks before and a line break after.
    ///
    /// # Errors
    /// When a program has not been built.
    pub fn new(port: u16, own_keys: &str) -> Result<Self> {
        let folder = host::folder()?;
        let programs = reachable_programs(folder.path())?;
        let run = folder.path().join("run");
        std::fs::create_dir(&run)?;
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
        let place = Self { folder, programs, started: Cell::default() };
        place.configure(&format!(
            "discovery:\n  instrument:\n    - open_ports: {port}\nspantap:\n  console: json\n  admin: \"off\"\n  socket: {}\n{own_keys}",
            place.socket().display()
        ))?;
        Ok(place)
    }

    /// Writes another configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        std::fs::write(self.configuration(), yaml).context("writing the configuration")
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("spantap.yml")
    }

    /// The ingest socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/ingest.sock")
    }

    /// Folder that lives as long as the place.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `before` and then a program with its arguments. A forwarder under another user gets the socket's folder.
    pub fn command(&self, before: &[&str], program: &str, arguments: &[&str]) -> Command {
        let user = before.iter().position(|word| *word == "--reuid").and_then(|at| before.get(at + 1)?.parse().ok());
        if let Some(user) = user.filter(|_| program == "spantap") {
            // Without the right to it the program says that it may not write there.
            let _ = chown(self.folder.path().join("run"), Some(user), Some(user));
        }
        let program = self.programs.join(program);
        let mut command = match before.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(arguments).arg("--config").arg(self.configuration());
        clear_environment(&mut command);
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, before: &[&str], program: &str, arguments: &[&str]) -> Result<Process> {
        let number = self.started.replace(self.started.get() + 1);
        let command = self.command(before, program, arguments);
        Process::start(&format!("{program}-{number}"), self.folder.path(), command)
    }

    /// Starts it and waits until its log has this text.
    ///
    /// # Errors
    /// When it ends before, or says nothing of the kind in time.
    pub fn start_until(&self, before: &[&str], program: &str, arguments: &[&str], says: &str) -> Result<Process> {
        let mut process = self.start(before, program, arguments)?;
        process
            .wait_ready(LIMIT, |process| process.log().contains(says))
            .with_context(|| format!("saying {says:?}"))?;
        Ok(process)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run(&self, before: &[&str], program: &str, arguments: &[&str]) -> Result<Ended> {
        let mut process = self.start(before, program, arguments)?;
        let status = process.wait(LIMIT)?;
        Ok(Ended { code: status.code(), log: process.log() })
    }
}

impl Ended {
    /// Whether it ended with this code and said all of this.
    ///
    /// # Errors
    /// When not.
    pub fn expect(&self, code: i32, mentions: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "exit code {:?}, not {code}: {}", self.code, self.log);
        for text in mentions {
            ensure!(self.log.contains(text), "nothing is said of {text:?}: {}", self.log);
        }
        Ok(())
    }
}

/// Asks the server on `port` for `path` until `forwarder` has printed such an exchange.
///
/// # Errors
/// When it prints none in time, or ends.
pub fn observed(forwarder: &mut Process, port: u16, path: &str) -> Result<()> {
    forwarder
        .wait_ready(LIMIT, |forwarder| {
            let answered = http::get(port, path).is_ok_and(|answer| answer.status == 200);
            answered && forwarder.output().contains(&format!("\"{path}\""))
        })
        .with_context(|| format!("no exchange for {path} was printed"))
}
