//! Links between programs in different network namespaces, with and without translation of addresses in between.
//!
//! The truth is in the path: the number in the path that a program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin, collector, compiled, host, loops,
    namespaces::Host,
    observed::{self, Observed},
    process::Process,
    relays, servers,
    spantap::Setup,
    suite::{Suite, say_skip},
};

const ARRIVAL: Duration = Duration::from_secs(40);
const TRAFFIC: Duration = Duration::from_secs(20);
/// Requests one after the other over one connection, and at once over as many.
const REQUESTS: u64 = 50;
const AT_ONCE: u64 = 20;

fn main() -> ExitCode {
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let tools = ["nsenter", "curl", "ip"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), python].into_iter().chain(tools);
    let iptables = host::lacks("iptables");
    Suite::new("links_namespaces", lacks, world)
        .case("nothing_is_translated", |world| between(world, &Way { name: "plain", ..CABLE }))
        .case_unless(iptables.clone(), "a_published_port", |world| {
            between(world, &Way { name: "published", asks: ("10.99.41.2", 9080), far: &[PUBLISHED], ..CABLE })
        })
        .case_unless(iptables.clone(), "both_ends_are_translated", |world| {
            let way = Way { name: "both", asks: ("10.99.41.2", 9080), near: &[MASKED], far: &[PUBLISHED], ..CABLE };
            between(world, &way)
        })
        .case_unless(iptables, "redirected_within_a_namespace", |world| {
            let way = Way { name: "redirected", asks: ("127.0.0.1", 9080), near: &[REDIRECTED], ..CABLE };
            between(world, &Way { listens: None, ..way })
        })
        .run()
}

fn world() -> Result<Observed> {
    Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts()], collector)))
}

/// From a program to the one that it asks.
struct Way {
    name: &'static str,
    /// What it asks.
    asks: (&'static str, u16),
    /// Where the other one listens, in its namespace, at port 8081; `None`: in the same one.
    listens: Option<&'static str>,
    /// Rules of the table `nat` in the namespace of the one that asks, and in the other one.
    near: &'static [&'static str],
    far: &'static [&'static str],
}

const CABLE: Way = Way { name: "", asks: ("10.99.41.2", 8081), listens: Some("10.99.41.2"), near: &[], far: &[] };
const PUBLISHED: &str = "PREROUTING -p tcp --dport 9080 -j REDIRECT --to-ports 8081";
const MASKED: &str = "POSTROUTING -p tcp --dport 9080 -j MASQUERADE --to-ports 61000-61999";
const REDIRECTED: &str = "OUTPUT -p tcp -d 127.0.0.1 --dport 9080 -j REDIRECT --to-ports 8081";

/// Has the rules taken; `false`: this kernel does not translate addresses.
fn translate(host: &Host, rules: &[&str]) -> Result<bool> {
    let iptables = host::find("iptables").map(|path| path.display().to_string());
    for rule in rules {
        let words: Vec<_> = ["-t", "nat", "-A"].into_iter().chain(rule.split(' ')).collect();
        if let Err(error) = host.run(iptables.as_deref().context("no iptables")?, &words) {
            say_skip("links_namespaces", &format!("no translation of addresses here: {error:#}"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn between(world: &mut Observed, way: &Way) -> Result<()> {
    let (near, far) = (Host::start("near", None)?, Host::start("far", None)?);
    near.link(&far, 41)?;
    if !translate(&near, way.near)? || !translate(&far, way.far)? {
        return Ok(());
    }
    let script = compiled::subjects().join("relay.py");
    let start = |host: &Host, end: &str, arguments: &[&str]| -> Result<Process> {
        let service = service(way, end);
        let mut command = host.command(servers::python()?);
        command.arg(&script).args(arguments).env("OTEL_SERVICE_NAME", &service);
        Process::start(&service, host.folder(), command)
    };
    let (at, address) = way.listens.map_or((&near, "127.0.0.1"), |address| (&far, address));
    let mut last = start(at, "far", &["8081", "0", "0", address])?;
    let (host, port) = (way.asks.0, way.asks.1.to_string());
    let mut first = start(&near, "near", &["8080", &port, "0", "10.99.41.1", host])?;
    for (process, address) in [(&mut last, format!("{host}:{port}")), (&mut first, "10.99.41.1:8080".to_owned())] {
        let url = format!("http://{address}/ready");
        process.wait_ready(TRAFFIC, |_| near.run("curl", &["-sf", "-m", "5", &url]).is_ok())?;
    }
    world.wait_observing()?;
    let before = admin::unlinked(&world.spantap()?.own_metrics()?);
    near.run("curl", &["-sf", "-m", "30", &format!("http://10.99.41.1:8080/one/in/[1-{REQUESTS}]")])?;
    let urls = format!("http://10.99.41.1:8080/many/in/[1-{REQUESTS}]");
    near.run("curl", &["-sf", "-m", "30", "--parallel", "--parallel-max", &AT_ONCE.to_string(), &urls])?;
    let paths = ["one", "many"].iter().flat_map(|how| (1..=REQUESTS).map(move |n| format!("/{how}/out/{n}")));
    let score = world.collector.wait_until(ARRIVAL, |telemetry| {
        loops::of_ends(telemetry, (&service(way, "near"), &service(way, "far")), paths.clone())
    })?;
    let reasons = admin::lost_between(&before, &admin::unlinked(&world.spantap()?.own_metrics()?));
    println!("{}: right, wrong, unlinked: {score:?}; spans without a parent: {reasons:?}", way.name);
    ensure!(score.1 == 0, "wrong links: {score:?}");
    // The other end may be recorded late, which is not waited for where it seems to be elsewhere.
    ensure!(score.0 * 10 >= REQUESTS * 2 * 9, "too few links: {score:?}, {reasons:?}");
    Ok(())
}

fn service(way: &Way, end: &str) -> String {
    format!("namespace-{}-{end}", way.name)
}
