//! Links inside of programs that are killed under load and started again, that collect garbage all the time, and of two versions of a
//! runtime at once.
//!
//! The truth is in the path: the number in the path that a program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    collector, compiled, host,
    load::{self, Steady},
    loops::{self, Score},
    node_environment::fetched,
    observed::{self, Observed},
    python_environment::Python,
    relays::Relay,
    servers,
    spantap::Setup,
    suite::{Suite, World},
};

const ARRIVAL: Duration = Duration::from_secs(90);
/// Links that are seen before a program is killed.
const ENOUGH: u64 = 100;
const RESTARTS: u32 = 3;

/// A program, what it does when it is asked, and how its links are found.
#[derive(Debug, Clone)]
struct Subject {
    name: &'static str,
    program: PathBuf,
    /// Before its ports.
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    mode: &'static str,
    by: &'static [&'static str],
}

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), host::lacks("go")];
    let node = |version| fetched(version).map(|node| Subject::node(node, &[]));
    let [old, new] = ["20", "24"].map(node);
    let collecting = fetched("22")
        .map(|node| Subject::node(node, &["--expose-gc", "--stress-compaction", "--max-semi-space-size=1"]));
    let python = Python::of_pyenv("3.11").map_or_else(servers::python, Ok).and_then(Python::of);
    let python = python.map(Subject::python).map_err(|error| Python::lacks(&error));
    let both = old.clone().and_then(|old| Ok([old, new?]));
    let killed = "killed_and_started_again";
    Suite::new("links_upheaval", lacks, world)
        .case(format!("go_{killed}"), |world| restarted(world, &Subject::go("go", None)?))
        .case_unless(missing(&old), format!("node_{killed}"), |world| restarted(world, &whole(old)?))
        .case_unless(missing(&python), format!("python_{killed}"), |world| restarted(world, &whole(python)?))
        .case("go_collects_garbage", |world| steady(world, &Subject::go("go", Some("1"))?))
        .case_unless(missing(&collecting), "node_collects_garbage", |world| steady(world, &whole(collecting)?))
        .case_unless(missing(&both), "two_versions_of_node_at_once", |world| at_once(world, &whole(both)?))
        .run()
}

fn missing<T>(found: &Result<T, host::Reason>) -> Option<host::Reason> {
    found.as_ref().err().cloned()
}

fn whole<T>(found: Result<T, host::Reason>) -> Result<T> {
    found.map_err(anyhow::Error::msg)
}

impl Subject {
    /// Collects garbage when the heap has grown by `percent`.
    fn go(name: &'static str, percent: Option<&str>) -> Result<Self> {
        Ok(Self {
            name,
            program: compiled::go_program("gorelay")?,
            arguments: Vec::new(),
            environment: percent.map(|percent| ("GOGC", percent.to_owned())).into_iter().collect(),
            mode: "grandchild",
            by: &["go-goroutine"],
        })
    }

    fn node(program: PathBuf, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().copied().chain(["relay.js"]).map(str::to_owned).collect();
        Self { name: "node", program, arguments, environment: Vec::new(), mode: "sleepfetch", by: &["node-async"] }
    }

    fn python(Python { program, packages }: Python) -> Self {
        let arguments = ["asyncio_relay.py", "uvicorn", "asyncio"].map(str::to_owned).to_vec();
        let environment = vec![("PYTHONPATH", packages.display().to_string())];
        Self { name: "python", program, arguments, environment, mode: "later", by: &["python-context"] }
    }

    /// In this folder, by which it is selected. `other`: whom it asks.
    fn start(&self, folder: &Path, service: &str, other: u16) -> Result<Relay> {
        Relay::start(service, |port| {
            let mut command = Command::new(&self.program);
            command.args(self.arguments.iter().map(|word| match folder.join(word) {
                script if script.is_file() => script,
                _ => word.into(),
            }));
            command.args([port.to_string(), other.to_string()]).envs(self.environment.iter().cloned());
            Ok(command)
        })
    }

    fn asked(&self) -> String {
        format!("/{}/in", self.mode)
    }
}

/// The usual world, the scripts in a folder by which they are selected, and a program that answers all of them.
struct Upheaval {
    observed: Observed,
    folder: tempfile::TempDir,
    far: Relay,
}

impl World for Upheaval {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Upheaval> {
    let folder = host::folder()?;
    for script in ["relay.js", "asyncio_relay.py"] {
        std::fs::copy(compiled::subjects().join(script), folder.path().join(script))?;
    }
    let scripts = format!("cmd_args: \"*{}/*\"", folder.path().display());
    let go = format!("exe_path: \"{}\"", compiled::go_program("gorelay")?.canonicalize()?.display());
    let entries = [&observed::subjects()?, &scripts, &go];
    let observed = Observed::start(|collector| Ok(Setup::observing(&entries.map(String::as_str), collector)))?;
    let far = Relay::threads("far", 0, "0")?;
    Ok(Upheaval { observed, folder, far })
}

/// Links of `service`, when there are more than `least` right ones among them.
fn linked(world: &mut Observed, service: &str, subject: &Subject, least: u64) -> Result<Score> {
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let score = loops::of_all(telemetry, service, subject.by);
        ensure!(score.0 > least, "{service}: right, wrong, unlinked: {score:?}");
        Ok(score)
    })
}

/// Killed in the middle of its requests, again and again: the next one has links of its own, and nothing of the one before.
fn restarted(world: &mut Upheaval, subject: &Subject) -> Result<()> {
    let service = |run| format!("{}-{run}", subject.name);
    for run in 0..RESTARTS {
        let mut near = subject.start(world.folder.path(), &service(run), world.far.port)?;
        let load = Steady::numbered(near.port, &subject.asked(), 8, 300);
        let found = linked(&mut world.observed, &service(run), subject, ENOUGH);
        near.process.kill();
        // Its clients notice, of course.
        _ = load.stop();
        found?;
    }
    world.observed.collector.settle(Duration::from_millis(700), ARRIVAL)?;
    let telemetry = world.observed.collector.telemetry()?;
    for run in 0..RESTARTS {
        let score = loops::of_all(telemetry, &service(run), subject.by);
        println!("{}: right, wrong, unlinked: {score:?}", service(run));
        ensure!(score.1 == 0, "wrong links: {} {score:?}", service(run));
    }
    Ok(())
}

/// Starts a program, asks it until links are there, then as often as is counted.
fn begin(world: &mut Upheaval, subject: &Subject, service: &str) -> Result<Relay> {
    let near = subject.start(world.folder.path(), service, world.far.port)?;
    let load = Steady::numbered(near.port, &subject.asked(), 8, 300);
    let found = linked(&mut world.observed, service, subject, ENOUGH);
    load.stop()?;
    found.map(|_| near)
}

fn score(world: &mut Upheaval, subject: &Subject, service: &str, requests: u64) -> Result<Score> {
    let path = |side, number| format!("/{}/{side}/counted-{number}", subject.mode);
    let score = world.observed.collector.wait_until(ARRIVAL, |telemetry| {
        let paths = (|number| path("in", number), |number| vec![path("out", number)]);
        loops::inside(telemetry, service, requests, paths, subject.by)
    })?;
    println!("{service}: right, wrong, unlinked: {score:?}");
    Ok(score)
}

fn counted(subject: &Subject) -> String {
    format!("{}/counted-{{n}}", subject.asked())
}

fn steady(world: &mut Upheaval, subject: &Subject) -> Result<()> {
    const REQUESTS: u64 = 1000;
    let service = format!("{}-garbage", subject.name);
    let near = begin(world, subject, &service)?;
    load::make(near.port, &counted(subject), REQUESTS, 20)?;
    is_good(&score(world, subject, &service, REQUESTS)?)
}

/// None is wrong; on a busy machine some may be missing.
fn is_good(score: &Score) -> Result<()> {
    ensure!(score.1 == 0 && score.2 * 100 <= score.0, "right, wrong, unlinked: {score:?}");
    Ok(())
}

fn at_once(world: &mut Upheaval, subjects: &[Subject; 2]) -> Result<()> {
    const REQUESTS: u64 = 1000;
    let services = ["node-one", "node-other"];
    let mut running = Vec::new();
    for (subject, service) in subjects.iter().zip(services) {
        running.push((begin(world, subject, service)?, counted(subject)));
    }
    std::thread::scope(|scope| {
        let loads: Vec<_> =
            running.iter().map(|(near, path)| scope.spawn(move || load::make(near.port, path, REQUESTS, 10))).collect();
        loads.into_iter().try_for_each(|load| load.join().ok().context("a load panicked")?)
    })?;
    for (subject, service) in subjects.iter().zip(services) {
        is_good(&score(world, subject, service, REQUESTS)?)?;
    }
    Ok(())
}
