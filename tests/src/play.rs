//! Plays a script with real sockets, one system call as the script names it.
//!
//! In: a [`Task`], signals on standard input. Out: socket traffic; lines on standard output: `listening WHERE`,
//! `signal NAME`, `done`.

mod receive;
mod sendings;
mod sockets;

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, Write},
    os::fd::OwnedFd,
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::script::{Script, Slot, Step, Task};

/// So long after it got its task a subject gives up, so that none is left behind.
const LIMIT: Duration = Duration::from_secs(60);

/// The `subject` program: plays the task in the first line of standard input, or, with `child JSON`, a
/// script on the connection that is its standard input; with `load PORT PATH REQUESTS CONNECTIONS` it makes that load.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error {error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some("load") {
        return load(&arguments.skip(1).collect::<Vec<_>>());
    }
    let (task, signals, inherited) = match (arguments.next().as_deref(), arguments.next()) {
        (Some("child"), Some(task)) => {
            let inherited = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
            (task, Signals::default(), Some(inherited))
        }
        _ => {
            say("ready");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            if line.is_empty() {
                return Ok(()); // the test has ended without a task for us
            }
            (line, Signals::from_standard_input(), None)
        }
    };
    let task: Task = serde_json::from_str(&task).context("reading the task")?;
    std::thread::spawn(|| {
        let limit = crate::host::patient(LIMIT);
        std::thread::sleep(limit);
        say(&format!("error gave up after {limit:?}"));
        std::process::exit(2);
    });
    let mut player = Player { task: task.clone(), signals, ..Player::default() };
    if let Some(connection) = inherited {
        player.sockets.insert(crate::script::CONN, connection);
    }
    player.play(&task.script, 0)?;
    say("done");
    Ok(())
}

/// Waits for a line on standard input, so that it has been found when it begins.
fn load(arguments: &[String]) -> Result<()> {
    let [port, path, requests, connections] = arguments else { bail!("load PORT PATH REQUESTS CONNECTIONS") };
    say("ready");
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? > 0 {
        crate::load::make(port.parse()?, path, requests.parse()?, connections.parse()?)?;
    }
    say("done");
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Signals that have come on standard input.
#[derive(Debug, Default, Clone)]
struct Signals(Arc<(Mutex<HashSet<String>>, Condvar)>);

impl Signals {
    fn from_standard_input() -> Self {
        let signals = Self::default();
        let writer = signals.clone();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                writer.0.0.lock().unwrap_or_else(PoisonError::into_inner).insert(line);
                writer.0.1.notify_all();
            }
            std::process::exit(3); // the test is gone
        });
        signals
    }

    fn has(&self, name: &str) -> bool {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn wait(&self, name: &str) -> Result<()> {
        let set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(set, crate::host::patient(LIMIT / 3), |set| !set.contains(name));
        match waited {
            Ok((set, _)) if set.contains(name) => Ok(()),
            _ => bail!("signal {name} did not come"),
        }
    }
}

/// Sockets of the script and what was read beyond a mark.
#[derive(Debug)]
struct Player {
    task: Task,
    signals: Signals,
    sockets: HashMap<Slot, OwnedFd>,
    pending: HashMap<Slot, Vec<u8>>,
}

impl Default for Player {
    fn default() -> Self {
        let task = Task { script: Vec::new(), peer: None, folder: String::new() };
        Self { task, signals: Signals::default(), sockets: HashMap::new(), pending: HashMap::new() }
    }
}

impl Player {
    fn play(&mut self, script: &Script, round: u32) -> Result<()> {
        for (at, step) in script.iter().enumerate() {
            self.step(step, round).with_context(|| format!("step {at} ({})", short(step)))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, round: u32) -> Result<()> {
        match step {
            Step::Listen(slot, at) => {
                let (socket, place) = sockets::listen(*at, &self.task.folder)?;
                self.sockets.insert(*slot, socket);
                say(&format!("listening {place}"));
            }
            Step::Accept(listener, slot) => {
                let connection = rustix::net::accept(self.socket(*listener)?)?;
                self.open(*slot, connection)?;
            }
            Step::Connect(slot, at) => {
                let peer = self.task.peer.as_deref().unwrap_or_default();
                let connection = sockets::connect(*at, peer)?;
                self.open(*slot, connection)?;
            }
            Step::Send(slot, data, how) => sendings::send(self.socket(*slot)?, &sendings::bytes(data, round), *how)?,
            Step::Read(slot, until, by, chunk) => {
                let mut pending = self.pending.remove(slot).unwrap_or_default();
                receive::read(self.socket(*slot)?, &mut pending, until, *by, *chunk)?;
                self.pending.insert(*slot, pending);
            }
            Step::Shutdown(slot) => rustix::net::shutdown(self.socket(*slot)?, rustix::net::Shutdown::Write)?,
            Step::Close(slot) => drop(self.take(*slot)?),
            Step::Reset(slot) => {
                let socket = self.take(*slot)?;
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            }
            Step::Dup(from, to) => {
                let copy = rustix::io::dup(self.socket(*from)?)?;
                self.sockets.insert(*to, copy);
            }
            Step::Inherit(slot, script) => sockets::inherit(self.take(*slot)?, self.child_task(script)?)?,
            Step::Pass(slot, script) => sockets::pass(self.take(*slot)?, self.child_task(script)?)?,
            Step::Take(over, slot) => {
                let connection = sockets::take_passed(self.socket(*over)?)?;
                self.open(*slot, connection)?;
            }
            Step::Signal(name) => say(&format!("signal {name}")),
            Step::Wait(name) => self.signals.wait(name)?,
            Step::Pause(milliseconds) => std::thread::sleep(Duration::from_millis(*milliseconds)),
            Step::Repeat(times, script) => (0..*times).try_for_each(|round| self.play(script, round))?,
            Step::Until(name, script) => {
                while !self.signals.has(name) {
                    self.play(script, round)?;
                }
            }
            Step::Exit => {
                say("done");
                std::process::exit(0);
            }
        }
        Ok(())
    }

    fn open(&mut self, slot: Slot, connection: OwnedFd) -> Result<()> {
        sockets::limit_waiting(&connection)?;
        self.pending.remove(&slot);
        self.sockets.insert(slot, connection);
        Ok(())
    }

    fn socket(&self, slot: Slot) -> Result<&OwnedFd> {
        self.sockets.get(&slot).with_context(|| format!("no socket in slot {slot}"))
    }

    fn take(&mut self, slot: Slot) -> Result<OwnedFd> {
        self.sockets.remove(&slot).with_context(|| format!("no socket in slot {slot}"))
    }

    fn child_task(&self, script: &Script) -> Result<String> {
        Ok(serde_json::to_string(&Task { script: script.clone(), peer: None, folder: self.task.folder.clone() })?)
    }
}

fn short(step: &Step) -> String {
    let mut text = format!("{step:?}");
    text.truncate(text.char_indices().nth(120).map_or(text.len(), |(at, _)| at));
    text
}
