//! A file of end-to-end tests: named cases that share what is expensive to start.
//!
//! In: a way to start the shared world, and cases. Out: an exit code, and the usual lines of `cargo test`. What cannot
//! run here is reported as ignored and said on standard error, never passed in silence. The world starts with
//! the first case that needs it and is dropped, with all its processes, before the program ends.

use std::{
    io::Write,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Trial};

use crate::host::Reason;

/// What the cases of a file share.
pub trait World: Send + 'static {
    /// Logs that explain a failure.
    fn logs(&self) -> String;
}

impl World for () {
    fn logs(&self) -> String {
        String::new()
    }
}

type Body<W> = Box<dyn FnOnce(&mut W) -> Result<()> + Send>;
type Start<W> = Box<dyn FnOnce() -> Result<W> + Send>;

/// The cases of one file.
pub struct Suite<W> {
    name: &'static str,
    lacks: Option<Reason>,
    start: Start<W>,
    cases: Vec<(String, Option<Reason>, Body<W>)>,
}

enum State<W> {
    NotStarted(Start<W>),
    Running(W),
    Failed(String),
}

impl<W: World> Suite<W> {
    /// A file of tests. `lacks` is the first thing that is missing for all of its cases; `start` is called at most once.
    pub fn new(
        name: &'static str,
        lacks: impl IntoIterator<Item = Option<Reason>>,
        start: impl FnOnce() -> Result<W> + Send + 'static,
    ) -> Self {
        Self { name, lacks: lacks.into_iter().flatten().next(), start: Box::new(start), cases: Vec::new() }
    }

    /// Adds a case.
    #[must_use]
    pub fn case(self, name: impl Into<String>, body: impl FnOnce(&mut W) -> Result<()> + Send + 'static) -> Self {
        self.case_unless(None, name, body)
    }

    /// Adds a case that is skipped if something is missing.
    #[must_use]
    pub fn case_unless(
        mut self,
        lacks: Option<Reason>,
        name: impl Into<String>,
        body: impl FnOnce(&mut W) -> Result<()> + Send + 'static,
    ) -> Self {
        self.cases.push((name.into(), lacks, Box::new(body)));
        self
    }

    /// Runs the cases in their order, one at a time: they share counters.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let state = Arc::new(Mutex::new(State::NotStarted(self.start)));
        let mut trials = Vec::new();
        for (name, lacks, body) in self.cases {
            let missing = self.lacks.clone().or(lacks);
            let state = Arc::clone(&state);
            let trial = Trial::test(name.clone(), move || run_case(&state, body).map_err(Into::into));
            // As libtest does, `--list` starts nothing and `--ignored` insists.
            if let Some(reason) = missing.filter(|_| !arguments.list && !arguments.is_filtered_out(&trial)) {
                say_skip(&format!("{}::{name}", self.name), &reason);
                trials.push(trial.with_ignored_flag(true));
            } else {
                trials.push(trial);
            }
        }
        let conclusion = libtest_mimic::run(&arguments, trials);
        drop(state);
        conclusion.exit_code()
    }
}

fn run_case<W: World>(state: &Mutex<State<W>>, body: Body<W>) -> Result<(), String> {
    // A case that panicked poisons the lock; the world is still there for the next one.
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if matches!(*state, State::NotStarted(_)) {
        let before = std::mem::replace(&mut *state, State::Failed("starting what the cases share panicked".to_owned()));
        if let State::NotStarted(start) = before {
            *state = match start() {
                Ok(world) => State::Running(world),
                Err(error) => State::Failed(format!("{error:#}")),
            };
        }
    }
    match &mut *state {
        State::Running(world) => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(world)))
                .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))));
            outcome.map_err(|error| format!("{error:#}\n{}", world.logs()))
        }
        State::Failed(why) => Err(why.clone()),
        State::NotStarted(_) => Err("not started".to_owned()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

/// Says on standard error that `what` is skipped and why, and writes it down in the file of `SPANTAP_SKIPS` for the
/// count at the end of `make test`.
pub fn say_skip(what: &str, reason: &str) {
    let line = format!("SKIP: {what}: {reason}");
    let _ = writeln!(std::io::stderr(), "{line}");
    let file =
        std::env::var_os("SPANTAP_SKIPS").map(|path| std::fs::OpenOptions::new().append(true).create(true).open(path));
    if let Some(Ok(mut file)) = file {
        let _ = writeln!(file, "{line}");
    }
}
