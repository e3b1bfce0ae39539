//! A container engine and one compose project on it.
//!
//! In: the repository's compose files. Out: guarded containers, what they print, their processes on this host. An
//! engine that runs here already is taken if it knows the capabilities; else one of tools/engine.sh is started on its own
//! socket and folder, and stopped again.

mod engine;
pub mod kernel;
pub mod printed;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use engine::{Engine, lacks_engine, lacks_own_engine};

use crate::{host, process::Process, spantap};

/// Longest time for a command of compose that does not build.
const PATIENCE: Duration = Duration::from_secs(120);

/// A project: the compose files of the repository with an environment. Dropping it removes its containers, networks and
/// volumes, then stops the engine if it is ours.
#[derive(Debug)]
pub struct Project {
    engine: Engine,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    up: Option<Process>,
    calls: u32,
}

impl Project {
    /// Starts nothing but the engine.
    ///
    /// # Errors
    /// When there is no engine.
    pub fn new(environment: &[(&str, String)]) -> Result<Self> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Ok(Self { engine: Engine::start()?, folder: host::folder()?, environment, up: None, calls: 0 })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine.compose();
        spantap::clear_environment(&mut command);
        command.current_dir(host::repository());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A user may have the same project running.
        command.args(["--project-name", "spantap-test", "--ansi", "never", "--profile", "demo"]).args(words);
        command
    }

    /// Runs compose with `words` to its end and returns its standard output.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`, with the end of what it said.
    pub fn run_for(&mut self, words: &[&str], limit: Duration) -> Result<String> {
        self.calls += 1;
        let mut process = Process::start(&format!("compose-{}", self.calls), self.folder.path(), self.command(words))?;
        let status = process.wait(limit)?;
        ensure!(status.success(), "compose {words:?} ended with {status}\n{}", process.tail());
        Ok(process.output())
    }

    /// As [`Project::run_for`], for what takes seconds.
    ///
    /// # Errors
    /// The same.
    pub fn run(&mut self, words: &[&str]) -> Result<String> {
        self.run_for(words, PATIENCE)
    }

    /// Starts compose with `words` and leaves it running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, name: &str, words: &[&str]) -> Result<Process> {
        Process::start(name, self.folder.path(), self.command(words))
    }

    /// `docker compose up` as a user types it, in the foreground; its output is [`Project::output`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn up(&mut self) -> Result<()> {
        self.up = Some(self.spawn("up", &["up", "--no-build"])?);
        Ok(())
    }

    /// What the containers of `service` printed since [`Project::up`], without compose's column of names.
    pub fn output(&self, service: &str) -> Vec<String> {
        let all = self.up.as_ref().map(Process::output).unwrap_or_default();
        let of_service = |line: &str| {
            let (name, text) = line.split_once('|')?;
            let name = name.trim().rsplit_once('-')?.0;
            (name == service).then(|| text.strip_prefix(' ').unwrap_or(text).to_owned())
        };
        all.lines().filter_map(of_service).collect()
    }

    /// Id of the container of `service`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn container(&mut self, service: &str) -> Result<String> {
        let id = self.run(&["ps", "--quiet", "--no-trunc", service])?.trim().to_owned();
        ensure!(id.len() == 64, "no container of {service} runs");
        Ok(id)
    }

    /// Pid on this host of the program `exe` in the container of `service`.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid(&mut self, service: &str, exe: &str) -> Result<u32> {
        let id = self.container(service)?;
        let of_container = |pid: &u32| {
            let exe_is = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.as_os_str() == exe);
            exe_is && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(&id))
        };
        pids().find(of_container).with_context(|| format!("no process {exe} in the container of {service}"))
    }

    /// State of the container of `service`, such as `running`, and its health, such as `healthy`.
    ///
    /// # Errors
    /// When there is none.
    pub fn state(&mut self, service: &str) -> Result<(String, String)> {
        let line = self.run(&["ps", "--all", "--format", "json", service])?;
        let value: Value = serde_json::from_str(line.trim()).with_context(|| format!("compose ps said: {line}"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok((text("State"), text("Health")))
    }

    /// Names of the project's volumes.
    ///
    /// # Errors
    /// When compose fails.
    pub fn volumes(&mut self) -> Result<String> {
        self.run(&["volumes", "--quiet"])
    }

    /// Stops and removes containers, networks and volumes.
    ///
    /// # Errors
    /// When compose fails.
    pub fn down(&mut self) -> Result<()> {
        self.run(&["down", "--volumes", "--timeout", "15"])?;
        // It ends with the last of its containers.
        if let Some(mut up) = self.up.take() {
            up.wait(Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// The end of what the containers printed.
    pub fn tail(&self) -> String {
        self.up.as_ref().map(Process::tail).unwrap_or_default()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // By hand first, because a stopped `up` leaves containers and networks.
        let _ = self.command(&["down", "--volumes", "--timeout", "5"]).output();
    }
}

/// Ids of all processes of this host.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
