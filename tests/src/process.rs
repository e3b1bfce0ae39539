//! One child process: started, its output kept in files, stopped by its own process id.
//!
//! In: a command. Out: a guard whose drop ends the child, politely first.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::host;

/// How long a child may take to end after SIGTERM when its guard is dropped.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// Starts `command` with empty standard input; output goes to files in `folder` named after `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, folder: &std::path::Path, mut command: Command) -> Result<Self> {
        let file = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            File::create(&path).with_context(|| format!("creating {}", path.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file("out")?)
            .stderr(file("err")?)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, folder: folder.to_path_buf() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on standard output so far.
    pub fn output(&self) -> String {
        self.read("out")
    }

    /// What it printed on standard error so far.
    pub fn log(&self) -> String {
        self.read("err")
    }

    /// The file of what it prints on standard output.
    pub fn output_file(&self) -> PathBuf {
        self.file("out")
    }

    fn file(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", self.name))
    }

    fn read(&self, end: &str) -> String {
        let bytes = std::fs::read(self.file(end)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its output and log, for the message of a failed test.
    pub fn tail(&self) -> String {
        let last = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines.get(lines.len().saturating_sub(120)..).unwrap_or_default().join("\n  ")
        };
        format!("--- {} (process {})\n  {}\n  {}", self.name, self.pid(), last(self.output()), last(self.log()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// After `limit`, with the end of its log.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let limit = host::patient(limit);
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} did not end within {limit:?}\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to stop (SIGTERM) and waits until it ends.
    ///
    /// # Errors
    /// When it is gone already, or does not end within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had ended by itself with {status}\n{}", self.name, self.tail());
        }
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    /// When the process ends before that, or after `limit`; with the end of its log.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut(&Self) -> bool) -> Result<()> {
        let limit = host::patient(limit);
        let end = Instant::now() + limit;
        while !ready(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready\n{}", self.name, self.tail());
            }
            if Instant::now() >= end {
                bail!("{} was not ready within {limit:?}\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        // A stopped process (SIGSTOP) hears SIGTERM only when it continues.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
        if self.wait(PATIENCE).is_err() {
            self.kill();
        }
    }
}
