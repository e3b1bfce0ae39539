//! The programs under test: one command, or agent and forwarder apart under different users.
//!
//! In: a configuration. Out: guarded processes, their own numbers, how they ended.

mod setup;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use setup::{Mode, Setup};

use crate::{
    admin::{self, Losses},
    host, http,
    process::Process,
};

/// Longest time from start to ready.
const READY: Duration = Duration::from_secs(20);
/// The contract's `shutdown_timeout` of 10 s, and a little.
const DRAINED: Duration = Duration::from_secs(15);
/// User and group `nobody` of Debian.
const NOBODY: &str = "65534";

/// Running Spantap.
#[derive(Debug)]
pub struct Spantap {
    forwarder: Process,
    /// Only in [`Mode::Split`].
    agent: Option<Process>,
    folder: tempfile::TempDir,
    programs: PathBuf,
    setup: Setup,
    starts: u32,
    /// Port of the admin address.
    pub admin: u16,
}

impl Spantap {
    fn start(setup: Setup) -> Result<Self> {
        let folder = host::folder()?;
        let admin = host::free_port()?;
        let run = folder.path().join("run");
        std::fs::create_dir(&run)?;
        // The forwarder makes the socket here, under whatever user it ends up; nobody else may write the folder.
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
        if setup.mode == Mode::Split {
            let id = NOBODY.parse().context("the number of nobody")?;
            std::os::unix::fs::chown(&run, Some(id), Some(id)).context("giving the socket's folder to nobody")?;
        }
        let own = format!(
            "spantap:\n  admin: 127.0.0.1:{admin}\n  socket: {}/ingest.sock\n{}",
            run.display(),
            setup.own_keys
        );
        std::fs::write(folder.path().join("spantap.yml"), format!("{}{own}", setup.yaml))?;
        let programs = reachable_programs(folder.path())?;

        let forwarder = launch(&setup, &programs, folder.path(), Role::of_forwarder(setup.mode), 0)?;
        let agent = match setup.mode {
            Mode::OneCommand => None,
            Mode::Split => Some(launch(&setup, &programs, folder.path(), Role::Agent, 0)?),
        };
        let mut spantap = Self { forwarder, agent, folder, programs, setup, starts: 1, admin };
        spantap.wait_ready()?;
        Ok(spantap)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (admin, page) = (self.admin, self.setup.ready_page);
        let ready = self.forwarder.wait_ready(READY, |_| http::get(admin, page).is_ok_and(|a| a.status == 200));
        ready.with_context(|| self.agent.as_ref().map(Process::tail).unwrap_or_default())
    }

    /// The forwarder's process; in one-command mode the one that was started.
    pub fn forwarder(&mut self) -> &mut Process {
        &mut self.forwarder
    }

    /// The configuration file that it was started with.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("spantap.yml")
    }

    /// The forwarder's process id.
    pub fn forwarder_pid(&self) -> u32 {
        self.forwarder.pid()
    }

    /// The agent's process id: the process started apart, or the child of the one command's child, which supervises it.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent_pid(&self) -> Result<u32> {
        match &self.agent {
            Some(agent) => Ok(agent.pid()),
            None => child_of(self.forwarder.pid())
                .and_then(child_of)
                .context("spantap has no child, or that one none: where is the agent?"),
        }
    }

    /// The agent's process in split mode.
    ///
    /// # Errors
    /// In one-command mode.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent was not started apart")
    }

    /// Stops the agent and starts another, split mode only. `between` runs while there is none.
    ///
    /// # Errors
    /// When it does not end with code 0 in time, or the next is not ready.
    pub fn restart_agent(&mut self, between: impl FnOnce()) -> Result<()> {
        expect_clean(self.agent()?.stop(DRAINED)?)?;
        between();
        self.start_agent()
    }

    /// Stops the forwarder and starts another, split mode only. `between` runs while there is none.
    ///
    /// # Errors
    /// When it does not end with code 0 in time, or the next is not ready.
    pub fn restart_forwarder(&mut self, between: impl FnOnce()) -> Result<()> {
        expect_clean(self.forwarder.stop(DRAINED)?)?;
        between();
        self.start_forwarder()
    }

    /// Kills the forwarder and starts another, split mode only. `between` runs while there is none.
    ///
    /// # Errors
    /// When the next is not ready.
    pub fn kill_forwarder(&mut self, between: impl FnOnce()) -> Result<()> {
        self.forwarder.kill();
        between();
        self.start_forwarder()
    }

    fn start_forwarder(&mut self) -> Result<()> {
        self.forwarder = launch(&self.setup, &self.programs, self.folder.path(), Role::Forward, self.starts)?;
        self.starts += 1;
        self.wait_ready()
    }

    /// Starts an agent after the one before has ended by itself or was killed, split mode only.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(launch(&self.setup, &self.programs, self.folder.path(), Role::Agent, self.starts)?);
        self.starts += 1;
        self.wait_ready()
    }

    /// Starts another agent beside the one that runs, and waits until that has ended by itself, split mode only. Returns how.
    ///
    /// # Errors
    /// When the first does not end in time, or the next is not ready.
    pub fn replace_agent(&mut self) -> Result<ExitStatus> {
        let next = launch(&self.setup, &self.programs, self.folder.path(), Role::Agent, self.starts)?;
        self.starts += 1;
        let ended = self.agent()?.wait(DRAINED + READY);
        let before = self.agent.replace(next);
        let ended = ended.with_context(|| before.as_ref().map(Process::tail).unwrap_or_default())?;
        self.wait_ready()?;
        Ok(ended)
    }

    /// Log of the forwarder's start with this number, from 0; split mode only.
    pub fn log_of_start(&self, start: u32) -> String {
        let path = self.folder.path().join(format!("spantap-forward-{start}.err"));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Text of Spantap's own metrics.
    ///
    /// # Errors
    /// When the admin address does not answer with 200.
    pub fn own_metrics(&self) -> Result<String> {
        let answer = http::get(self.admin, "/metrics").context("asking the admin address")?;
        if answer.status != 200 {
            bail!("the admin address answered {}", answer.status);
        }
        Ok(answer.text())
    }

    /// What it says it lost so far, by reason.
    ///
    /// # Errors
    /// As [`Spantap::own_metrics`].
    pub fn losses(&self) -> Result<Losses> {
        Ok(admin::losses(&self.own_metrics()?))
    }

    /// What the forwarder, or the one command, printed on standard output.
    pub fn output(&self) -> String {
        self.forwarder.output()
    }

    /// Stops everything and returns the log of the forwarder, or of the one command, with the summary at its end.
    ///
    /// # Errors
    /// When a process does not end with code 0 within the shutdown timeout.
    pub fn stop(mut self) -> Result<String> {
        if let Some(agent) = &mut self.agent {
            expect_clean(agent.stop(DRAINED)?).with_context(|| agent.tail())?;
        }
        expect_clean(self.forwarder.stop(DRAINED)?).with_context(|| self.forwarder.tail())?;
        Ok(self.forwarder.log())
    }

    /// The ends of the logs.
    pub fn tail(&self) -> String {
        let agent = self.agent.as_ref().map(Process::tail).unwrap_or_default();
        let losses = self.losses().map(|l| l.into_iter().filter(|(_, n)| *n > 0).collect::<Losses>());
        format!("{}\n{agent}\nlosses: {losses:?}", self.forwarder.tail())
    }
}

#[derive(Debug, Clone, Copy)]
enum Role {
    OneCommand,
    Forward,
    Agent,
}

impl Role {
    fn of_forwarder(mode: Mode) -> Self {
        if mode == Mode::Split { Self::Forward } else { Self::OneCommand }
    }
}

fn launch(setup: &Setup, programs: &Path, folder: &Path, role: Role, start: u32) -> Result<Process> {
    let config = folder.join("spantap.yml");
    let (name, mut command) = match role {
        Role::OneCommand => ("spantap", Command::new(programs.join("spantap"))),
        Role::Agent => ("spantap-agent", Command::new(programs.join("spantap-agent"))),
        Role::Forward => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs", "--"]);
            command.arg(programs.join("spantap")).arg("forward");
            ("spantap-forward", command)
        }
    };
    command.arg("--config").arg(config);
    clear_environment(&mut command);
    command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
    Process::start(&format!("{name}-{start}"), folder, command)
}

/// Variables of the caller that would change a configuration under test.
pub fn clear_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["OTEL_", "BEYLA_", "SPANTAP_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

fn expect_clean(status: ExitStatus) -> Result<()> {
    if status.code() != Some(0) {
        bail!("ended with {status}, expected exit code 0 after SIGTERM");
    }
    Ok(())
}

/// Both programs, side by side, where every user may run them: a checkout below /root is closed to others.
///
/// # Errors
/// When they have not been built.
pub fn reachable_programs(folder: &Path) -> Result<PathBuf> {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin)?;
    for program in ["spantap", "spantap-agent"] {
        let from = host::built(program)?;
        let to = bin.join(program);
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
    }
    Ok(bin)
}

/// The first child of a process.
pub fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    })
}
