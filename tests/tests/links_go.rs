//! Links inside of Go's net/http: from a request to those that its handler makes, by itself and through others.
//!
//! The truth is in the path: the number in the path that the program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Result, ensure};
use spantap_tests::{
    admin, collector, compiled, host,
    https::succeeds,
    load,
    loops::{self, Score},
    observed::{self, Observed},
    relays::Relay,
    spantap::Setup,
    suite::{Suite, World},
};

const ARRIVAL: Duration = Duration::from_secs(90);
const READY: Duration = Duration::from_secs(20);
const GOROUTINE: &[&str] = &["go-goroutine"];

fn main() -> ExitCode {
    let tools = ["go"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    let mut suite = Suite::new("links_go", lacks, world);
    for mode in ["now", "later", "child", "three", "grandchild", "queued"] {
        for connections in [1, 20, 100] {
            suite = suite.case(format!("{mode}_{connections}"), move |world| good(world, mode, connections, GOROUTINE));
        }
    }
    for connections in [20, 100] {
        suite = suite
            .case(format!("context_{connections}"), move |world| good(world, "context", connections, &["go-context"]))
            // While the handler's answer is on its way the request is open still.
            .case(format!("after_{connections}"), move |world| {
                good(world, "after", connections, &["go-late", "go-goroutine"])
            })
            .case(format!("pool_{connections}"), move |world| workers(world, connections));
    }
    suite.case("stripped", stripped).run()
}

/// The usual world, and the program twice, in a folder by which it is selected.
struct Go {
    observed: Observed,
    folder: tempfile::TempDir,
}

impl World for Go {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Go> {
    let folder = host::folder()?;
    let programs = folder.path().join("links-go");
    std::fs::create_dir(&programs)?;
    std::fs::copy(compiled::go_program("gorelay")?, programs.join("gorelay"))?;
    let mut command = Command::new("go");
    command.current_dir(compiled::subjects().join("gorelay")).args([
        "build",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-o",
    ]);
    succeeds(command.arg(programs.join("stripped")).arg("."))?;
    let selected = format!("exe_path: \"{}/*\"", programs.display());
    let observed = Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &selected], collector)))?;
    Ok(Go { observed, folder })
}

/// Starts one of them.
fn start(world: &Go, program: &str, service: &str, other: u16) -> Result<Relay> {
    Relay::start(service, |port| {
        let mut command = Command::new(world.folder.path().join("links-go").join(program));
        command.args([&port.to_string(), &other.to_string()]);
        Ok(command)
    })
}

/// Asks for numbers, and tells how the links are.
fn run(
    world: &mut Go,
    (program, service): (&str, &str),
    mode: &'static str,
    connections: u64,
    by: &[&str],
) -> Result<Score> {
    let requests = 2000;
    let far = start(world, program, &format!("{service}-far"), 1)?;
    let near = start(world, program, service, far.port)?;
    let world = &mut world.observed;
    world.wait_observing()?;
    let spantap = world.spantap()?;
    host::wait_for("the program to be linked", READY, || {
        let is_said = |line: &str| line.contains("linking requests of Go") && line.contains(&format!("/{program}\""));
        spantap.forwarder().log().lines().any(is_said).then_some(())
    })?;
    host::wait_for("the metrics to name the program", READY, || {
        admin::linked(&spantap.own_metrics().ok()?, &format!("/{program}"), "Go", "linked")
    })?;
    if mode == "context" {
        // Contexts of requests that are over: others stand in their places then.
        load::make(near.port, "/three/in/before-{n}", 2 * requests, connections)?;
    }
    load::make(near.port, &format!("/{mode}/in/{{n}}"), requests, connections)?;
    let several = mode == "three";
    let asks = |number: u64| {
        let path = format!("/{mode}/out/{number}");
        if several { (0..3).map(|n| format!("{path}/{n}")).collect() } else { vec![path] }
    };
    let score = world.collector.wait_until(ARRIVAL, |telemetry| {
        loops::inside(telemetry, service, requests, (|number| format!("/{mode}/in/{number}"), asks), by)
    })?;
    println!("{service}: right, wrong, unlinked: {score:?}");
    let telemetry = world.collector.telemetry()?;
    let mut methods: BTreeMap<String, u64> = BTreeMap::new();
    for span in telemetry.spans_of(service).iter().filter(|span| span.path().contains("/out/")) {
        *methods.entry(loops::method(span).unwrap_or("none").to_owned()).or_default() += 1;
    }
    println!("{service}: {methods:?}");
    drop((near, far));
    Ok(score)
}

fn good(world: &mut Go, mode: &'static str, connections: u64, by: &[&str]) -> Result<()> {
    run(world, ("gorelay", &format!("go-{mode}-{connections}")), mode, connections, by)?.is_good()
}

/// Goroutines that were there before work for whoever comes: without a context nothing tells for whom.
fn workers(world: &mut Go, connections: u64) -> Result<()> {
    let score = run(world, ("gorelay", &format!("go-pool-{connections}")), "pool", connections, &[])?;
    ensure!(score == Score(0, 0, 2000), "{score:?}");
    Ok(())
}

fn stripped(world: &mut Go) -> Result<()> {
    run(world, ("stripped", "go-stripped"), "grandchild", 20, GOROUTINE)?.is_good()
}
