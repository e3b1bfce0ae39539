//! Ways out: one signal alone, direct with headers, Prometheus pull, the terminal.
#![allow(missing_docs)]

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    collector::{self, CREDENTIALS, Collector},
    expect, host, http, observed,
    pair::Pair,
    process::Process,
    script::{Step, connect, read_head, send, serve},
    spantap::{Setup, Spantap},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    Suite::new("export", [host::lacks_root_and_btf(), no_collector], || Ok(()))
        .case("traces_alone", |()| traces_alone())
        .case("metrics_alone", |()| metrics_alone())
        .case("direct_with_headers", |()| direct_with_headers())
        .case("wrong_credentials_are_counted", |()| wrong_credentials())
        .case_unless(host::lacks("prometheus"), "prometheus_scrapes", |()| prometheus())
        .case("console_text", |()| console("text", "text"))
        .case("console_json", |()| console("json", "json"))
        .case("trace_printer_counter", |()| trace_printer_counter())
        .case("no_exporter_prints_to_the_terminal", |()| no_exporter())
        .run()
}

fn only_subjects() -> Result<String> {
    Ok(format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?))
}

/// A server and a client that exchange requests until dropped, some 50 a second.
struct Chatter {
    _pair: Pair,
    _folder: tempfile::TempDir,
}

impl Chatter {
    fn start(name: &str) -> Result<Self> {
        let pair = Pair::prepare(name)?;
        let folder = host::folder()?;
        let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: chatter.test\r\n\r\n"));
        let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let server = serve([Step::Repeat(2500, vec![read_head(), answer])]);
        let client = connect([Step::Repeat(2500, vec![ask, read_head(), Step::Pause(20)])]);
        pair.begin(&server, &client, folder.path())?;
        Ok(Self { _pair: pair, _folder: folder })
    }
}

fn both_kinds(telemetry: &Telemetry, name: &str) -> Result<()> {
    for (side, kind) in [("server", Kind::Server), ("client", Kind::Client)] {
        let spans = telemetry.spans_of(&format!("{name}-{side}"));
        ensure!(spans.iter().filter(|s| s.kind == kind).count() > 3, "no {kind:?} spans of {name}");
        spans.iter().try_for_each(|span| expect::well_formed(span))?;
    }
    Ok(())
}

fn counted(telemetry: &Telemetry, name: &str) -> Result<()> {
    let server = telemetry.count("http.server.request.duration", &format!("{name}-server"));
    let client = telemetry.count("http.client.request.duration", &format!("{name}-client"));
    ensure!(server > 3 && client > 3, "histograms count {server} and {client}");
    Ok(())
}

fn traces_alone() -> Result<()> {
    let mut collector = Collector::start()?;
    let yaml = format!(
        "{}otel_traces_export:\n  endpoint: {}\n  batch_timeout: 100ms\n",
        only_subjects()?,
        collector.endpoint()
    );
    let spantap = Setup::new(yaml).environment("BEYLA_METRICS_INTERVAL", "200ms").start()?;
    let _chatter = Chatter::start("traces_alone")?;
    collector.wait_until(ARRIVAL, |telemetry| both_kinds(telemetry, "traces_alone"))?;
    // Three intervals in which metrics would have come.
    std::thread::sleep(Duration::from_millis(600));
    let points = collector.telemetry()?.points("http.server.request.duration").count();
    ensure!(points == 0, "{points} metric series without metrics configured");
    spantap.stop().map(drop)
}

fn metrics_alone() -> Result<()> {
    let mut collector = Collector::start()?;
    let yaml =
        format!("{}otel_metrics_export:\n  endpoint: {}\n  interval: 300ms\n", only_subjects()?, collector.endpoint());
    let spantap = Setup::new(yaml).start()?;
    let _chatter = Chatter::start("metrics_alone")?;
    collector.wait_until(ARRIVAL, |telemetry| counted(telemetry, "metrics_alone"))?;
    let spans = collector.telemetry()?.spans.len();
    ensure!(spans == 0, "{spans} spans without traces configured");
    // Self-metrics travel with them.
    collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(telemetry.points("spantap.exchanges").any(|p| p.count > 0), "no spantap.exchanges");
        Ok(())
    })?;
    spantap.stop().map(drop)
}

fn authorization(user: &str, password: &str) -> String {
    format!("Authorization=Basic%20{}", base64(format!("{user}:{password}").as_bytes()))
}

/// RFC 4648: three bytes become four characters.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().chain([&0, &0]).take(3).fold(0_usize, |n, b| n << 8 | usize::from(*b));
        for place in 0..4 {
            let digit = ALPHABET.get(number >> (18 - 6 * place) & 63).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The environment of the contract alone: endpoint and headers for both signals, no exporter in the file.
fn direct(collector: &Collector, headers: &str) -> Result<Setup> {
    Ok(Setup::new(only_subjects()?)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .environment("OTEL_EXPORTER_OTLP_HEADERS", headers)
        .environment("BEYLA_METRICS_INTERVAL", "300ms"))
}

fn direct_with_headers() -> Result<()> {
    let mut collector = Collector::start_authenticated()?;
    let spantap = direct(&collector, &authorization(CREDENTIALS.0, CREDENTIALS.1))?.start()?;
    let _chatter = Chatter::start("direct")?;
    collector.wait_until(ARRIVAL, |telemetry| {
        both_kinds(telemetry, "direct")?;
        counted(telemetry, "direct")
    })?;
    spantap.stop().map(drop)
}

fn wrong_credentials() -> Result<()> {
    let mut collector = Collector::start_authenticated()?;
    let secret = authorization(CREDENTIALS.0, "not-the-password");
    let spantap = direct(&collector, &secret)?.never_ready().start()?;
    let _chatter = Chatter::start("refused")?;
    // Kept until the stop, for credentials that may be mended.
    host::wait_for("the refusal to be told", ARRIVAL, || {
        let page = http::get(spantap.admin, "/readyz").ok()?;
        String::from_utf8_lossy(&page.body).contains("401").then_some(())
    })?;
    ensure!(collector.telemetry()?.spans.is_empty(), "spans came in spite of wrong credentials");
    let ready = http::get(spantap.admin, "/readyz")?;
    ensure!(ready.status == 503, "ready, although everything is refused");
    let own = spantap.own_metrics()?;
    let log = spantap.stop()?;
    let basic = base64(format!("{}:not-the-password", CREDENTIALS.0).as_bytes());
    ensure!(!log.contains(&basic) && !own.contains(&basic), "the credentials stand in the log or in the self-metrics");
    let said = log.matches("refuses the credentials").count();
    ensure!((1..=2).contains(&said), "said once for each signal: {said} times in {log}");
    let books = admin::summary(&log).context("no summary")?;
    ensure!(books.losses.get("export_refused").is_some_and(|n| *n > 0), "the summary does not name what was refused");
    Ok(())
}

fn prometheus() -> Result<()> {
    let (scrape, web) = (host::free_port()?, host::free_port()?);
    let yaml = format!("{}prometheus_export:\n  port: {scrape}\n", only_subjects()?);
    let spantap = Setup::new(yaml).start()?;
    let _chatter = Chatter::start("scraped")?;
    let folder = host::folder()?;
    let path = folder.path().join("prometheus.yml");
    std::fs::write(
        &path,
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: spantap
    static_configs: [{{targets: ['127.0.0.1:{scrape}']}}]
  - job_name: spantap-itself
    static_configs: [{{targets: ['127.0.0.1:{}']}}]
",
            spantap.admin
        ),
    )?;
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", path.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{web}"));
    let mut process = Process::start("prometheus", folder.path(), command)?;
    process.wait_ready(Duration::from_secs(30), |_| http::get(web, "/-/ready").is_ok_and(|a| a.status == 200))?;
    let query = |expression: &str| -> Option<Vec<serde_json::Value>> {
        let answer = http::get(web, &format!("/api/v1/query?query={expression}")).ok()?;
        let document: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        document.pointer("/data/result")?.as_array().filter(|list| !list.is_empty()).cloned()
    };
    for metric in [
        "http_server_request_duration_seconds_count",
        "http_server_request_duration_seconds_bucket",
        "http_client_request_duration_seconds_count",
    ] {
        let what = format!("Prometheus to have {metric}");
        let series = host::wait_for(&what, ARRIVAL, || query(&format!("{metric}%7Bjob=%22spantap%22%7D")));
        let series = series.with_context(|| process.tail())?;
        let text = serde_json::to_string(&series)?;
        ensure!(text.contains("\"http_request_method\":\"GET\"") && text.contains("\"200\""), "labels: {text}");
    }
    host::wait_for("both targets to be up", ARRIVAL, || {
        query("up").filter(|series| {
            let is_up = |s: &serde_json::Value| s.pointer("/value/1").and_then(|v| v.as_str()) == Some("1");
            series.len() == 2 && series.iter().all(is_up)
        })
    })?;
    spantap.stop().map(drop)
}

/// Lines of standard output so far.
fn printed(spantap: &Spantap, what: &str, enough: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
    host::wait_for(what, ARRIVAL, || {
        let lines: Vec<String> = spantap.output().lines().map(str::to_owned).collect();
        enough(&lines).then_some(lines)
    })
}

fn console(form: &str, name: &str) -> Result<()> {
    let spantap = Setup::new(only_subjects()?).own_key("console", form).start()?;
    let _chatter = Chatter::start(name)?;
    let path = format!("/{name}/");
    let lines =
        printed(&spantap, "lines on standard output", |lines| lines.iter().filter(|l| l.contains(&path)).count() > 4)?;
    // The last line may be half written.
    for line in lines.iter().rev().skip(1).filter(|line| line.contains(&path)) {
        ensure!(line.contains("GET") && line.contains("200"), "no method or status: {line}");
        if form == "json" {
            let value: serde_json::Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(value.is_object(), "no object: {line}");
        }
    }
    spantap.stop().map(drop)
}

fn trace_printer_counter() -> Result<()> {
    let spantap = Setup::new(format!("{}trace_printer: counter\n", only_subjects()?)).start()?;
    let _chatter = Chatter::start("counter")?;
    let digits = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
    host::wait_for("a running number", ARRIVAL, || digits(&spantap.output()).then_some(()))?;
    ensure!(!spantap.output().contains("/counter/"), "the counter prints no paths");
    spantap.stop().map(drop)
}

fn no_exporter() -> Result<()> {
    // What listens on 4318 of this machine is not ours to send to.
    if std::net::TcpStream::connect(("127.0.0.1", 4318)).is_ok() {
        spantap_tests::suite::say_skip("export::no_exporter_prints_to_the_terminal", "something listens on port 4318");
        return Ok(());
    }
    let spantap = Setup::new(only_subjects()?).start()?;
    let _chatter = Chatter::start("nowhere")?;
    printed(&spantap, "lines on standard output", |lines| lines.iter().any(|line| line.contains("/nowhere/")))?;
    let log = spantap.stop()?;
    ensure!(log.contains("4318"), "the log does not say that nothing listens on 4318:\n{log}");
    Ok(())
}
