//! Groups of metrics: each shows at a real Collector and in a scrape.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use spantap_tests::{
    collector::{self, Collector},
    host, http, observed,
    pair::Pair,
    script::{At, By, How, LISTENER, Script, Step, Until, connect, read_head, send, serve, signal, wait},
    spantap::Setup,
    suite::Suite,
    telemetry::Telemetry,
};

const ARRIVAL: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    Suite::new("features", [host::lacks_root_and_btf(), no_collector], || Ok(()))
        .case("every_group_at_a_collector", |()| at_a_collector())
        .case("legacy_span_metrics_in_a_scrape", |()| in_a_scrape())
        .case("active_requests_at_a_collector_and_in_a_scrape", |()| active())
        .run()
}

/// A server and a client that exchange requests with bodies until dropped, some 50 a second.
struct Chatter {
    _pair: Pair,
    _folder: tempfile::TempDir,
}

impl Chatter {
    fn start(name: &str) -> Result<Self> {
        let pair = Pair::prepare(name)?;
        let folder = host::folder()?;
        let ask = send("GET /ask/{n} HTTP/1.1\r\nHost: chatter.test\r\n\r\n");
        let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let server = serve([Step::Repeat(2500, vec![read_head(), answer])]);
        let client = connect([Step::Repeat(2500, vec![ask, read_head(), Step::Pause(20)])]);
        pair.begin(&server, &client, folder.path())?;
        Ok(Self { _pair: pair, _folder: folder })
    }
}

fn only_subjects() -> Result<String> {
    Ok(format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?))
}

fn present(telemetry: &Telemetry, metric: &str, service: &str) -> Result<()> {
    ensure!(telemetry.points(metric).any(|point| point.service() == service), "no {metric} of {service}");
    Ok(())
}

fn at_a_collector() -> Result<()> {
    let mut collector = Collector::start()?;
    let yaml = format!(
        "{}otel_metrics_export:
  endpoint: {}
  interval: 500ms
  features: [application, application_span_otel, application_span_sizes, application_service_graph, application_host, application_process]
processes: {{interval: 1s}}
attributes:
  select:
    http.server.request.duration: {{include: [http.request.method, service.name]}}
",
        only_subjects()?,
        collector.endpoint()
    );
    let spantap = Setup::new(yaml).start()?;
    let _chatter = Chatter::start("every_group")?;
    let (server, client) = ("every_group-server", "every_group-client");
    collector.wait_until(ARRIVAL, |telemetry| {
        for (service, metrics) in [
            (
                server,
                &[
                    "http.server.request.duration",
                    "http.server.request.body.size",
                    "http.server.response.body.size",
                    "traces_service_graph_request_server",
                ][..],
            ),
            (
                client,
                &[
                    "http.client.request.duration",
                    "http.client.request.body.size",
                    "http.client.response.body.size",
                    "traces_service_graph_request_client",
                ],
            ),
        ] {
            metrics.iter().try_for_each(|metric| present(telemetry, metric, service))?;
            for metric in [
                "traces.span.metrics.duration",
                "traces.span.metrics.calls",
                "traces_spanmetrics_size_total",
                "traces_spanmetrics_response_size_total",
                "traces_service_graph_request_total",
                "traces_target_info",
                "traces_host_info",
                "process.cpu.time",
                "process.cpu.utilization",
                "process.memory.usage",
                "process.memory.virtual",
                "process.disk.io",
            ] {
                present(telemetry, metric, service)?;
            }
        }
        Ok(())
    })?;
    let telemetry = collector.telemetry()?;
    let chosen: Vec<_> =
        telemetry.points("http.server.request.duration").filter(|point| point.service() == server).collect();
    ensure!(chosen.len() == 1, "{} series", chosen.len());
    for point in chosen {
        let of = &point.attributes;
        ensure!(of.text("http.request.method") == Some("GET") && of.text("service.name") == Some(server), "{of:?}");
        ensure!(!of.has("url.scheme") && !of.has("http.response.status_code"), "{of:?}");
    }
    let memory = telemetry.count("process.memory.usage", server);
    ensure!((100_000..10_000_000_000).contains(&memory), "{memory} bytes of memory");
    let sizes = telemetry.points("http.server.response.body.size").find(|point| point.service() == server);
    ensure!(sizes.is_some_and(|p| (p.sum - 5.0 * p.count as f64).abs() < 0.1), "not five bytes each: {sizes:?}");
    spantap.stop().map(drop)
}

fn in_a_scrape() -> Result<()> {
    let port = host::free_port()?;
    let yaml = format!(
        "{}prometheus_export:\n  port: {port}\n  features: [application, application_span, application_process]\n\
         processes: {{interval: 1s}}\n",
        only_subjects()?
    );
    let spantap = Setup::new(yaml).start()?;
    let _chatter = Chatter::start("legacy")?;
    let until = std::time::Instant::now() + ARRIVAL;
    let wanted = [
        "http_server_response_body_size_bytes_count{",
        "traces_spanmetrics_latency_bucket{",
        "traces_spanmetrics_calls_total{",
        "span_kind=\"SPAN_KIND_CLIENT\"",
        "service_name=\"legacy-server\"",
        "traces_target_info{",
        "process_cpu_time_seconds_total{",
        "process_memory_usage_bytes{",
    ];
    loop {
        let text = http::get(port, "/metrics")?.text();
        let missing: Vec<_> = wanted.iter().filter(|part| !text.contains(**part)).collect();
        if missing.is_empty() {
            break;
        }
        ensure!(std::time::Instant::now() < until, "missing in the scrape: {missing:?}\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
    spantap.stop().map(drop)
}

/// Requests that are open at once, each on a connection of its own.
const OPEN: u8 = 7;
const ACTIVE: &str = "http.server.active_requests";

/// A server that has read all requests before it answers the first, when it is told to; and its client.
fn slow() -> (Script, Script) {
    let head = |slot| Step::Read(slot, Until::Mark("\r\n\r\n".to_owned()), By::Read, 4096);
    let answer = |slot| Step::Send(slot, "HTTP/1.1 204 No Content\r\n\r\n".into(), How::Write);
    let ask = |slot| Step::Send(slot, "GET /slow HTTP/1.1\r\nHost: slow.test\r\n\r\n".into(), How::Write);
    let accept = (0..OPEN).flat_map(|slot| [Step::Accept(LISTENER, slot), head(slot)]);
    let server = [Step::Listen(LISTENER, At::V4)].into_iter().chain(accept).chain([signal("read"), wait("answer")]);
    // The connections stay open: the end of a request is that of its response.
    let server = server.chain((0..OPEN).map(answer)).chain([wait("over")]).collect();
    let client = (0..OPEN).flat_map(|slot| [Step::Connect(slot, At::V4), ask(slot)]);
    let client = client.chain((0..OPEN).map(head)).chain([wait("over")]).collect();
    (server, client)
}

fn active() -> Result<()> {
    let mut collector = Collector::start()?;
    let port = host::free_port()?;
    let yaml = format!(
        "{}otel_metrics_export:\n  endpoint: {}\n  interval: 300ms\nprometheus_export:\n  port: {port}\n",
        only_subjects()?,
        collector.endpoint()
    );
    let mut spantap = Setup::new(yaml).split().start()?;
    let folder = host::folder()?;
    let mut shown = |service: &str, wanted: u64| -> Result<()> {
        let labels = format!("job=\"{service}\"");
        host::wait_for(&format!("{wanted} of {service} in a scrape"), ARRIVAL, || {
            let text = http::get(port, "/metrics").ok()?.text();
            let mut of = text.lines().filter(|line| line.starts_with("http_server_active_requests{"));
            let line = of.find(|line| line.contains(&labels))?;
            line.ends_with(&format!(" {wanted}")).then_some(())
        })?;
        collector.wait_until(ARRIVAL, |telemetry| {
            let points: Vec<_> = telemetry.points(ACTIVE).filter(|point| point.service() == service).collect();
            ensure!(points.len() == 1 && points.iter().all(|point| point.count == wanted), "{points:?}");
            let of = points.iter().map(|point| (&point.attributes, &point.unit));
            for (attributes, unit) in of {
                ensure!(attributes.text("http.request.method") == Some("GET"), "{attributes:?}");
                ensure!(attributes.text("url.scheme") == Some("http") && unit == "{request}", "{attributes:?}");
                ensure!(!attributes.has("server.address"), "only where it is asked for");
            }
            Ok(())
        })
    };

    let mut pair = Pair::prepare("slow")?;
    let (server, client) = slow();
    pair.begin(&server, &client, folder.path())?;
    pair.server.wait_signal("read", ARRIVAL)?;
    shown("slow-server", OPEN.into())?;
    pair.signal("answer")?;
    shown("slow-server", 0)?;
    pair.signal("over")?;
    pair.finish(ARRIVAL)?;

    // A server that dies with its requests.
    let mut pair = Pair::prepare("dying")?;
    pair.begin(&server, &client, folder.path())?;
    pair.server.wait_signal("read", ARRIVAL)?;
    shown("dying-server", OPEN.into())?;
    pair.server.kill();
    shown("dying-server", 0)?;

    // An agent that dies, and is started anew: what was open before is not known any more, what comes is.
    let pair = Pair::prepare("later")?;
    pair.begin(&server, &client, folder.path())?;
    pair.server.wait_signal("read", ARRIVAL)?;
    shown("later-server", OPEN.into())?;
    spantap.restart_agent(|| ())?;
    shown("later-server", 0)?;
    spantap.stop().map(drop)
}
