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
    admin,
    certificate::Certificate,
    collector, compiled, host,
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
    suite = suite.case("stripped", stripped);
    for mode in ["now", "later", "child", "three"] {
        for connections in [1, 20, 100] {
            suite = suite
                .case(format!("https_{mode}_{connections}"), move |world| https(world, "gorelay", mode, connections));
        }
    }
    suite.case("https_stripped", |world| https(world, "stripped", "child", 20)).run()
}

/// The usual world, and the program twice, in a folder by which it is selected.
struct Go {
    observed: Observed,
    folder: tempfile::TempDir,
    certificate: Certificate,
    /// What speaks TLS, for several cases.
    chain: Option<Chain>,
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
    Ok(Go { observed, folder, certificate: Certificate::make()?, chain: None })
}

impl Go {
    fn program(&self, program: &str, port: u16, other: u16) -> Command {
        let mut command = Command::new(self.folder.path().join("links-go").join(program));
        command.args([&port.to_string(), &other.to_string()]);
        command
    }

    /// Starts one of them.
    fn start(&self, program: &str, service: &str, other: u16) -> Result<Relay> {
        Relay::start(service, |port| Ok(self.program(program, port, other)))
    }

    /// Starts one that is asked over TLS for what `words` has first, and asks over TLS for the second.
    fn start_over_tls(&self, program: &str, service: &str, other: u16, words: [&str; 2]) -> Result<Relay> {
        Relay::start_over_tls(service, |port| {
            let mut command = self.program(program, port, other);
            command.args(words).arg(self.certificate.file()).arg(self.certificate.key());
            Ok(command)
        })
    }

    /// Waits until all that was started before is observed, and this program linked.
    fn wait_linked(&mut self, program: &str) -> Result<()> {
        let world = &mut self.observed;
        world.wait_observing()?;
        let spantap = world.spantap()?;
        host::wait_for("the program to be linked", READY, || {
            let is_said =
                |line: &str| line.contains("linking requests of Go") && line.contains(&format!("/{program}\""));
            spantap.forwarder().log().lines().any(is_said).then_some(())
        })?;
        host::wait_for("the metrics to name the program", READY, || {
            admin::linked(&spantap.own_metrics().ok()?, &format!("/{program}"), "Go", "linked")
        })?;
        Ok(())
    }
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
    let far = world.start(program, &format!("{service}-far"), 1)?;
    let near = world.start(program, service, far.port)?;
    world.wait_linked(program)?;
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
    let score = world.observed.collector.wait_until(ARRIVAL, |telemetry| {
        loops::inside(telemetry, service, requests, (|number| format!("/{mode}/in/{number}"), asks), by)
    })?;
    println!("{service}: right, wrong, unlinked: {score:?}");
    let telemetry = world.observed.collector.telemetry()?;
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

/// Three of a program, each of which asks the next over TLS. All but the first are asked over TLS.
struct Chain {
    program: &'static str,
    first: Relay,
    _others: [Relay; 2],
}

impl Chain {
    fn start(world: &mut Go, program: &'static str) -> Result<Self> {
        let service = |which: &str| format!("https-{program}-{which}");
        let last = world.start_over_tls(program, &service("last"), 1, ["none", "none"])?;
        let second = world.start_over_tls(program, &service("tls"), last.port, ["mid", "out"])?;
        let first = Relay::start(&service("plain"), |port| {
            let mut command = world.program(program, port, second.port);
            command.args(["in", "mid"]);
            Ok(command)
        })?;
        world.wait_linked(program)?;
        let spantap = world.observed.spantap()?;
        host::wait_for("TLS of the program to be read", READY, || {
            let is_read = |line: &str| line.contains("state=\"read\"") && line.contains(&format!("/{program}\""));
            spantap.own_metrics().ok()?.lines().any(is_read).then_some(())
        })?;
        Ok(Self { program, first, _others: [last, second] })
    }
}

fn https(world: &mut Go, program: &'static str, mode: &'static str, connections: u64) -> Result<()> {
    let chain = match world.chain.take() {
        Some(chain) if chain.program == program => chain,
        _ => Chain::start(world, program)?,
    };
    let each = if mode == "three" { 3 } else { 1 };
    let requests = 300 / each;
    let path = |word: &str, number: u64| format!("/{mode}/{connections}/{word}/{number}");
    load::make(chain.first.port, &format!("/{mode}/{connections}/in/{{n}}"), requests, connections)?;
    let several = |path: String| -> Vec<String> {
        if each == 3 { (0..3).map(|n| format!("{path}/{n}")).collect() } else { vec![path] }
    };
    // The second is asked for what the first asks for.
    let asked = |number: u64| several(path("mid", number / each)).swap_remove((number % each) as usize);
    for (which, count) in [("plain", requests), ("tls", requests * each)] {
        let service = format!("https-{program}-{which}");
        let score = world.observed.collector.wait_until(ARRIVAL, |telemetry| {
            if which == "plain" {
                let paths = (|number| path("in", number), |number| several(path("mid", number)));
                loops::inside(telemetry, &service, count, paths, GOROUTINE)
            } else {
                let asks = |number: u64| several(asked(number).replace("/mid/", "/out/"));
                loops::inside(telemetry, &service, count, (asked, asks), GOROUTINE)
            }
        })?;
        println!("{service}: right, wrong, unlinked: {score:?}");
        score.is_good()?;
    }
    world.chain = Some(chain);
    Ok(())
}
