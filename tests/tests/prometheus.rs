//! A real Prometheus and its promtool against the scrape endpoint, and differences at a real Collector.
#![allow(missing_docs)]

use std::{
    io::Write,
    process::{Command, ExitCode, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spantap_tests::{
    certificates::Certificates,
    collector::{self, Collector},
    host, http, observed,
    pair::Pair,
    process::Process,
    script::{Step, connect, read_head, send, serve},
    spantap::Setup,
    suite::Suite,
    telemetry::Telemetry,
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Requests of one exchange of the pair.
const REQUESTS: u32 = 300;

fn main() -> ExitCode {
    let collector = collector::lacks_collector();
    Suite::new(
        "prometheus",
        [host::lacks_root_and_btf(), host::lacks("prometheus"), host::lacks("promtool")],
        || Ok(()),
    )
    .case("promtool_finds_nothing_to_say", |()| promtool())
    .case("exemplars_are_stored", |()| exemplars())
    .case("series_end_with_their_process", |()| stale())
    .case_unless(host::lacks("openssl"), "password_and_tls", |()| guarded())
    .case_unless(collector, "differences_equal_the_requests", |()| differences())
    .run()
}

/// A server and a client that make [`REQUESTS`] requests.
fn requests(name: &str) -> Result<(Pair, tempfile::TempDir)> {
    let pair = Pair::prepare(name)?;
    let folder = host::folder()?;
    let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: {name}.test\r\n\r\n"));
    let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let server = serve([Step::Repeat(REQUESTS, vec![read_head(), answer])]);
    let client = connect([Step::Repeat(REQUESTS, vec![ask, read_head(), Step::Pause(10)])]);
    pair.begin(&server, &client, folder.path())?;
    Ok((pair, folder))
}

fn only_subjects() -> Result<String> {
    Ok(format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?))
}

fn promtool() -> Result<()> {
    let scrape = host::free_port()?;
    let yaml = format!("{}prometheus_export:\n  port: {scrape}\n", only_subjects()?);
    let spantap = Setup::new(yaml).start()?;
    let _requests = requests("tooled")?;
    let text = host::wait_for("series of the server", ARRIVAL, || {
        let answer = http::get(scrape, "/metrics").ok()?;
        let text = String::from_utf8(answer.body).ok()?;
        text.contains("http_server_request_duration_seconds_count{").then_some(text)
    })?;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("promtool has no input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.trim().is_empty(), "promtool says: {said}");
    ensure!(text.contains("spantap_build_info{version=\""), "no build info");
    spantap.stop().map(drop)
}

struct Prometheus {
    web: u16,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(scrape: u16) -> Result<Self> {
        Self::with_jobs(&[&format!(
            "{{job_name: spantap, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{scrape}']}}]}}"
        )])
    }

    fn with_jobs(jobs: &[&str]) -> Result<Self> {
        let (web, folder) = (host::free_port()?, host::folder()?);
        let path = folder.path().join("prometheus.yml");
        let jobs = jobs.join(", ");
        std::fs::write(
            &path,
            format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs: [{jobs}]\n"),
        )?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{web}"));
        command.arg("--enable-feature=exemplar-storage");
        let mut process = Process::start("prometheus", folder.path(), command)?;
        process.wait_ready(Duration::from_secs(30), |_| http::get(web, "/-/ready").is_ok_and(|a| a.status == 200))?;
        Ok(Self { web, process, _folder: folder })
    }

    fn ask(&self, path: &str) -> Option<Vec<Value>> {
        let answer = http::get(self.web, path).ok()?;
        let document: Value = serde_json::from_slice(&answer.body).ok()?;
        let list = document.pointer("/data/result").or_else(|| document.pointer("/data"))?;
        list.as_array().filter(|list| !list.is_empty()).cloned()
    }
}

fn exemplars() -> Result<()> {
    let scrape = host::free_port()?;
    // Traces go to the terminal: a span without a destination is no span.
    let yaml = format!("{}prometheus_export:\n  port: {scrape}\n  exemplar_filter: trace_based\n", only_subjects()?);
    let spantap = Setup::new(yaml).own_key("console", "json").start()?;
    let prometheus = Prometheus::start(scrape)?;
    let _requests = requests("exemplary")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let query = format!(
        "/api/v1/query_exemplars?query=http_server_request_duration_seconds_bucket&start={}&end={}",
        now - 3600,
        now + 3600
    );
    let found = host::wait_for("exemplars in Prometheus", ARRIVAL, || prometheus.ask(&query));
    let found = found.with_context(|| prometheus.process.tail())?;
    let label = |name: &str| {
        let of = found.iter().find_map(|series| series.pointer(&format!("/exemplars/0/labels/{name}")));
        of.and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {name} in {found:?}"))
    };
    let (trace, span) = (label("trace_id")?, label("span_id")?);
    ensure!(trace.len() == 32 && span.len() == 16, "ids: {trace} {span}");
    // The same ids stand on the line of the exchange.
    host::wait_for("the exemplar's span on the terminal", ARRIVAL, || {
        spantap.output().lines().any(|line| line.contains(&trace) && line.contains(&span)).then_some(())
    })?;
    let instance = "/api/v1/query?query=target_info%7Bprocess_pid!=%22%22%7D";
    host::wait_for("target_info in Prometheus", ARRIVAL, || prometheus.ask(instance))?;
    spantap.stop().map(drop)
}

/// Prometheus shows the last sample for five minutes, unless a scrape without the series marks it as stale.
fn stale() -> Result<()> {
    let scrape = host::free_port()?;
    let yaml = format!("{}prometheus_export:\n  port: {scrape}\n  ttl: 1s\n", only_subjects()?);
    let spantap = Setup::new(yaml).start()?;
    let prometheus = Prometheus::start(scrape)?;
    let requests = requests("ending")?;
    let series = "http_server_request_duration_seconds_count%7Bjob=~%22.*ending-server%22%7D";
    let now = format!("/api/v1/query?query={series}");
    let found = host::wait_for("the series in Prometheus", ARRIVAL, || prometheus.ask(&now));
    found.with_context(|| prometheus.process.tail())?;
    drop(requests);
    host::wait_for("the series to be stale", ARRIVAL, || prometheus.ask(&now).is_none().then_some(()))?;
    // Not because nothing can be asked any more.
    let before = format!("/api/v1/query?query=count_over_time({series}%5B5m%5D)");
    prometheus.ask(&before).context("Prometheus has forgotten the series")?;
    spantap.stop().map(drop)
}

/// Two jobs of one Prometheus ask over TLS: one with the password, one with another.
fn guarded() -> Result<()> {
    let (scrape, certificates) = (host::free_port()?, Certificates::make("127.0.0.1")?);
    let yaml = format!("{}prometheus_export:\n  port: {scrape}\n", only_subjects()?);
    let spantap = Setup::new(yaml)
        .environment("SPANTAP_PROMETHEUS_TLS_CERTIFICATE", &certificates.path("server.crt"))
        .environment("SPANTAP_PROMETHEUS_TLS_KEY", &certificates.path("server.key"))
        .environment("SPANTAP_PROMETHEUS_USERNAME", "prometheus")
        .environment("SPANTAP_PROMETHEUS_PASSWORD", "open-sesame")
        .start()?;
    let authority = certificates.path("ca.crt");
    let job = |name: &str, password: &str| {
        format!(
            "{{job_name: {name}, scheme: https, tls_config: {{ca_file: {authority}}}, \
             basic_auth: {{username: prometheus, password: {password}}}, \
             static_configs: [{{targets: ['127.0.0.1:{scrape}']}}]}}"
        )
    };
    let prometheus = Prometheus::with_jobs(&[&job("friend", "open-sesame"), &job("stranger", "open-barley")])?;
    let _requests = requests("guarded")?;
    let of = "http_server_request_duration_seconds_count";
    let series = format!("/api/v1/query?query={of}%7Bjob=%22friend%22%7D");
    let found = host::wait_for("series in Prometheus", ARRIVAL, || prometheus.ask(&series));
    found.with_context(|| prometheus.process.tail())?;
    let up = |job: &str| {
        let answer = prometheus.ask(&format!("/api/v1/query?query=up%7Bjob=%22{job}%22%7D"))?;
        answer.first()?.pointer("/value/1")?.as_str().map(str::to_owned)
    };
    host::wait_for("both to have asked", ARRIVAL, || (up("friend")? == "1" && up("stranger")? == "0").then_some(()))?;
    let targets = http::get(prometheus.web, "/api/v1/targets")?.text();
    ensure!(targets.contains("401"), "the stranger was not told why: {targets}");
    ensure!(prometheus.ask(&series.replace("friend", "stranger")).is_none(), "the stranger was given series");
    let log = spantap.stop()?;
    ensure!(!log.contains("open-sesame") && !log.contains("open-barley"), "a password is in the log");
    Ok(())
}

fn differences() -> Result<()> {
    let mut collector = Collector::start()?;
    let yaml = format!("{}otel_metrics_export:\n  endpoint: http://localhost:{}\n", only_subjects()?, collector.port);
    let spantap = Setup::new(yaml)
        .environment("BEYLA_METRICS_INTERVAL", "200ms")
        .environment("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
        .start()?;
    let _requests = requests("differing")?;
    let all = |telemetry: &Telemetry| -> Result<(u64, u64)> {
        let of = telemetry.points("http.server.request.duration");
        let (points, sum) = of.fold((0, 0), |(points, sum), point| (points + point.told, sum + point.count));
        ensure!(sum >= u64::from(REQUESTS), "{sum} requests so far");
        Ok((points, sum))
    };
    let (points, sum) = collector.wait_until(ARRIVAL, all).with_context(|| spantap.tail())?;
    ensure!(sum == u64::from(REQUESTS), "{sum} requests in {points} differences, {REQUESTS} were made");
    ensure!(points > 2, "{points} points: were they differences?");
    spantap.stop()?;
    collector.stop()?;
    // The collection at stop repeats nothing.
    let (_, sum) = all(collector.telemetry()?)?;
    ensure!(sum == u64::from(REQUESTS), "{sum} requests after the stop, {REQUESTS} were made");
    Ok(())
}
