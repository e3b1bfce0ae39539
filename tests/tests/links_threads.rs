//! Links by thread in a program that hands what it receives to other threads: the one that received it goes on with something
//! else, which must not be linked.
//!
//! The truth is in the path: `/own/` is asked for without any request, `/out/N` for `/in/N`.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector, host, load,
    loops::{self, Score, by_path},
    observed::{self, Observed},
    relays::{self, Relay},
    servers,
    spantap::Setup,
    suite::Suite,
    telemetry::Kind,
};

const ARRIVAL: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()];
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let mut suite = Suite::new("links_threads", lacks, world);
    for connections in [1, 20, 100] {
        let name = format!("handed_on_{connections}");
        suite = suite.case_unless(python.clone(), name, move |world| handed_on(world, connections, 2000, "0"));
    }
    suite
        .case_unless(python.clone(), "handed_on_for_long", |world| handed_on(world, 21, 63, "0.5"))
        .case_unless(python.clone(), "all_answered_by_who_received", direct)
        .case_unless(python.clone(), "asks_over_tls", asks_over_tls)
        .case_unless(python, "some_handed_on", mixed)
        .run()
}

fn world() -> Result<Observed> {
    Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts()], collector)))
}

/// The program, and the one that it asks.
fn program(world: &mut Observed, service: &str, pause: &str) -> Result<(Relay, Relay)> {
    let far = Relay::threads(&format!("{service}-far"), 0, "0.001")?;
    let near = Relay::script(service, "hand_over.py", far.port, pause)?;
    world.wait_observing()?;
    Ok((near, far))
}

/// What a thread sends after it has handed on its request has no parent; nor has what others send for it.
fn nothing_linked(world: &mut Observed, service: &str, requests: u64) -> Result<()> {
    world
        .collector
        .wait_until(ARRIVAL, |telemetry| {
            let spans = telemetry.spans_of(service);
            let (received, sent) = (by_path(&spans, Kind::Server), by_path(&spans, Kind::Client));
            let mut linked = Vec::new();
            for number in 0..requests {
                received.get(&*format!("/x/in/{number}")).with_context(|| format!("{number} was not received"))?;
                for path in [format!("/x/own/{number}"), format!("/x/out/{number}")] {
                    let span = sent.get(&*path).with_context(|| format!("{path} was not sent"))?;
                    if !span.parent_span_id.is_empty() {
                        linked.push(format!("{path} by {:?}", loops::method(span)));
                    }
                }
            }
            Ok(linked)
        })
        .and_then(|linked| {
            println!("{service}: {} of {} are linked", linked.len(), requests * 2);
            ensure!(linked.is_empty(), "wrong links: {linked:?}");
            Ok(())
        })
}

fn handed_on(world: &mut Observed, connections: u64, requests: u64, pause: &str) -> Result<()> {
    let service = format!("handed-on-{connections}");
    let (near, _far) = program(world, &service, pause)?;
    load::make(near.port, "/x/in/{n}", requests, connections)?;
    nothing_linked(world, &service, requests)
}

/// The same program, as long as it hands on nothing, is like any other.
fn direct(world: &mut Observed) -> Result<()> {
    let (near, _far) = program(world, "direct", "0")?;
    load::make(near.port, "/direct/in/{n}", 2000, 20)?;
    let score = of_direct(world, "direct", 2000)?;
    score.is_good()
}

/// A program with a thread for each connection whose threads ask over TLS.
fn asks_over_tls(world: &mut Observed) -> Result<()> {
    let certificate = Certificate::make()?;
    let far = Relay::threads_over_tls("asks-over-tls-far", 0, Some(&certificate))?;
    let near = Relay::threads_over_tls("asks-over-tls", far.port, None)?;
    world.wait_observing()?;
    load::make(near.port, "/direct/in/{n}", 500, 20)?;
    let score = of_direct(world, "asks-over-tls", 500)?;
    score.is_good()
}

fn of_direct(world: &mut Observed, service: &str, requests: u64) -> Result<Score> {
    let paths = |way: &'static str| move |number| format!("/direct/{way}/{number}");
    let score = world.collector.wait_until(ARRIVAL, |telemetry| {
        loops::inside(telemetry, service, requests, (paths("in"), |number| vec![paths("out")(number)]), &["thread"])
    })?;
    println!("{service}: right, wrong, unlinked: {score:?}");
    Ok(score)
}

/// Both at a time: what is handed on is not linked, whatever the others have shown.
fn mixed(world: &mut Observed) -> Result<()> {
    let (near, _far) = program(world, "mixed", "0")?;
    let port = near.port;
    let other = std::thread::spawn(move || load::make(port, "/direct/in/{n}", 1000, 10));
    let made = load::make(port, "/x/in/{n}", 1000, 10);
    other.join().unwrap_or_else(|_| anyhow::bail!("a load thread panicked"))?;
    made?;
    nothing_linked(world, "mixed", 1000)?;
    let score = of_direct(world, "mixed", 1000)?;
    ensure!(score.1 == 0, "wrong links: {score:?}");
    Ok(())
}
