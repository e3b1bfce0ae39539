//! Links and the decision which spans are kept: by a share of the traces both ends of a request are kept or neither is; without
//! links each end decides alone.
#![allow(missing_docs)]

use std::{collections::HashMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    collector, host,
    observed::{self, Observed},
    pair::Pair,
    script::{Step, connect, read_bytes, read_head, send, serve},
    spantap::Setup,
    suite::Suite,
    telemetry::Telemetry,
};

const ARRIVAL: Duration = Duration::from_secs(40);
const TRAFFIC: Duration = Duration::from_secs(20);
const REQUESTS: u32 = 400;

fn main() -> ExitCode {
    Suite::new("links_sampled", [host::lacks_root_and_btf(), collector::lacks_collector()], || Ok(()))
        .case("a_share_keeps_both_ends_or_neither", |()| by_share())
        .case("without_links_each_end_is_a_trace", |()| off())
        .run()
}

/// Requests between two subjects, once both are known to be observed: the histograms have all of them, whatever is sampled.
fn requests(name: &str, mut setup: impl FnMut(Setup) -> Setup) -> Result<Observed> {
    let mut world = Observed::start(|collector| Ok(setup(Setup::observing(&[&observed::subjects()?], collector))))?;
    let mut pair = Pair::prepare(name)?;
    let count = |telemetry: &Telemetry, end: &str| {
        telemetry.count(&format!("http.{end}.request.duration"), &format!("{name}-{end}"))
    };
    let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: sampled.test\r\n\r\n"));
    let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    // The first ones may come before both subjects have been found; those after the signal do not.
    let server = serve([Step::Until("over".to_owned(), vec![read_head(), answer])]);
    let warm =
        vec![send("GET /warm HTTP/1.1\r\nHost: sampled.test\r\n\r\n"), read_head(), read_bytes(5), Step::Pause(20)];
    let client =
        connect([Step::Until("found".to_owned(), warm), Step::Repeat(REQUESTS, vec![ask, read_head(), read_bytes(5)])]);
    pair.begin(&server, &client, world.collector.folder())?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(count(telemetry, "server") > 0 && count(telemetry, "client") > 0, "not found yet");
        Ok(())
    })?;
    pair.signal("found")?;
    pair.client.finish(TRAFFIC)?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        for end in ["server", "client"] {
            ensure!(count(telemetry, end) > u64::from(REQUESTS), "{} measured by the {end}", count(telemetry, end));
        }
        Ok(())
    })?;
    world.collector.settle(Duration::from_secs(1), ARRIVAL)?;
    Ok(world)
}

/// What of the server's and of the client's spans is compared, by path.
type Ends = HashMap<String, (String, String, String)>;

fn ends(telemetry: &Telemetry, name: &str) -> [Ends; 2] {
    ["server", "client"].map(|end| {
        let spans = telemetry.spans_of(&format!("{name}-{end}"));
        let asked = spans.iter().filter(|span| span.path().starts_with(&format!("/{name}/")));
        asked
            .map(|s| (s.path().to_owned(), (s.trace_id.clone(), s.span_id.clone(), s.parent_span_id.clone())))
            .collect()
    })
}

fn by_share() -> Result<()> {
    let name = "sampled-share";
    let mut world = requests(name, |setup| {
        setup
            .environment("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .environment("OTEL_TRACES_SAMPLER_ARG", "0.5")
    })?;
    let [servers, clients] = ends(world.collector.telemetry()?, name);
    for (path, (trace, _, parent)) in &servers {
        let client =
            clients.get(path).with_context(|| format!("{path}: the server's span is kept, the client's is not"))?;
        ensure!((trace, parent) == (&client.0, &client.1), "{path}: {trace} {parent}, not below {client:?}");
    }
    ensure!(servers.len() == clients.len(), "{} spans of the server, {} of the client", servers.len(), clients.len());
    // Half of 400, at random: 200 ± 10.
    ensure!((140..=260).contains(&servers.len()), "{} requests were kept", servers.len());
    Ok(())
}

fn off() -> Result<()> {
    let name = "sampled-off";
    let mut world = requests(name, |setup| setup.own_key("links", "off"))?;
    let [servers, clients] = ends(world.collector.telemetry()?, name);
    ensure!(servers.len() == REQUESTS as usize && clients.len() == REQUESTS as usize, "not all spans are there");
    for (path, (trace, _, parent)) in &servers {
        let client = clients.get(path).with_context(|| format!("{path}: no span of the client"))?;
        ensure!(parent.is_empty() && client.2.is_empty() && *trace != client.0, "{path}: {trace} {parent} {client:?}");
    }
    let own = world.spantap()?.own_metrics()?;
    let linked = own.lines().filter(|line| line.starts_with("spantap_links_total") && !line.contains("header"));
    let linked: Vec<_> = linked.filter(|line| !line.ends_with(" 0")).collect();
    ensure!(linked.is_empty(), "{linked:?}");
    Ok(())
}
