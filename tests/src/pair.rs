//! Two subjects that talk to each other: a server and a client, each a process of its own.
//!
//! In: two scripts, or a program that serves. Out: the exchange has happened; the subjects' process ids.
//!
//! Subjects are started ahead of their task, so that Spantap has found them when they begin.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    host,
    script::{Script, Task},
};

/// What a subject has said.
#[derive(Debug, Default)]
struct Heard {
    signals: HashSet<String>,
    listening: Option<String>,
    done: bool,
    error: Option<String>,
    /// Its standard output has ended.
    ended: bool,
}

#[derive(Debug, Default)]
struct Ear(Mutex<Heard>, Condvar);

impl Ear {
    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.1.notify_all();
    }

    fn wait<T>(&self, what: &str, limit: Duration, mut look: impl FnMut(&Heard) -> Option<T>) -> Result<T> {
        let limit = host::patient(limit);
        let end = Instant::now() + limit;
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = look(&heard) {
                return Ok(value);
            }
            if let Some(error) = &heard.error {
                bail!("{what}: {error}");
            }
            let left = end.saturating_duration_since(Instant::now());
            if heard.ended || left.is_zero() {
                bail!(
                    "{what}: {} after {limit:?}: {heard:?}",
                    if heard.ended { "the subject ended" } else { "nothing" }
                );
            }
            heard = self.1.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

type Mouth = Arc<Mutex<Option<ChildStdin>>>;

/// One subject.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    mouth: Mouth,
    ear: Arc<Ear>,
}

impl Subject {
    /// Starts `command`, which speaks the lines of `play`; `service` becomes its OTEL_SERVICE_NAME.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, service: &str) -> Result<Self> {
        command.env("OTEL_SERVICE_NAME", service).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let mouth = Arc::new(Mutex::new(child.stdin.take()));
        let output = child.stdout.take().context("no standard output")?;
        let ear = Arc::new(Ear::default());
        let writer = Arc::clone(&ear);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                writer.change(|heard| match line.split_once(' ') {
                    Some(("signal", name)) => drop(heard.signals.insert(name.to_owned())),
                    Some(("listening", place)) => heard.listening = Some(place.to_owned()),
                    Some(("error", text)) => heard.error = Some(text.to_owned()),
                    _ if line == "done" => heard.done = true,
                    _ => {}
                });
            }
            writer.change(|heard| heard.ended = true);
        });
        Ok(Self { child, mouth, ear })
    }

    /// Starts the `subject` program of this crate.
    ///
    /// # Errors
    /// When it has not been built or cannot be started.
    pub fn scripted(service: &str) -> Result<Self> {
        Self::start(Command::new(host::own("subject")?), service)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it is gone.
    pub fn tell(&self, line: &str) -> Result<()> {
        let mut mouth = self.mouth.lock().unwrap_or_else(PoisonError::into_inner);
        let mouth = mouth.as_mut().context("standard input is closed")?;
        writeln!(mouth, "{line}").and_then(|()| mouth.flush()).context("telling a subject")
    }

    /// Hands out its task.
    ///
    /// # Errors
    /// When it is gone.
    pub fn begin(&self, script: &Script, peer: Option<String>, folder: &Path) -> Result<()> {
        let task = Task { script: script.clone(), peer, folder: folder.display().to_string() };
        self.tell(&serde_json::to_string(&task)?)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When it does not say so within 10 s.
    pub fn listening(&self) -> Result<String> {
        self.ear.wait("listening", Duration::from_secs(10), |heard| heard.listening.clone())
    }

    /// Waits until it gives a signal.
    ///
    /// # Errors
    /// When it fails or ends before, or after `limit`.
    pub fn wait_signal(&self, name: &str, limit: Duration) -> Result<()> {
        self.ear.wait(name, limit, |heard| heard.signals.contains(name).then_some(()))
    }

    /// Waits until it has played to its end.
    ///
    /// # Errors
    /// When it fails or ends before, or after `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        self.ear.wait("playing to the end", limit, |heard| heard.done.then_some(()))?;
        // The end of its input ends what does not end by itself.
        *self.mouth.lock().unwrap_or_else(PoisonError::into_inner) = None;
        host::wait_for("the subject's end", Duration::from_secs(10), || self.child.try_wait().ok().flatten()).map(drop)
    }

    /// Ends it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server and a client that hear each other's signals.
#[derive(Debug)]
pub struct Pair {
    /// The one that listens.
    pub server: Subject,
    /// The one that connects.
    pub client: Subject,
}

impl Pair {
    /// Starts both; they wait for their task. Their services are called `{name}-server` and `{name}-client`.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn prepare(name: &str) -> Result<Self> {
        let server = Subject::scripted(&format!("{name}-server"))?;
        Ok(Self { server, client: Subject::scripted(&format!("{name}-client"))? })
    }

    /// Hands out the tasks; returns when both have begun.
    ///
    /// # Errors
    /// When the server does not listen.
    pub fn begin(&self, server: &Script, client: &Script, folder: &Path) -> Result<()> {
        self.server.begin(server, None, folder)?;
        let place = self.server.listening()?;
        relay(&self.server, &self.client);
        relay(&self.client, &self.server);
        self.client.begin(client, Some(place), folder)
    }

    /// Gives a signal to both.
    ///
    /// # Errors
    /// When one is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.server.tell(name)?;
        self.client.tell(name)
    }

    /// Waits until both have played to their end.
    ///
    /// # Errors
    /// When one fails, or after `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        self.client.finish(limit).context("client")?;
        self.server.finish(limit).context("server")
    }
}

/// Passes the signals of one on to the other until it has ended.
fn relay(from: &Subject, to: &Subject) {
    let (ear, mouth) = (Arc::clone(&from.ear), Arc::clone(&to.mouth));
    std::thread::spawn(move || {
        let mut told = HashSet::new();
        let mut heard = ear.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for name in heard.signals.difference(&told.clone()) {
                if let Some(mouth) = mouth.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                    let _ = writeln!(mouth, "{name}").and_then(|()| mouth.flush());
                }
                told.insert(name.clone());
            }
            if heard.ended {
                return;
            }
            heard = ear.1.wait(heard).unwrap_or_else(PoisonError::into_inner);
        }
    });
}
