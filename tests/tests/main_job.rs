//! The main job with real programs and the configuration that people start with: stock servers that know nothing of
//! tracing become spans and metrics in a real Collector.
#![allow(missing_docs)]

use std::{
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    collector::{self, Collector},
    expect, host,
    servers::{BIG, Server},
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(15);

struct Job {
    collector: Collector,
    spantap: Option<Spantap>,
    /// What the proxy of `nginx` asks.
    upstream: Server,
    nginx: Server,
    asynchronous: Server,
    node: Option<Server>,
    go: Option<Server>,
    /// Started after Spantap.
    later: Server,
}

impl World for Job {
    fn logs(&self) -> String {
        self.spantap.as_ref().map(Spantap::tail).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks =
        [host::lacks_root_and_btf(), no_collector, host::lacks("nginx"), host::lacks("curl"), host::lacks("python3")];
    Suite::new("main_job", lacks, start)
        .case("nginx_static_and_statuses", static_and_statuses)
        .case("nginx_sends_100_mb_by_sendfile", sendfile)
        .case("nginx_asks_its_upstream", proxy)
        .case("keep_alive", keep_alive)
        .case("server_started_later", |job| plain(job, "nginx", |job| Some(&job.later)))
        .case("python_asyncio", |job| plain(job, "python", |job| Some(&job.asynchronous)))
        .case("python_asyncio_asks", |job| asks(job, "python", |job| Some(&job.asynchronous)))
        .case_unless(host::lacks("node"), "node", |job| plain(job, "nodejs", |job| job.node.as_ref()))
        .case_unless(host::lacks("node"), "node_asks", |job| asks(job, "nodejs", |job| job.node.as_ref()))
        .case_unless(host::lacks("go"), "go", |job| plain(job, "go", |job| job.go.as_ref()))
        .case_unless(host::lacks("go"), "go_asks", |job| asks(job, "go", |job| job.go.as_ref()))
        .case("metrics_agree_with_spans", metrics_agree)
        .case("curl_without_any_selection", curl_without_any_selection)
        .run()
}

fn start() -> Result<Job> {
    let collector = Collector::start()?;
    let upstream = Server::python_http()?;
    let nginx = Server::nginx(1, Some(upstream.port))?;
    let asynchronous = Server::python_async()?;
    let node = host::find("node").map(|_| Server::node()).transpose()?;
    let go = host::find("go").map(|_| Server::go()).transpose()?;
    // A port for a server that does not run yet: a second nginx, whose port is taken before and told to Spantap.
    let later = Server::nginx_later()?;
    let servers = [Some(&upstream), Some(&nginx), Some(&asynchronous), node.as_ref(), go.as_ref()];
    let ports = servers.into_iter().flatten().map(|s| s.port).chain([later.port]).map(|p| p.to_string());
    let yaml = seed(&ports.collect::<Vec<_>>().join(","), collector.port);
    // The only addition: nobody waits a minute for a test's metrics.
    let spantap = Setup::new(yaml).environment("BEYLA_METRICS_INTERVAL", "500ms").start()?;
    let later = later.start()?;
    let mut job = Job { collector, spantap: Some(spantap), upstream, nginx, asynchronous, node, go, later };
    let (port, url) = (job.nginx.port, job.nginx.url(""));
    found(&mut job, port, &url)?;
    Ok(job)
}

/// The configuration of the contract, with the ports replaced.
fn seed(ports: &str, otlp: u16) -> String {
    format!(
        "discovery:
  instrument:
    - open_ports: \"{ports}\"
otel_metrics_export:
  endpoint: http://localhost:{otlp}
otel_traces_export:
  endpoint: http://localhost:{otlp}
"
    )
}

fn curl(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("curl").args(["-s", "-S", "-o", "/dev/null", "--max-time", "60"]).args(arguments).output()?;
    if !output.status.success() {
        bail!("curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Spans of this kind and path whose server stands on this port.
fn find(telemetry: &Telemetry, kind: Kind, port: u16, path: &str) -> Vec<Arc<Span>> {
    let here = |s: &&Arc<Span>| {
        s.kind == kind && s.path() == path && s.attributes.number("server.port") == Some(i64::from(port))
    };
    telemetry.spans.iter().filter(here).cloned().collect()
}

/// Waits for exactly one well-formed span.
fn one(collector: &mut Collector, kind: Kind, port: u16, path: &str, status: i64) -> Result<Arc<Span>> {
    collector.wait_until(ARRIVAL, |telemetry| {
        let mut found = find(telemetry, kind, port, path);
        ensure!(found.len() == 1, "{} {kind:?} spans for {path} on port {port}, not one", found.len());
        let span = found.remove(0);
        expect::well_formed(&span)?;
        ensure!(span.status_code() == Some(status), "{path}: status {:?}", span.status_code());
        Ok(span)
    })
}

fn static_and_statuses(job: &mut Job) -> Result<()> {
    curl(&[&job.nginx.url("/files/small?secret=1")])?;
    curl(&[&job.nginx.url("/status/404")])?;
    curl(&[&job.nginx.url("/status/500")])?;
    let port = job.nginx.port;
    let span = one(&mut job.collector, Kind::Server, port, "/files/small", 200)?;
    ensure!(span.service() == "nginx", "service {}", span.service());
    ensure!(span.attributes.number("http.response.body.size") == Some(20_000), "size of the body");
    ensure!(span.attributes.text("network.protocol.version") == Some("1.1"), "protocol version");
    ensure!(span.attributes.text("client.address") == Some("127.0.0.1"), "client address");
    one(&mut job.collector, Kind::Server, port, "/status/404", 404)?;
    one(&mut job.collector, Kind::Server, port, "/status/500", 500)?;
    Ok(())
}

fn sendfile(job: &mut Job) -> Result<()> {
    curl(&[&job.nginx.url("/files/big")])?;
    let span = one(&mut job.collector, Kind::Server, job.nginx.port, "/files/big", 200)?;
    let size = span.attributes.number("http.response.body.size");
    ensure!(size == Some(BIG as i64), "size of the body {size:?}, not {BIG}");
    Ok(())
}

fn proxy(job: &mut Job) -> Result<()> {
    curl(&[&job.nginx.url("/proxy/hello")])?;
    let (front, behind) = (job.nginx.port, job.upstream.port);
    let server = one(&mut job.collector, Kind::Server, front, "/proxy/hello", 200)?;
    // nginx names its pool in Host, so the client span and the upstream's server span have no port from there.
    job.collector.wait_until(ARRIVAL, |telemetry| {
        let spans = |kind, service: &str| -> Vec<Arc<Span>> {
            let here = |s: &&Arc<Span>| s.kind == kind && s.path() == "/hello" && s.service() == service;
            telemetry.spans.iter().filter(here).cloned().collect()
        };
        let client = spans(Kind::Client, "nginx");
        let upstream: Vec<_> =
            telemetry.spans.iter().filter(|s| s.kind == Kind::Server && s.path() == "/hello").cloned().collect();
        ensure!(
            client.len() == 1 && upstream.len() == 1,
            "{} client and {} upstream spans",
            client.len(),
            upstream.len()
        );
        let (client, upstream) = (client.first().context("client")?, upstream.first().context("upstream")?);
        expect::well_formed(client)?;
        expect::well_formed(upstream)?;
        ensure!(
            client.attributes.number("network.peer.port") == Some(i64::from(behind)),
            "the client's peer is the upstream"
        );
        ensure!(
            client.start >= server.start && client.end <= server.end,
            "the client span lies within the server span"
        );
        Ok(())
    })
}

fn keep_alive(job: &mut Job) -> Result<()> {
    let urls: Vec<String> = (0..20).map(|n| job.nginx.url(&format!("/keep-alive/{n}"))).collect();
    // `-o` counts for one URL only.
    let more: Vec<&str> = urls.iter().skip(1).flat_map(|url| ["-o", "/dev/null", url]).collect();
    curl(&[&[urls.first().map_or("", String::as_str)], more.as_slice()].concat())?;
    let port = job.nginx.port;
    for n in 0..20 {
        one(&mut job.collector, Kind::Server, port, &format!("/keep-alive/{n}"), 200)?;
    }
    let peers = |telemetry: &Telemetry| {
        let here = telemetry.spans.iter().filter(|s| s.path().starts_with("/keep-alive/"));
        here.filter_map(|s| s.attributes.number("network.peer.port")).collect::<std::collections::HashSet<_>>().len()
    };
    ensure!(peers(job.collector.telemetry()?) == 1, "curl used one connection, the spans name several");
    Ok(())
}

/// Once the server has been found, every request must come.
fn plain(job: &mut Job, language: &str, server: impl Fn(&Job) -> Option<&Server>) -> Result<()> {
    let (port, url) = {
        let server = server(job).context("the server does not run")?;
        (server.port, server.url(""))
    };
    found(job, port, &url)?;
    for n in 0..3 {
        curl(&[&format!("{url}/plain/{n}")])?;
        let span = one(&mut job.collector, Kind::Server, port, &format!("/plain/{n}"), 200)?;
        if language != "nginx" {
            let told = span.resource.text("telemetry.sdk.language");
            ensure!(told == Some(language), "telemetry.sdk.language {told:?}, not {language}");
        }
    }
    Ok(())
}

/// Asks until a span comes: a server that was started a moment ago may not be observed yet.
fn found(job: &mut Job, port: u16, url: &str) -> Result<()> {
    for n in 0..50 {
        let path = format!("/found/{n}");
        curl(&[&format!("{url}{path}")])?;
        let seen = job.collector.wait_until(Duration::from_millis(300), |telemetry| {
            let here = |s: &&Arc<Span>| {
                s.path().starts_with("/found/") && s.attributes.number("server.port") == Some(port.into())
            };
            telemetry.spans.iter().find(here).map(drop).context("not yet")
        });
        if seen.is_ok() {
            return Ok(());
        }
    }
    bail!("no span of the server on port {port}")
}

/// The server asks nginx in its handler: a server span, a client span within it, and nginx's server span.
fn asks(job: &mut Job, language: &str, server: impl Fn(&Job) -> Option<&Server>) -> Result<()> {
    let (port, url) = {
        let server = server(job).context("the server does not run")?;
        (server.port, server.url(""))
    };
    found(job, port, &url)?;
    let front = job.nginx.port;
    let inner = |telemetry: &Telemetry, kind| find(telemetry, kind, front, "/hello").len();
    let before = (inner(job.collector.telemetry()?, Kind::Client), inner(job.collector.telemetry()?, Kind::Server));
    curl(&[&format!("{url}/call?port={front}")])?;
    let outer = one(&mut job.collector, Kind::Server, port, "/call", 200)?;
    job.collector.wait_until(ARRIVAL, |telemetry| {
        let now = (inner(telemetry, Kind::Client), inner(telemetry, Kind::Server));
        ensure!(
            now == (before.0 + 1, before.1 + 1),
            "client and server spans of the inner request: {before:?}, then {now:?}"
        );
        let client = find(telemetry, Kind::Client, front, "/hello").pop().context("client span")?;
        expect::well_formed(&client)?;
        ensure!(client.resource.number("process.pid") == outer.resource.number("process.pid"), "one process");
        ensure!(client.start >= outer.start && client.end <= outer.end, "the inner request lies within the outer one");
        let told = client.resource.text("telemetry.sdk.language");
        ensure!(told == Some(language), "telemetry.sdk.language {told:?}, not {language}");
        Ok(())
    })
}

fn metrics_agree(job: &mut Job) -> Result<()> {
    job.collector.wait_until(ARRIVAL, |telemetry| {
        let mut services: Vec<&str> = telemetry.spans.iter().map(|s| s.service()).collect();
        services.sort_unstable();
        services.dedup();
        ensure!(services.contains(&"nginx"), "services {services:?}");
        for service in services {
            expect::metrics_agree(telemetry, service, Kind::Server)?;
            expect::metrics_agree(telemetry, service, Kind::Client)?;
        }
        Ok(())
    })
}

/// No `discovery` at all: server and client are both seen; Spantap and the Collector are not.
fn curl_without_any_selection(job: &mut Job) -> Result<()> {
    job.spantap.take().context("Spantap was stopped")?.stop()?;
    let endpoint = job.collector.endpoint();
    let yaml = format!("otel_traces_export:\n  endpoint: {endpoint}\n  batch_timeout: 100ms\n");
    job.spantap = Some(Setup::new(yaml).start()?);
    let (port, url) = (job.nginx.port, job.nginx.url("/curl/[1-3]"));
    // Half a second between the requests of one curl: the last two find it observed for certain.
    curl(&["--rate", "2/s", &url])?;
    for n in 1..=3 {
        one(&mut job.collector, Kind::Server, port, &format!("/curl/{n}"), 200)?;
    }
    for n in 2..=3 {
        let span = one(&mut job.collector, Kind::Client, port, &format!("/curl/{n}"), 200)?;
        ensure!(span.service() == "curl", "service {}", span.service());
    }
    let telemetry = job.collector.telemetry()?;
    let own = |s: &&Arc<Span>| {
        let executable = s.resource.text("process.executable.name").unwrap_or_default();
        ["spantap", "spantap-agent"].contains(&executable) || executable.starts_with("otelcol")
    };
    let own = telemetry.spans.iter().find(own);
    ensure!(own.is_none(), "Spantap or the Collector observed themselves: {own:?}");
    Ok(())
}
