//! One trace through programs of four kinds: nginx asks Node, that asks Go, that Python, that one more; no header tells of it.
//!
//! The truth is in the path: each program asks the next for the number that it was asked for, with one `in` less and one `out` more.
//! `REQUESTS`: so many of each kind, instead of 500 at 20 connections and 100 over one, where they take long and prove least.
#![allow(missing_docs)]

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin, collector, compiled, host, load,
    loops::{Score, by_path},
    observed::{self, Observed},
    python_environment::Python,
    relays::{self, Relay},
    servers,
    spantap::Setup,
    suite::{Suite, World, say_skip},
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(20);
const PYTHON: &str = "asyncio_relay.py";

fn main() -> ExitCode {
    let tools = ["nginx", "node", "go"].map(host::lacks);
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools).chain([python]);
    let python = asyncio();
    Suite::new("links_chain", lacks, world)
        // At Node and Go those that are queued wait for five connections that all share.
        .case("threads", |world| chain(world, "threads", None, &[("now", 1), ("queued", 20)]))
        .case_unless(python.as_ref().err().cloned(), "asyncio", |world| {
            chain(world, "asyncio", Some(python.map_err(anyhow::Error::msg)?), &[("now", 20)])
        })
        .run()
}

/// Python with uvicorn.
fn asyncio() -> Result<Python, host::Reason> {
    let program = Python::of_pyenv("3.11").map_or_else(servers::python, Ok).map_err(|_| "no python3".to_owned())?;
    let first = |error: anyhow::Error| format!("{error:#}").lines().next().unwrap_or_default().to_owned();
    Python::of(program).map_err(|error| format!("packages of Python: {}", first(error)))
}

/// The usual world, and a folder by whose name programs are selected.
struct Programs {
    observed: Observed,
    folder: tempfile::TempDir,
    /// Those of earlier cases: as long as they run, what has been attached to their files stays.
    kept: Vec<Relay>,
}

impl World for Programs {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Programs> {
    let folder = host::folder()?;
    let programs = folder.path().join("links-chain");
    std::fs::create_dir(&programs)?;
    std::fs::copy(compiled::go_program("gorelay")?, programs.join("gorelay"))?;
    for script in ["relay.js", PYTHON] {
        std::fs::copy(compiled::subjects().join(script), programs.join(script))?;
    }
    let [scripts, program] = ["cmd_args: \"*", "exe_path: \""].map(|by| format!("{by}{}/*\"", programs.display()));
    let observed = Observed::start(|collector| {
        let entries = [&*observed::subjects()?, &relays::scripts(), relays::NGINX, &scripts, &program];
        Ok(Setup::observing(&entries, collector))
    })?;
    Ok(Programs { observed, folder, kept: Vec::new() })
}

/// Starts all, the last one first.
fn start(world: &Programs, name: &str, python: Option<&Python>) -> Result<[Relay; 5]> {
    let at = |file: &str| world.folder.path().join("links-chain").join(file);
    let last = Relay::threads(&service(name, "last"), 0, "0.001")?;
    let relayed = service(name, "python");
    let third = match python {
        None => Relay::threads(&relayed, last.port, "0")?,
        Some(python) => Relay::start(&relayed, |port| {
            let mut command = Command::new(&python.program);
            command.arg(at(PYTHON)).args(["uvicorn", "asyncio", &port.to_string(), &last.port.to_string()]);
            command.env("PYTHONPATH", &python.packages);
            Ok(command)
        })?,
    };
    let second = Relay::start(&service(name, "go"), |port| {
        let mut command = Command::new(at("gorelay"));
        command.args([port.to_string(), third.port.to_string()]);
        Ok(command)
    })?;
    let first = Relay::start(&service(name, "node"), |port| {
        let node = host::real_program("node", &["-p", "process.execPath"])?;
        let mut command = Command::new(node);
        command.arg(at("relay.js")).args([port.to_string(), second.port.to_string()]);
        Ok(command)
    })?;
    let nginx = Relay::nginx(&service(name, "nginx"), first.port)?;
    Ok([nginx, first, second, third, last])
}

fn service(name: &str, end: &str) -> String {
    format!("chain-{name}-{end}")
}

/// Waits until the log says of each program that it is linked; `Some`: why one cannot be.
fn linked(world: &mut Programs, all: &[Relay; 5], asyncio: bool) -> Result<Option<String>> {
    let spantap = world.observed.spantap()?;
    let [_, node, _, python, _] = all;
    let exe = std::fs::read_link(format!("/proc/{}/exe", node.process.pid()))?;
    let node = format!("executable=\"{}\"", exe.display());
    let python = format!("pid={} ", python.process.pid());
    let mut wanted = vec![("requests of Node", node.as_str()), ("requests of Go", "/gorelay\"")];
    if asyncio {
        wanted.push(("requests of CPython", &python));
    }
    let without = host::wait_for("the programs to be linked", READY, || {
        let log = spantap.forwarder().log();
        let said = |parts: &[&str]| log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        let without = said(&["this kernel does not take what links Node"]);
        let all = wanted.iter().all(|(what, whose)| said(&["linking", what, whose]).is_some());
        (all || without.is_some()).then(|| without.map(str::to_owned))
    })?;
    Ok(without)
}

/// The spans of a trace from the top: who has it, its kind, its path without the number, how it is linked to the one above.
type Step = (&'static str, Kind, String, &'static [&'static str]);

fn steps(mode: &str, connections: u64, asyncio: bool) -> Vec<Step> {
    let connection: &[&str] = &["connection"];
    let [asked, second, third] =
        ["in/in/in", "out/in/in", "out/out/in"].map(|steps| format!("/{mode}/{steps}/{connections}-"));
    // The one in asyncio leaves out the steps before its own.
    let last =
        if asyncio { format!("/{mode}/out/{connections}-") } else { format!("/{mode}/out/out/out/{connections}-") };
    let inside: &[&str] = if asyncio { &["python-context"] } else { &["thread"] };
    vec![
        ("nginx", Kind::Server, format!("/chain{asked}"), &[]),
        ("nginx", Kind::Client, asked.clone(), &["event-loop-flow"]),
        ("node", Kind::Server, asked, connection),
        ("node", Kind::Client, second.clone(), &["node-async"]),
        ("go", Kind::Server, second, connection),
        ("go", Kind::Client, third.clone(), &["go-goroutine"]),
        ("python", Kind::Server, third, connection),
        ("python", Kind::Client, last.clone(), inside),
        ("last", Kind::Server, last, connection),
    ]
}

/// How the links of each step are, and how many traces are whole; or which span has not arrived.
fn judge(telemetry: &Telemetry, name: &str, steps: &[Step], requests: u64) -> Result<(Vec<Score>, u64)> {
    let spans: Vec<_> = steps.iter().map(|(end, ..)| telemetry.spans_of(&service(name, end))).collect();
    let of_step: Vec<_> = spans.iter().zip(steps).map(|(of, (_, kind, ..))| by_path(of, *kind)).collect();
    let mut scores: Vec<Score> = steps.iter().map(|_| Score::default()).collect();
    let mut whole = 0;
    for number in 0..requests {
        let mut above = None;
        let mut good = true;
        for (((end, kind, path, by), spans), score) in steps.iter().zip(&of_step).zip(&mut scores) {
            let path = format!("{path}{number}");
            let span = *spans.get(&*path).with_context(|| format!("no {kind:?} span of {end} for {path}"))?;
            match above.replace(span) {
                Some(above) => {
                    let before = score.0;
                    score.judge(span, above, by);
                    good &= score.0 > before;
                }
                None => ensure!(span.parent_span_id.is_empty(), "{path}: nobody that is observed asked nginx"),
            }
        }
        whole += u64::from(good);
    }
    Ok((scores, whole))
}

fn chain(world: &mut Programs, name: &str, python: Option<Python>, runs: &[(&'static str, u64)]) -> Result<()> {
    let asked: Option<u64> = std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok());
    let all = start(world, name, python.as_ref())?;
    world.observed.wait_observing()?;
    if let Some(without) = linked(world, &all, python.is_some())? {
        say_skip(&format!("links_chain::{name}"), &without);
        return Ok(());
    }
    let mut sum = (0, 0);
    for (mode, connections) in runs {
        let requests = asked.unwrap_or(if *connections == 1 { 100 } else { 500 });
        let before = admin::unlinked(&world.observed.spantap()?.own_metrics()?);
        let [nginx, ..] = &all;
        let run = format!("{mode}/in/in/in/{connections}-");
        load::make(nginx.port, &format!("/chain/{run}{{n}}"), requests, *connections)?;
        let steps = steps(mode, *connections, python.is_some());
        let (scores, whole) =
            world.observed.collector.wait_until(ARRIVAL, |telemetry| judge(telemetry, name, &steps, requests))?;
        let reasons = admin::lost_between(&before, &admin::unlinked(&world.observed.spantap()?.own_metrics()?));
        for ((end, kind, ..), score) in steps.iter().zip(&scores).skip(1) {
            println!("{name} {mode} {connections}: {end} {kind:?}: right, wrong, unlinked: {score:?}");
        }
        println!(
            "{name} {mode} {connections}: {whole} of {requests} traces are whole; spans without a parent: {reasons:?}"
        );
        let (wrong, missing) = scores.iter().fold((0, 0), |sum, score| (sum.0 + score.1, sum.1 + score.2));
        ensure!(wrong == 0, "{wrong} wrong links");
        // What asks nginx is not observed.
        let counted: u64 = reasons.values().sum();
        ensure!(counted == missing + requests, "{missing} missing, {requests} roots, but counted: {reasons:?}");
        sum = (sum.0 + whole, sum.1 + requests);
    }
    world.kept.extend(all);
    let (whole, of) = sum;
    // Where a sign comes late because the machine is slow there is no link, which is counted above.
    ensure!(whole * 2 >= of, "{whole} of {of} traces are whole");
    Ok(())
}
