//! Links inside of programs of Node: from a request to those that its handler makes, at once and through callbacks and promises.
//!
//! The truth is in the path: the number in the path that the program is asked for is in the path that it asks for. Tried are
//! the versions of `tools/node.sh`, one of them with frameworks on top, and programs that `NODES` names, with colons between them. `REQUESTS`: requests of each kind, at
//! 1, 20 and 100 connections instead of some at 20, and all of them over TLS as well. `MODES`: names of kinds with commas between
//! them, instead of all.
#![allow(missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    certificate::Certificate,
    collector, compiled, host,
    https::succeeds,
    load,
    loops::{self, Score},
    node_environment::fetched,
    observed::{self, Observed},
    relays::Relay,
    spantap::Setup,
    suite::{Suite, World},
};

const ARRIVAL: Duration = Duration::from_secs(90);
const READY: Duration = Duration::from_secs(20);
/// What the log says of a program that is linked.
const LINKED: &str = "linking requests of Node";
const ASYNC: &[&str] = &["node-async"];
const VERSIONS: [&str; 3] = ["20", "22", "24"];
/// Requests of each kind unless `REQUESTS` says how many.
const FEW: u64 = 120;
const MODES: [&str; 13] = [
    "now",
    "fresh",
    "named",
    "two",
    "sleep",
    "timer",
    "immediate",
    "queued",
    "fetch",
    "sleepfetch",
    "three",
    "base",
    "file",
];

/// Over TLS: how the program is asked (`s`: over TLS) and asks, and kinds of which each has its own way there.
const OVER_TLS: [(&str, &[&str]); 3] = [
    ("hs", &["now", "fresh", "two", "queued", "fetch", "three"]),
    ("sh", &["now", "sleep", "fetch"]),
    ("ss", &["now", "fresh", "sleepfetch"]),
];

/// What serves on top of Node's own module, with which version.
const FRAMEWORKS: [(&str, &str); 2] = [("express", "22"), ("fastify", "22")];

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), host::lacks("openssl")];
    let mut suite = Suite::new("links_node", lacks, world);
    let versions = VERSIONS.into_iter().map(|version| (format!("node{version}"), fetched(version)));
    let named = named().into_iter().enumerate().map(|(number, node)| (format!("named{number}"), Ok(node)));
    let counts: &[u64] = if asked().is_some() { &[1, 20, 100] } else { &[20] };
    for (name, node) in versions.chain(named) {
        for connections in counts {
            let (service, node) = (format!("{name}-{connections}"), node.clone());
            let lacks = node.as_ref().err().cloned();
            suite = suite.case_unless(lacks, format!("{name}_{connections}"), move |world| {
                every_mode(world, &node.map_err(anyhow::Error::msg)?, &service, *connections)
            });
        }
    }
    for (framework, version) in FRAMEWORKS {
        let needed = fetched(version).and_then(|node| Ok((node, fetched("packages")?)));
        let lacks = needed.as_ref().err().cloned();
        suite = suite.case_unless(lacks, format!("{framework}_{version}"), move |world| {
            let (node, packages) = needed.map_err(anyhow::Error::msg)?;
            on_top(world, &node, framework, &packages)
        });
    }
    let lacks = host::lacks("strip").or_else(|| fetched("22").err());
    suite.case_unless(lacks, "stripped", stripped).run()
}

/// Requests of each kind, if that was said.
fn asked() -> Option<u64> {
    std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok())
}

fn named() -> Vec<PathBuf> {
    let named = std::env::var("NODES").unwrap_or_default();
    named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

/// The usual world, and a folder from which the program runs, so that it is selected by that.
struct Nodes {
    observed: Observed,
    folder: tempfile::TempDir,
    certificate: Certificate,
}

impl World for Nodes {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Nodes> {
    let folder = host::folder()?;
    let programs = folder.path().join("links-node");
    std::fs::create_dir(&programs)?;
    std::fs::copy(compiled::subjects().join("relay.js"), programs.join("relay.js"))?;
    let selected = format!("cmd_args: \"*{}/*\"", programs.display());
    let observed = Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &selected], collector)))?;
    Ok(Nodes { observed, folder, certificate: Certificate::make()? })
}

/// A program, and the port where it is asked over TLS.
struct Program(Relay, u16);

/// `node`: what runs it. `other`: whom it asks.
fn start(world: &Nodes, mut node: Command, service: &str, other: Option<&Program>) -> Result<Program> {
    let tls = host::free_port()?;
    let (plain, over_tls) = other.map_or((1, 1), |Program(other, tls)| (other.port, *tls));
    let relay = Relay::start(service, |port| {
        node.arg(world.folder.path().join("links-node/relay.js"));
        node.args([port, plain, tls, over_tls].map(|port| port.to_string()));
        // What asks by fetch takes no certificate that nobody trusts otherwise.
        node.args([world.certificate.file(), world.certificate.key()]).env("NODE_TLS_REJECT_UNAUTHORIZED", "0");
        Ok(node)
    })?;
    Ok(Program(relay, tls))
}

/// A program that asks another one, both observed. `near`: what runs the first. `said`: what the log says of it first.
fn pair(world: &mut Nodes, (near, service): (Command, &str), said: &str) -> Result<[Program; 2]> {
    let file = Path::new(near.get_program()).canonicalize()?;
    let far = start(world, Command::new(&file), &format!("{service}-far"), None)?;
    let near = start(world, near, service, Some(&far))?;
    world.observed.wait_observing()?;
    let spantap = world.observed.spantap()?;
    let file = file.to_str().context("the path of node")?;
    host::wait_for("the log to name the program", READY, || {
        spantap.forwarder().log().lines().any(|line| line.contains(said) && line.contains(file)).then_some(())
    })?;
    // The same in its own metrics.
    let state = if said.contains("not linked") { "not_linked" } else { "linked" };
    let reason = host::wait_for("the metrics to name the program", READY, || {
        admin::linked(&spantap.own_metrics().ok()?, file, "Node", state)
    })?;
    ensure!(reason.contains("no symbol") == (state == "not_linked"), "{reason:?}");
    Ok([near, far])
}

/// How the links of requests are that `load::make` has asked for.
fn score(world: &mut Nodes, service: &str, mode: &str, requests: u64) -> Result<Score> {
    let count = match kind(mode) {
        "two" => 2,
        "three" => 3,
        _ => 0,
    };
    let asks = |number: u64| {
        let path = format!("/{mode}/out/{number}");
        if count > 0 { (0..count).map(|n| format!("{path}/{n}")).collect() } else { vec![path] }
    };
    world.observed.collector.wait_until(ARRIVAL, |telemetry| {
        loops::inside(telemetry, service, requests, (|number| format!("/{mode}/in/{number}"), asks), ASYNC)
    })
}

/// Of a name that tells the way as well, as `relay.js` takes it.
fn kind(mode: &str) -> &str {
    mode.split_once('_').map_or(mode, |(_, kind)| kind)
}

/// All that are tried: without TLS each kind, over TLS some unless `REQUESTS` asks for more.
fn modes() -> Vec<String> {
    let over_tls = OVER_TLS.into_iter().flat_map(|(way, kinds)| {
        let kinds = if asked().is_some() { &MODES } else { kinds };
        kinds.iter().map(move |kind| format!("{way}_{kind}"))
    });
    let all = MODES.into_iter().map(str::to_owned).chain(over_tls);
    match std::env::var("MODES") {
        Ok(wanted) => all.filter(|mode| wanted.split(',').any(|name| name == mode)).collect(),
        Err(_) => all.collect(),
    }
}

fn every_mode(world: &mut Nodes, node: &Path, service: &str, connections: u64) -> Result<()> {
    let requests = asked().unwrap_or(FEW);
    let [near, far] = pair(world, (Command::new(node), service), LINKED)?;
    // Asks the program over TLS for what it is asked for without.
    let front = start(world, Command::new(node), &format!("{service}-front"), Some(&near))?;
    world.observed.wait_observing()?;
    let modes = modes();
    for mode in &modes {
        let (port, path) =
            if mode.starts_with('s') && mode.contains('_') { (front.0.port, "/pass") } else { (near.0.port, "") };
        load::make(port, &format!("{path}/{mode}/in/{{n}}"), requests, connections)?;
    }
    let scores = scores(world, service, &modes, requests);
    drop((front, near, far));
    judge(service, scores)
}

/// A framework on top of Node's own module, over plain connections.
fn on_top(world: &mut Nodes, node: &Path, framework: &str, packages: &Path) -> Result<()> {
    let requests = asked().unwrap_or(FEW);
    let mut command = Command::new(node);
    command.env("FRAMEWORK", framework).env("NODE_PATH", packages);
    let [near, far] = pair(world, (command, framework), LINKED)?;
    let modes: Vec<_> = modes().into_iter().filter(|mode| !mode.contains('_')).collect();
    for mode in &modes {
        load::make(near.0.port, &format!("/{mode}/in/{{n}}"), requests, 20)?;
    }
    let scores = scores(world, framework, &modes, requests);
    drop((near, far));
    judge(framework, scores)
}

type Scores = Vec<(String, Result<Score>)>;

fn scores(world: &mut Nodes, service: &str, modes: &[String], requests: u64) -> Scores {
    modes.iter().map(|mode| (mode.clone(), score(world, service, mode, requests))).collect()
}

fn judge(service: &str, scores: Scores) -> Result<()> {
    let mut sum = Score::default();
    for (mode, score) in scores {
        let score = score?;
        println!("{service} {mode}: right, wrong, unlinked: {score:?}");
        ensure!(score.1 == 0, "wrong links: {mode} {score:?}");
        sum = Score(sum.0 + score.0, 0, sum.2 + score.2);
    }
    sum.is_good()
}

/// Without V8's own symbols some links would be wrong: there are none.
fn stripped(world: &mut Nodes) -> Result<()> {
    let node = world.folder.path().join("links-node/node");
    let original = fetched("22").map_err(anyhow::Error::msg)?;
    succeeds(Command::new("strip").arg("-o").arg(&node).arg(original))?;
    let [near, far] = pair(world, (Command::new(&node), "stripped"), "requests of this program are not linked")?;
    load::make(near.0.port, "/base/in/{n}", FEW, 20)?;
    let score = score(world, "stripped", "base", FEW)?;
    drop((near, far));
    ensure!(score == Score(0, 0, FEW), "{score:?}");
    Ok(())
}
