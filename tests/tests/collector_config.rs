//! Files of `collector-config/` as they stand, between Spantap and where they send: those that other files of tests do not run.
#![allow(missing_docs)]

use std::{collections::HashSet, process::ExitCode, time::Duration};

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
/// Two of a second tier.
const SAMPLERS: [&str; 2] = ["127.0.0.83", "127.0.0.84"];
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
        .case("two_tiers_bring_each_trace_to_one_collector", |()| balancing())
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

fn balancing() -> Result<()> {
    let start = |address| Collector::start_configured("gateway-sampling.yaml", &[("GATEWAY_ADDRESS", address)]);
    let mut samplers = SAMPLERS.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut balancing = Collector::start_balancing(NEAR, &SAMPLERS)?;
    let spantap = spantap()?;
    let _requests = requests("balanced")?;
    let sides = ["balanced-server", "balanced-client"];
    let of = |telemetry: &Telemetry, side: &str| -> HashSet<String> {
        telemetry.spans_of(side).iter().filter(|s| s.status_code() == Some(500)).map(|s| s.trace_id.clone()).collect()
    };
    // Both sides of each failed request, wherever they are decided about; and each series by one of the two.
    host::wait_for("all failed requests at the second tier", ARRIVAL, || {
        let mut arrived = 0;
        for sampler in &mut samplers {
            let telemetry = sampler.telemetry().ok()?;
            arrived += sides.iter().map(|side| of(telemetry, side).len()).sum::<usize>();
        }
        (arrived == 2 * FAILED as usize).then_some(())
    })?;
    spantap.stop()?;
    balancing.stop()?;
    let (mut seen, mut writers) = (0, 0);
    for sampler in &mut samplers {
        sampler.stop()?;
        let telemetry = sampler.telemetry()?;
        let [server, client] = sides.map(|side| of(telemetry, side));
        ensure!(server == client, "of a trace one span is here, and one there: {server:?} {client:?}");
        ensure!(!server.is_empty(), "one of the two got no trace");
        seen += server.len();
        let count = telemetry.count("http.server.request.duration", sides[0]);
        ensure!(count == 0 || count == u64::from(REQUESTS), "{count} requests in the histograms of one");
        writers += usize::from(count > 0);
    }
    ensure!(seen == FAILED as usize && writers == 1, "{seen} traces, {writers} writers of one series");
    Ok(())
}
