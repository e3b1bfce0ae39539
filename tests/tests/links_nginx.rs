//! Links inside of nginx, which runs all requests of a worker on one thread, and of traces that begin there.
//!
//! The truth is in the path: the number in the path that nginx is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
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
/// Before a program asks, in seconds.
const PAUSE: &str = "0.002";
const FLOW: &[&str] = &["event-loop-flow"];

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()];
    let missing = host::find("nginx").is_none().then(|| "no nginx".to_owned());
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let missing = missing.or(python);
    let mut suite = Suite::new("links_nginx", lacks, world);
    for kind in ["kept", "new"] {
        for connections in [1, 20, 100] {
            suite = suite.case_unless(missing.clone(), format!("{kind}_{connections}"), move |world| {
                proxied(world, kind, connections)
            });
        }
    }
    suite
        .case_unless(missing.clone(), "delayed_by_a_timer", delayed)
        .case_unless(missing, "three_services_are_one_tree", chain)
        .run()
}

fn world() -> Result<Observed> {
    Observed::start(|collector| {
        Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts(), relays::NGINX], collector))
    })
}

/// Asks nginx for numbers, and tells how its links are.
fn run(world: &mut Observed, kind: &'static str, connections: u64, requests: u64) -> Result<Score> {
    let name = format!("nginx-{kind}-{connections}");
    let far = Relay::threads(&format!("{name}-far"), 0, PAUSE)?;
    let near = Relay::nginx(&name, far.port)?;
    world.wait_observing()?;
    load::make(near.port, &format!("/{kind}/in/{{n}}"), requests, connections)?;
    let paths = |way: &'static str| move |number| format!("/{kind}/{way}/{number}");
    let score = world.collector.wait_until(ARRIVAL, |telemetry| {
        let asks = |number| vec![paths("out")(number)];
        loops::inside(telemetry, &name, requests, (paths("in"), asks), FLOW)
    })?;
    println!("{name}: right, wrong, unlinked: {score:?}");
    drop((near.process, far.process));
    Ok(score)
}

fn proxied(world: &mut Observed, kind: &'static str, connections: u64) -> Result<()> {
    // One after the other they take long, and prove least.
    run(world, kind, connections, if connections == 1 { 1000 } else { 3000 })?.is_good()
}

/// What a timer starts has no sign of what it is for: there must be no link rather than a wrong one.
fn delayed(world: &mut Observed) -> Result<()> {
    let score = run(world, "delayed", 20, 1000)?;
    ensure!(score.1 == 0, "wrong links: {score:?}");
    Ok(())
}

/// nginx asks a program, which asks another one: each trace has all five spans, one below the other.
fn chain(world: &mut Observed) -> Result<()> {
    let requests = 1000;
    let last = Relay::threads("tree-last", 0, PAUSE)?;
    let middle = Relay::threads("tree-middle", last.port, PAUSE)?;
    let first = Relay::nginx("tree-first", middle.port)?;
    world.wait_observing()?;
    load::make(first.port, "/whole/in/{n}", requests, 20)?;
    let whole = world.collector.wait_until(ARRIVAL, |telemetry| {
        let [first, middle, last] =
            ["tree-first", "tree-middle", "tree-last"].map(|service| telemetry.spans_of(service));
        let (served, asked) = (by_path(&first, Kind::Server), by_path(&first, Kind::Client));
        let (relayed, relays) = (by_path(&middle, Kind::Server), by_path(&middle, Kind::Client));
        let answered = by_path(&last, Kind::Server);
        let mut whole = 0;
        for number in 0..requests {
            let (into, out) = (format!("/whole/in/{number}"), format!("/whole/out/{number}"));
            let spans = [served.get(&*into), asked.get(&*into), relayed.get(&*into), relays.get(&*out)];
            let spans: Option<Vec<_>> = spans.into_iter().chain([answered.get(&*out)]).collect();
            let spans = spans.with_context(|| format!("not all spans of {number}"))?;
            let below = spans.windows(2).filter(|pair| match pair {
                [above, below] => below.parent_span_id == above.span_id && below.trace_id == above.trace_id,
                _ => false,
            });
            whole += u64::from(below.count() == 4);
            let root = spans.first().is_some_and(|root| root.parent_span_id.is_empty());
            ensure!(root, "{number}: nobody asked nginx");
        }
        Ok(whole)
    })?;
    println!("{whole} of {requests} traces are whole");
    ensure!(whole * 1000 >= requests * 999, "{whole} of {requests} traces are whole");
    drop((first.process, middle.process, last.process));
    Ok(())
}
