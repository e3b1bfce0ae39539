//! What a real Collector asks for, crossed with what Spantap can send: credentials, protocols, compression, temporality, kinds of
//! histograms. Each combination brings every request, once, as a span and in the metrics. Then what is said where it cannot work.
#![allow(missing_docs)]

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificates::Certificates,
    collector::{self, Collector},
    expect, host, observed,
    pair::Pair,
    script::{Step, connect, read_head, send, serve},
    spantap::{Setup, Spantap},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Of this host, as all of 127/8, and not the one on which others listen.
const ADDRESS: &str = "127.0.0.78";
const PASSWORD: &str = "wonderland";
const TOKEN: &str = "s3cr3t-token";
/// Requests of each combination.
const REQUESTS: u32 = 100;
const DURATION: &str = "http.server.request.duration";

/// How a client says who it is.
#[derive(Debug, Clone, Copy)]
enum Who {
    Basic,
    Bearer,
    Certificate,
}

/// One combination. The ports are those of `collector-config/authenticating.yaml`.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    port: u16,
    protocol: &'static str,
    gzip: bool,
    who: Who,
    delta: bool,
    exponential: bool,
}

const fn way(name: &'static str, port: u16, protocol: &'static str, who: Who) -> Way {
    Way { name, port, protocol, who, gzip: false, delta: false, exponential: false }
}

const WAYS: [Way; 7] = [
    way("basic_http", 4318, "http/protobuf", Who::Basic),
    Way { gzip: true, delta: true, exponential: true, ..way("basic_json", 4318, "http/json", Who::Basic) },
    Way { exponential: true, ..way("basic_grpc", 4317, "grpc", Who::Basic) },
    Way { gzip: true, ..way("bearer_http", 5318, "http/protobuf", Who::Bearer) },
    Way { gzip: true, exponential: true, ..way("mtls_http", 6318, "http/protobuf", Who::Certificate) },
    Way { delta: true, ..way("mtls_json", 6318, "http/json", Who::Certificate) },
    Way { gzip: true, delta: true, exponential: true, ..way("mtls_grpc", 6317, "grpc", Who::Certificate) },
];

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), host::lacks("openssl")];
    let mut suite = Suite::new("receivers", lacks, || Ok(()));
    for way in WAYS {
        suite = suite.case(way.name, move |()| brings_everything(way));
    }
    suite
        .case("a_stranger_at_the_address", |()| distrusted("server", "stranger.crt", "UnknownIssuer"))
        .case("a_certificate_that_is_over", |()| distrusted("expired", "ca.crt", "Expired"))
        .case("no_client_certificate", |()| no_certificate())
        .case("a_wrong_password", |()| wrong_password())
        .run()
}

/// Header of each kind of credentials; printf spantap:wonderland | base64.
fn header(who: Who) -> Option<&'static str> {
    match who {
        Who::Basic => Some("Authorization=Basic%20c3BhbnRhcDp3b25kZXJsYW5k"),
        Who::Bearer => Some("Authorization=Bearer%20s3cr3t-token"),
        Who::Certificate => None,
    }
}

fn setup(port: u16, authority: &str) -> Result<Setup> {
    let yaml = format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?);
    Ok(Setup::new(yaml)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("https://{ADDRESS}:{port}"))
        .environment("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)
        .environment("BEYLA_METRICS_INTERVAL", "300ms"))
}

/// A server and a client that make [`REQUESTS`] requests.
fn requests(name: &str) -> Result<(Pair, tempfile::TempDir)> {
    let pair = Pair::prepare(name)?;
    let folder = host::folder()?;
    let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: {name}.test\r\n\r\n"));
    let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let server = serve([Step::Repeat(REQUESTS, vec![read_head(), answer])]);
    let client = connect([Step::Repeat(REQUESTS, vec![ask, read_head(), Step::Pause(10)])]);
    pair.begin(&server, &client, folder.path())?;
    Ok((pair, folder))
}

fn collector(folder: &Path) -> Result<Collector> {
    Collector::start_authenticating(ADDRESS, folder, PASSWORD, TOKEN)
}

fn brings_everything(way: Way) -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector(certificates.folder())?;
    let mut setup = setup(way.port, &certificates.path("ca.crt"))?
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", way.protocol)
        .environment("OTEL_EXPORTER_OTLP_COMPRESSION", if way.gzip { "gzip" } else { "none" });
    if let Some(header) = header(way.who) {
        setup = setup.environment("OTEL_EXPORTER_OTLP_HEADERS", header);
    } else {
        setup = setup
            .environment("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificates.path("client.crt"))
            .environment("OTEL_EXPORTER_OTLP_CLIENT_KEY", &certificates.path("client.key"));
    }
    if way.delta {
        setup = setup.environment("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta");
    }
    if way.exponential {
        let kind = "base2_exponential_bucket_histogram";
        setup = setup.environment("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", kind);
    }
    let spantap = setup.start()?;
    let _requests = requests(way.name)?;
    let arrived = collector.wait_until(ARRIVAL, |telemetry| all(telemetry, way));
    arrived.with_context(|| format!("{}\n{}", spantap.tail(), collector.tail()))?;
    let log = stopped(spantap)?;
    collector.stop()?;
    // The collection at the stop repeats nothing.
    all(collector.telemetry()?, way)?;
    ensure!(log.contains(way.protocol), "the log does not name the protocol");
    Ok(())
}

/// Every request once, as two spans and in the histograms of both sides.
fn all(telemetry: &Telemetry, way: Way) -> Result<()> {
    let wanted = u64::from(REQUESTS);
    for (side, kind) in [("server", Kind::Server), ("client", Kind::Client)] {
        let service = format!("{}-{side}", way.name);
        let spans = telemetry.spans_of(&service);
        ensure!(spans.len() as u64 == wanted, "{} spans of {service}", spans.len());
        ensure!(spans.iter().all(|span| span.kind == kind), "spans of another kind of {service}");
        spans.iter().try_for_each(|span| expect::well_formed(span))?;
        let count = telemetry.count(&format!("http.{side}.request.duration"), &service);
        ensure!(count == wanted, "the histograms of {service} count {count}");
    }
    let of_server = |point: &&_| spantap_tests::telemetry::Point::service(point).starts_with(way.name);
    let point = telemetry.points(DURATION).find(of_server).context("no point")?;
    ensure!(point.scale.is_some() == way.exponential, "the histogram is of the other kind: {point:?}");
    if way.delta {
        ensure!(point.told > 2, "{} points: were they differences?", point.told);
    }
    if !way.delta || !way.exponential {
        let in_buckets = point.zeros + point.buckets.iter().sum::<u64>();
        ensure!(in_buckets == wanted, "{in_buckets} in the buckets: {point:?}");
    }
    Ok(())
}

fn stopped(spantap: Spantap) -> Result<String> {
    let log = spantap.stop()?;
    for secret in [PASSWORD, TOKEN, "c3BhbnRhcDp3b25kZXJsYW5k"] {
        ensure!(!log.contains(secret), "a secret is in the log");
    }
    Ok(log)
}

/// Waits until a line of the log holds all `words`.
fn said(spantap: &mut Spantap, words: &[&str]) -> Result<()> {
    let mut log = String::new();
    let found = host::wait_for("a line of the log", ARRIVAL, || {
        log = spantap.forwarder().log();
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
    found.with_context(|| format!("{words:?} in:\n{log}"))
}

/// The Collector shows a certificate that does not hold: nothing is sent, and the line says why and who tells the way out.
fn distrusted(shown: &str, authority: &str, why: &str) -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    for ending in ["crt", "key"] {
        let folder = certificates.folder();
        std::fs::copy(folder.join(format!("{shown}.{ending}")), folder.join("served"))?;
        std::fs::rename(folder.join("served"), folder.join(format!("server.{ending}")))?;
    }
    let mut collector = collector(certificates.folder())?;
    let setup = setup(4318, &certificates.path(authority))?;
    let header = header(Who::Basic).context("no header")?;
    let mut spantap = setup.environment("OTEL_EXPORTER_OTLP_HEADERS", header).start()?;
    let _requests = requests("distrusted")?;
    said(&mut spantap, &["export failed and is tried again", "https://127.0.0.78:4318", why, "spantap doctor"])?;
    ensure!(collector.telemetry()?.spans.is_empty(), "spans came in spite of it");
    stopped(spantap).map(drop)
}

fn no_certificate() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector(certificates.folder())?;
    let mut spantap = setup(6318, &certificates.path("ca.crt"))?.start()?;
    let _requests = requests("nameless")?;
    said(&mut spantap, &["export failed and is tried again", "CertificateRequired", "spantap doctor"])?;
    ensure!(collector.telemetry()?.spans.is_empty(), "spans came in spite of it");
    stopped(spantap).map(drop)
}

fn wrong_password() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector(certificates.folder())?;
    let setup = setup(4318, &certificates.path("ca.crt"))?;
    // printf spantap:wrong | base64
    let header = "Authorization=Basic%20c3BhbnRhcDp3cm9uZw==";
    let mut spantap = setup.environment("OTEL_EXPORTER_OTLP_HEADERS", header).never_ready().start()?;
    let _requests = requests("wrong_password")?;
    said(&mut spantap, &["status 401", "headers=\"authorization\""])?;
    ensure!(collector.telemetry()?.spans.is_empty(), "spans came in spite of it");
    let log = stopped(spantap)?;
    ensure!(!log.contains("c3BhbnRhcDp3cm9uZw"), "the wrong password is in the log");
    Ok(())
}
