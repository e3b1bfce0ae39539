//! Files of `collector-config/` as they stand, between Spantap and where they send: those that other files of tests do not run.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use spantap_tests::{
    certificates::Certificates,
    collector::{self, Collector},
    host, observed,
    pair::Pair,
    script::{Step, connect, read_head, send, serve},
    spantap::{Setup, Spantap},
    suite::Suite,
    telemetry::Telemetry,
};

const ARRIVAL: Duration = Duration::from_secs(30);
/// Of this host, as all of 127/8, and not those on which others listen.
const NEAR: &str = "127.0.0.81";
const FAR: &str = "127.0.0.82";
const REQUESTS: u32 = 200;
/// Of those, so many are answered with 500.
const FAILED: u32 = 20;

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()];
    Suite::new("collector_config", lacks, || Ok(()))
        .case("plain", |()| plain())
        .case_unless(host::lacks("openssl"), "forwarding_to_one_that_authenticates", |()| forwarding())
        .case("tail_sampling_keeps_every_error", |()| sampling())
        .run()
}

fn spantap() -> Result<Spantap> {
    let yaml = format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?);
    Setup::new(yaml)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{NEAR}:4318"))
        .environment("BEYLA_METRICS_INTERVAL", "300ms")
        .start()
}

/// [`REQUESTS`] requests between a server and a client, [`FAILED`] of which end with 500.
fn requests(name: &str) -> Result<(Pair, tempfile::TempDir)> {
    let (pair, folder) = (Pair::prepare(name)?, host::folder()?);
    let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: {name}.test\r\n\r\n"));
    let fine = || vec![read_head(), send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    let bad = || vec![read_head(), send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")];
    let server = serve([Step::Repeat(FAILED, bad()), Step::Repeat(REQUESTS - FAILED, fine())]);
    let client = connect([Step::Repeat(REQUESTS, vec![ask, read_head(), Step::Pause(10)])]);
    pair.begin(&server, &client, folder.path())?;
    Ok((pair, folder))
}

fn counted(telemetry: &Telemetry, name: &str) -> Result<()> {
    let count = telemetry.count("http.server.request.duration", &format!("{name}-server"));
    ensure!(count == u64::from(REQUESTS), "the histograms count {count}");
    Ok(())
}

fn everything(telemetry: &Telemetry, name: &str) -> Result<()> {
    for side in ["server", "client"] {
        let spans = telemetry.spans_of(&format!("{name}-{side}")).len();
        ensure!(spans == REQUESTS as usize, "{spans} spans of the {side}");
    }
    counted(telemetry, name)
}

fn plain() -> Result<()> {
    let mut collector = Collector::start_configured("collector.yaml", &[("COLLECTOR_ADDRESS", NEAR)])?;
    let spantap = spantap()?;
    let _requests = requests("plain")?;
    collector.wait_until(ARRIVAL, |telemetry| everything(telemetry, "plain"))?;
    spantap.stop().map(drop)
}

fn forwarding() -> Result<()> {
    let certificates = Certificates::make(FAR)?;
    let mut backend = Collector::start_authenticating(FAR, certificates.folder(), "wonderland", "token")?;
    let (remote, authority) = (format!("https://{FAR}:4318"), certificates.path("ca.crt"));
    let mut between = Collector::start_configured(
        "forwarding.yaml",
        &[
            ("COLLECTOR_ADDRESS", NEAR),
            ("REMOTE_ENDPOINT", &*remote),
            ("REMOTE_USER", "spantap"),
            ("REMOTE_PASSWORD", "wonderland"),
            // In the place of the system's.
            ("SSL_CERT_FILE", &*authority),
        ],
    )?;
    let spantap = spantap()?;
    let _requests = requests("forwarded")?;
    backend.wait_until(ARRIVAL, |telemetry| everything(telemetry, "forwarded"))?;
    spantap.stop()?;
    between.stop()
}

fn sampling() -> Result<()> {
    let mut collector = Collector::start_configured("gateway-sampling.yaml", &[("GATEWAY_ADDRESS", NEAR)])?;
    let spantap = spantap()?;
    let _requests = requests("sampled")?;
    // It waits for 10 s before it decides.
    collector.wait_until(ARRIVAL, |telemetry| {
        counted(telemetry, "sampled")?;
        for side in ["server", "client"] {
            let spans = telemetry.spans_of(&format!("sampled-{side}"));
            let failed = spans.iter().filter(|span| span.status_code() == Some(500)).count();
            ensure!(failed == FAILED as usize, "{failed} failed requests of the {side}");
        }
        Ok(())
    })?;
    spantap.stop()?;
    collector.stop()?;
    let telemetry = collector.telemetry()?;
    counted(telemetry, "sampled")?;
    let fine = telemetry.spans_of("sampled-server").len() - FAILED as usize;
    // A tenth of 180, at random: 18 ± 4.
    ensure!((1..=60).contains(&fine), "{fine} of the others were kept");
    Ok(())
}
