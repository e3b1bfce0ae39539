//! Links that no header tells of: between the two ends of a connection, and inside of one program.
//!
//! The truth is in the path: the number in the path that a program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{
    collections::HashMap,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    collector, compiled, host, http, load,
    loops::{Score, by_path, method},
    observed::{self, Observed},
    pair::Pair,
    python_environment::Python,
    relays::{self, Relay},
    script::{At, CONN, How, Step, connect, connect_at, read_bytes, read_head, send, send_how, serve, serve_at},
    servers,
    spantap::Setup,
    suite::Suite,
    telemetry::{Kind, Span, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(40);
const TRAFFIC: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()];
    let python = servers::python().map_err(|_| "no python3".to_owned());
    let exporting = python
        .clone()
        .and_then(|program| Python::with(program, "otlp_grpc_requirements.txt").map_err(|error| Python::lacks(&error)));
    let python = python.err();
    let mut suite = Suite::new("links", lacks, world);
    for connections in [1, 20, 100] {
        suite = suite.case_unless(python.clone(), format!("python_threads_{connections}"), move |world| {
            threads(world, connections)
        });
    }
    suite
        .case_unless(python, "an_event_loop_has_none", event_loop)
        .case("connections_of_all_kinds", kinds_of_connections)
        .case("pipelined_requests", pipelined)
        .case("a_header_wins", header)
        .case("who_exports_its_own_is_left_out", own_telemetry)
        .case_unless(exporting.as_ref().err().cloned(), "who_exports_its_own_by_grpc_is_left_out", move |world| {
            own_telemetry_by_grpc(world, exporting)
        })
        .run()
}

fn world() -> Result<Observed> {
    Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts()], collector)))
}

/// Two programs in a row, each with a thread for each connection.
fn threads(world: &mut Observed, connections: u64) -> Result<()> {
    let requests = 2000;
    let name = format!("threads-{connections}");
    let [near, far] = ["near", "far"].map(|end| format!("{name}-{end}"));
    let last = Relay::threads(&far, 0, "0.002")?;
    let first = Relay::threads(&near, last.port, if connections == 1 { "0" } else { "0.001" })?;
    world.wait_observing()?;
    load::make(first.port, &format!("/{name}/in/{{n}}"), requests, connections)?;
    let (inside, between) = world.collector.wait_until(ARRIVAL, |telemetry| {
        let (near, far) = (telemetry.spans_of(&near), telemetry.spans_of(&far));
        let (received, sent) = (by_path(&near, Kind::Server), by_path(&near, Kind::Client));
        let arrived = by_path(&far, Kind::Server);
        let (mut inside, mut between) = (Score::default(), Score::default());
        for number in 0..requests {
            let (asked, asks) = (format!("/{name}/in/{number}"), format!("/{name}/out/{number}"));
            let (server, client) = (received.get(&*asked), sent.get(&*asks));
            let (server, client) = (server.context("not received")?, client.context("not sent")?);
            inside.judge(client, server, &["thread"]);
            between.judge(arrived.get(&*asks).context("did not arrive")?, client, &["connection"]);
        }
        Ok((inside, between))
    })?;
    println!("{name}: right, wrong, unlinked: inside {inside:?}, between {between:?}");
    for score in [&inside, &between] {
        ensure!(score.1 == 0, "wrong links: inside {inside:?}, between {between:?}");
        ensure!(score.2 * 1000 <= requests, "too few links: inside {inside:?}, between {between:?}");
    }
    drop((first.process, last.process));
    Ok(())
}

/// Python's asyncio runs all requests on one thread: what it asks for is not linked by that, but by its contexts where they can
/// be seen (`links_python.rs`); what it is asked for is.
fn event_loop(world: &mut Observed) -> Result<()> {
    let name = "event-loop";
    let far = Relay::threads("event-loop-far", 0, "0.005")?;
    let near = Relay::start(name, |port| {
        let mut command = Command::new(servers::python()?);
        command.arg(compiled::subjects().join("async_server.py")).arg(port.to_string());
        Ok(command)
    })?;
    world.wait_observing()?;
    let requests = 300;
    load::make(near.port, &format!("/call?port={}", far.port), requests, 20)?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let (near, far) = (telemetry.spans_of(name), telemetry.spans_of("event-loop-far"));
        let sent: Vec<_> = near.iter().filter(|span| span.kind == Kind::Client).collect();
        let arrived: Vec<_> = far.iter().filter(|span| span.path() == "/hello").collect();
        ensure!(sent.len() as u64 == requests, "{} requests sent", sent.len());
        ensure!(arrived.len() as u64 == requests, "{} requests arrived", arrived.len());
        let by_context = |span: &Span| method(span) == Some("python-context");
        let is_right = |span: &Span| span.parent_span_id.is_empty() || by_context(span);
        ensure!(sent.iter().all(|span| is_right(span)), "a request of an event loop was linked by its thread");
        let sent: HashMap<&str, &str> = sent.iter().map(|span| (&*span.span_id, &*span.trace_id)).collect();
        let joined = arrived.iter().filter(|span| sent.get(&*span.parent_span_id) == Some(&&*span.trace_id)).count();
        ensure!(joined as u64 == requests, "{joined} of {requests} were tied to the other end");
        Ok(())
    })
}

/// Paths of spans of the server whose parent is the client's span of the same path, and of those that have none.
fn joined(telemetry: &Telemetry, name: &str) -> Result<(Vec<String>, Vec<String>)> {
    let (server, client) =
        (telemetry.spans_of(&format!("{name}-server")), telemetry.spans_of(&format!("{name}-client")));
    let sent = by_path(&client, Kind::Client);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for span in server.iter().filter(|span| span.kind == Kind::Server) {
        if span.parent_span_id.is_empty() {
            without.push(span.path().to_owned());
            continue;
        }
        let parent = sent.get(span.path()).with_context(|| format!("nobody sent {}", span.path()))?;
        let (own, of) = ((&span.trace_id, &span.parent_span_id), (&parent.trace_id, &parent.span_id));
        ensure!(own == of, "{}: a wrong link: {own:?}, not {of:?}", span.path());
        with.push(span.path().to_owned());
    }
    with.sort();
    without.sort();
    Ok((with, without))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: links.test\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn play(world: &mut Observed, name: &str, server: Vec<Step>, client: Vec<Step>) -> Result<()> {
    let mut pair = Pair::prepare(name)?;
    world.wait_observing()?;
    pair.begin(&server, &client, world.collector.folder())?;
    pair.finish(TRAFFIC)
}

fn kinds_of_connections(world: &mut Observed) -> Result<()> {
    let kinds = [("v6", At::V6, At::V6), ("mapped-server", At::Mapped, At::V4), ("mapped-client", At::V4, At::Mapped)];
    for (name, listen, dial) in kinds.into_iter().chain([("unix", At::Unix, At::Unix)]) {
        let name = format!("links-{name}");
        let server = serve_at(listen, [Step::Repeat(20, vec![read_head(), send(OK)])]);
        let ask = vec![send(get(&format!("/{name}/{{n}}"))), read_head(), read_bytes(5)];
        play(world, &name, server, connect_at(dial, [Step::Repeat(20, ask)]))?;
        world.collector.wait_until(ARRIVAL, |telemetry| {
            let (with, without) = joined(telemetry, &name)?;
            ensure!(with.len() == 20 && without.is_empty(), "{name}: with {with:?}, without {without:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Five requests in one call, then one after the other.
fn pipelined(world: &mut Observed) -> Result<()> {
    let name = "links-pipelined";
    let all: String = (0..5).map(|n| get(&format!("/{name}/first/{n}"))).collect();
    let server = serve([
        Step::Repeat(5, vec![read_bytes(all.len() as u64 / 5)]),
        send(OK.repeat(5)),
        Step::Repeat(5, vec![read_head(), send(OK)]),
    ]);
    let ask = vec![send(get(&format!("/{name}/then/{{n}}"))), read_head(), read_bytes(5)];
    let answers = (OK.len() * 5) as u64;
    play(world, name, server, connect([send(all), read_bytes(answers), Step::Repeat(5, ask)]))?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let (with, without) = joined(telemetry, name)?;
        ensure!(with.len() == 10 && without.is_empty(), "with {with:?}, without {without:?}");
        Ok(())
    })
}

/// A context that goes with the request is the parent at both ends.
fn header(world: &mut Observed) -> Result<()> {
    let name = "links-header";
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request = format!(
        "GET /{name} HTTP/1.1\r\nHost: links.test\r\ntraceparent: 00-{trace}-{parent}-01\r\ntracestate: a=1\r\n\r\n"
    );
    let server = serve([read_head(), send_how(OK, How::Write)]);
    play(world, name, server, connect([Step::Send(CONN, request.into(), How::Write), read_head(), read_bytes(5)]))?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        for end in ["server", "client"] {
            let spans = telemetry.spans_of(&format!("{name}-{end}"));
            let [span] = spans.as_slice() else { anyhow::bail!("{} spans of the {end}", spans.len()) };
            ensure!(span.trace_id == trace && span.parent_span_id == parent && method(span).is_none(), "{span:?}");
        }
        Ok(())
    })
}

/// A program that exports spans itself has none of Spantap's from then on, and nothing descends from those that it would have.
fn own_telemetry(world: &mut Observed) -> Result<()> {
    let name = "links-own";
    let before = left_out(world)?;
    let export = "POST /v1/traces HTTP/1.1\r\nHost: links.test\r\nContent-Length: 2\r\n\r\n{}";
    let asks = |path: &str| vec![send(get(&format!("/{name}/{path}"))), read_head(), read_bytes(5)];
    let exports = vec![send(export), read_head(), read_bytes(5)];
    let server = serve([
        read_head(),
        send(OK),
        read_bytes(export.len() as u64),
        send(OK),
        read_head(),
        send(OK),
        read_head(),
        send(OK),
    ]);
    let client = connect([asks("before"), exports, asks("after"), asks("later")].concat());
    play(world, name, server, client)?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let (with, without) = joined(telemetry, name)?;
        ensure!(with == [format!("/{name}/before")], "{with:?}");
        // The server answered the export before it was known to be taken.
        ensure!(
            without.contains(&format!("/{name}/after")) && without.contains(&format!("/{name}/later")),
            "{without:?}"
        );
        Ok(())
    })?;
    world.collector.settle(Duration::from_millis(500), ARRIVAL)?;
    let spans = world.collector.telemetry()?.spans_of(&format!("{name}-client"));
    let paths: Vec<_> = spans.iter().map(|span| span.path()).collect();
    ensure!(paths == [format!("/{name}/before")], "{paths:?}");
    let left = left_out(world)? - before;
    ensure!(left == 3, "{left} were left out");
    Ok(())
}

/// Spans that were left out so far because their program exports its own.
fn left_out(world: &mut Observed) -> Result<u64> {
    let own = world.spantap()?.own_metrics()?;
    let counter = |line: &&str| line.starts_with("spantap_excluded_instrumented_total") && line.contains("traces");
    let line = own.lines().find(counter).context("nothing says how many were left out")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

/// The same where the SDK exports by gRPC: of the connection it goes over nothing else is read.
fn own_telemetry_by_grpc(world: &mut Observed, python: Result<Python, String>) -> Result<()> {
    let (name, sdk) = ("links-own-grpc", "links-own-grpc-sdk");
    let python = python.map_err(anyhow::Error::msg)?;
    let endpoint = format!("http://127.0.0.1:{}", world.collector.grpc);
    let program = Relay::start(name, |port| {
        let mut command = Command::new(python.program);
        command.arg(compiled::subjects().join("otlp_grpc.py")).args([&port.to_string(), sdk]);
        command.env("PYTHONPATH", python.packages).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command.env("OTEL_EXPORTER_OTLP_INSECURE", "true").env("no_grpc_proxy", "127.0.0.1");
        Ok(command)
    })?;
    world.wait_observing()?;
    let before = left_out(world)?;
    let ask = |path: &str| -> Result<()> {
        let status = http::get(program.port, &format!("/{name}/{path}"))?.status;
        ensure!(status == 200, "{path}: {status}");
        Ok(())
    };
    let paths = |telemetry: &Telemetry| -> Vec<String> {
        let spans = telemetry.spans_of(name);
        spans.iter().map(|span| span.path().to_owned()).filter(|path| path != "/ready").collect()
    };
    ask("before")?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(paths(telemetry) == [format!("/{name}/before")], "{:?}", paths(telemetry));
        Ok(())
    })?;
    // The export is over when this is answered.
    ask("export")?;
    ask("after")?;
    host::wait_for("spans to be left out", ARRIVAL, || left_out(world).ok().filter(|left| left - before == 2))?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let own = telemetry.spans_of(sdk).iter().any(|span| span.name.ends_with("/before"));
        ensure!(own, "its own span did not arrive: it did not export");
        let measured = telemetry.count("http.server.request.duration", name);
        ensure!(measured >= 3, "{measured} requests were measured");
        ensure!(paths(telemetry) == [format!("/{name}/before")], "{:?}", paths(telemetry));
        Ok(())
    })
}
