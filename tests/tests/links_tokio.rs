//! Links inside of programs of tokio: from a request to those that its task makes, by the tasks of a client's connections.
//!
//! The truth is in the path: the number in the path that the program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{
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
const REQUESTS: u64 = 1000;
const READY: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let tools = ["cargo", "strip"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    let mut suite = Suite::new("links_tokio", lacks, world);
    for (mode, connections) in [("imm", 20), ("two", 100), ("timer", 20), ("spawn", 100), ("three", 20), ("itself", 20)]
    {
        suite = suite.case(format!("{mode}_{connections}"), move |world| good(world, mode, connections, "several"));
    }
    suite = suite.case("three_one_thread", |world| good(world, "three", 20, "current"));
    suite.case("worker", worker).case("stripped", stripped).run()
}

/// The usual world, and the program twice, in a folder by which it is selected.
struct Tokio {
    observed: Observed,
    folder: tempfile::TempDir,
}

impl World for Tokio {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Tokio> {
    let folder = host::folder()?;
    let programs = folder.path().join("links-tokio");
    std::fs::create_dir(&programs)?;
    let built = compiled::rust_program("tokiorelay")?;
    std::fs::copy(&built, programs.join("tokiorelay"))?;
    succeeds(Command::new("strip").arg("-o").arg(programs.join("stripped")).arg(&built))?;
    let selected = format!("exe_path: \"{}/*\"", programs.display());
    let observed = Observed::start(|collector| {
        let setup = Setup::observing(&[&observed::subjects()?, &selected], collector);
        Ok(setup.own_key("links_experimental", "[tokio]"))
    })?;
    Ok(Tokio { observed, folder })
}

/// Starts one of them.
fn start(world: &Tokio, program: &str, service: &str, other: u16, threads: &str) -> Result<Relay> {
    Relay::start(service, |port| {
        let mut command = Command::new(world.folder.path().join("links-tokio").join(program));
        command.args([&port.to_string(), &other.to_string(), threads]);
        Ok(command)
    })
}

/// Asks for numbers, and tells how the links are.
fn run(
    world: &mut Tokio,
    (program, service, threads): (&str, &str, &str),
    mode: &'static str,
    connections: u64,
    state: &str,
) -> Result<Score> {
    let requests = REQUESTS;
    let far = start(world, program, &format!("{service}-far"), 1, "several")?;
    let near = start(world, program, service, far.port, threads)?;
    let world = &mut world.observed;
    world.wait_observing()?;
    let spantap = world.spantap()?;
    host::wait_for("the metrics to tell of the program", READY, || {
        admin::linked(&spantap.own_metrics().ok()?, &format!("/{program}"), "tokio", state)
    })?;
    load::make(near.port, &format!("/{mode}/in/{{n}}"), requests, connections)?;
    let several = match mode {
        "two" => 2,
        "three" => 3,
        _ => 0,
    };
    let asks = |number: u64| {
        let path = format!("/{mode}/out/{number}");
        if several > 0 { (0..several).map(|n| format!("{path}/{n}")).collect() } else { vec![path] }
    };
    let score = world.collector.wait_until(ARRIVAL, |telemetry| {
        loops::inside(telemetry, service, requests, (|number| format!("/{mode}/in/{number}"), asks), &["tokio-task"])
    })?;
    println!("{service}: right, wrong, unlinked: {score:?}");
    drop((near, far));
    Ok(score)
}

fn good(world: &mut Tokio, mode: &'static str, connections: u64, threads: &str) -> Result<()> {
    let service = format!("tokio-{mode}-{connections}-{threads}");
    let score = run(world, ("tokiorelay", &service, threads), mode, connections, "linked")?;
    // The second sign is waited for 300 ms, in which a busy machine may not bring it.
    ensure!(score.1 == 0 && score.2 * 10 <= score.0, "{score:?}");
    Ok(())
}

/// A task that the first request starts works for all.
fn worker(world: &mut Tokio) -> Result<()> {
    let Score(_, wrong, unlinked) = run(world, ("tokiorelay", "tokio-worker", "several"), "worker", 20, "linked")?;
    ensure!(wrong == 0 && unlinked > REQUESTS * 9 / 10, "{wrong} {unlinked}");
    Ok(())
}

fn stripped(world: &mut Tokio) -> Result<()> {
    let score = run(world, ("stripped", "tokio-stripped", "several"), "imm", 20, "not_linked")?;
    ensure!(score == Score(0, 0, REQUESTS), "{score:?}");
    Ok(())
}
