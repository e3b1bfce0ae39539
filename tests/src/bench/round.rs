//! One round: load for some seconds, without or with Spantap, and what it took.
//!
//! In: a [`Scene`]. Out: a [`Round`].

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::measure::{self, Memory};
use crate::{
    admin::{self, Losses},
    host, http, kernel_programs,
    setting::Setting,
    sink::Counts,
    spantap::{Setup, Spantap},
};

/// Connections of the load.
const CONNECTIONS: u32 = 8;
/// Longest wait for spans that are on their way.
const ARRIVAL: Duration = Duration::from_secs(15);
/// Longest wait for TLS of the watched program to be read.
const TLS_IS_READ: Duration = Duration::from_secs(5);

/// What Spantap exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// Spans and metrics.
    All,
    /// Metrics alone.
    MetricsOnly,
}

/// Who is asked and who is watched.
#[derive(Debug)]
pub(super) struct Scene {
    /// What wrk asks for.
    pub(super) url: String,
    /// Plain port of the nginx whose own count of requests is the truth; without one it is wrk's, which does not know of the
    /// last request of each connection.
    pub(super) counter: Option<u16>,
    /// Processes whose CPU time is that of the watched program.
    pub(super) watched: Vec<Vec<u32>>,
    /// Entries of `discovery.instrument`.
    pub(super) entries: Vec<String>,
    /// Server spans for each request that nginx counts.
    pub(super) spans_per_request: u64,
    /// Whether the questions for nginx's count are observed themselves.
    pub(super) own_questions_are_seen: bool,
}

/// Result of a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    /// Requests a second, as wrk says.
    pub(super) rate: f64,
    /// Requests made, as nginx counts.
    pub(super) requests: u64,
    /// CPU of watched program and wrk, microseconds a request.
    pub(super) load_us: f64,
    /// CPU of the watched program alone, microseconds a request.
    pub(super) watched_us: f64,
    /// CPU of the agent, microseconds a request.
    pub(super) agent_us: f64,
    /// CPU of the forwarder, microseconds a request.
    pub(super) forwarder_us: f64,
    /// CPU of the receiver, microseconds a request.
    pub(super) sink_us: f64,
    /// Memory of the agent.
    pub(super) agent_memory: Memory,
    /// The same while it started.
    pub(super) agent_start_memory: Memory,
    /// Memory of the forwarder.
    pub(super) forwarder_memory: Memory,
    /// Server exchanges that should have been reported.
    pub(super) due: u64,
    /// Server spans received, or exchanges in metrics where no spans are exported.
    pub(super) reported: u64,
    /// Client spans received.
    pub(super) client: u64,
    /// What was counted as lost.
    pub(super) losses: Losses,
    /// Delay from end of request to receiver: median and 99 of 100.
    pub(super) delays: Option<(Duration, Duration)>,
    /// BPF programs: nanoseconds and runs a request, where measured.
    pub(super) bpf: Option<(f64, f64)>,
}

impl Scene {
    /// The load alone.
    pub(super) fn without(&self, seconds: u32) -> Result<Round> {
        let before = self.requests()?;
        let load = self.load(seconds)?;
        let requests = self.made(before, &load)?;
        let each = |us: u64| us as f64 / requests as f64;
        let (load_us, watched_us) = (each(load.cpu_us), each(load.watched_us));
        Ok(Round { rate: load.rate, requests, load_us, watched_us, ..Round::default() })
    }

    /// The load while Spantap observes.
    pub(super) fn with(&self, seconds: u32, signals: Signals, bpf: bool) -> Result<Round> {
        let sink = Sink::start()?;
        let spantap = self.observe(&sink, signals)?;
        self.wait_observed(&spantap)?;
        let statistics = if bpf { Setting::set("kernel.bpf_stats_enabled", "1").ok() } else { None };
        sink.ask("/reset")?;
        let (agent, forwarder) = (spantap.agent_pid()?, spantap.forwarder_pid());
        let cpu = || [agent, forwarder, sink.child.id()].map(measure::cpu_us);
        let (first, losses, exchanges) = (self.requests()?, spantap.losses()?, server_exchanges(&spantap)?);
        let at_start = measure::memory(agent);
        [agent, forwarder].into_iter().for_each(measure::forget_peak);
        let (cpu_before, bpf_before) = (cpu(), kernel_programs::time(agent));
        let load = self.load(seconds)?;
        let requests = self.made(first, &load)?;
        // Both questions for nginx's count lie after the reset.
        let due = requests * self.spans_per_request + if self.own_questions_are_seen { 2 } else { 0 };
        let reported = || -> Result<u64> {
            match signals {
                Signals::All => Ok(sink.counts()?.server),
                Signals::MetricsOnly => Ok(server_exchanges(&spantap)? - exchanges),
            }
        };
        // What is late is waited for, longer than a span waits for others (1 s); what is lost does not come.
        let (mut last, mut unchanged) = (0, 0);
        let _ = host::wait_for("all spans", ARRIVAL, || {
            std::thread::sleep(Duration::from_millis(480));
            let now = reported().ok()?;
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
            (now >= due || unchanged == 5).then_some(())
        });
        let (cpu_after, bpf_after) = (cpu(), kernel_programs::time(agent));
        let per_request = |at: usize| -> f64 {
            let of = |readings: &[u64; 3]| readings.get(at).copied().unwrap_or_default();
            of(&cpu_after).saturating_sub(of(&cpu_before)) as f64 / requests as f64
        };
        let counts = sink.counts()?;
        Ok(Round {
            rate: load.rate,
            requests,
            load_us: load.cpu_us as f64 / requests as f64,
            watched_us: load.watched_us as f64 / requests as f64,
            agent_us: per_request(0),
            forwarder_us: per_request(1),
            sink_us: per_request(2),
            agent_memory: measure::memory(agent),
            agent_start_memory: at_start,
            forwarder_memory: measure::memory(forwarder),
            due,
            reported: reported()?,
            client: counts.client,
            losses: admin::lost_between(&losses, &spantap.losses()?),
            delays: counts.delay(0.5).zip(counts.delay(0.99)),
            bpf: statistics.map(|_| {
                let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / requests as f64;
                (each(bpf_after.0, bpf_before.0), each(bpf_after.1, bpf_before.1))
            }),
        })
    }

    fn observe(&self, sink: &Sink, signals: Signals) -> Result<Spantap> {
        let mut yaml = String::from("discovery:\n  instrument:\n");
        for entry in &self.entries {
            yaml += &format!("    - {entry}\n");
        }
        let endpoint = format!("http://127.0.0.1:{}", sink.port);
        yaml += &format!("otel_metrics_export:\n  endpoint: {endpoint}\n");
        if signals == Signals::All {
            yaml += &format!("otel_traces_export:\n  endpoint: {endpoint}\n");
        }
        Setup::new(yaml).environment("OTEL_EXPORTER_OTLP_COMPRESSION", "none").start()
    }

    /// Asks until Spantap has reported an exchange, then until nothing more comes.
    fn wait_observed(&self, spantap: &Spantap) -> Result<()> {
        if self.url.starts_with("https:") {
            // TLS that is not read is a result as well.
            let _ = host::wait_for("the first exchange over TLS", TLS_IS_READ, || {
                Command::new("curl").args(["-s", "-k", "-o", "/dev/null", &self.url]).status().ok()?;
                std::thread::sleep(Duration::from_millis(50));
                server_exchanges(spantap).ok().filter(|n| *n > 0)
            });
            std::thread::sleep(Duration::from_millis(1500));
            return Ok(());
        }
        let (port, path) = self.target()?;
        host::wait_for("the first exchange to be reported", ARRIVAL, || {
            http::get(port, path).ok()?;
            std::thread::sleep(Duration::from_millis(50));
            server_exchanges(spantap).ok().filter(|n| *n > 0)
        })?;
        // Their spans leave within the batch timeout of a second.
        std::thread::sleep(Duration::from_millis(1500));
        Ok(())
    }

    fn target(&self) -> Result<(u16, &str)> {
        let rest = self.url.strip_prefix("http://127.0.0.1:").context("the URL is of this machine")?;
        let (port, path) = rest.split_at(rest.find('/').context("no path")?);
        Ok((port.parse()?, path))
    }

    /// nginx's own count of requests, this question included.
    fn requests(&self) -> Result<u64> {
        let Some(counter) = self.counter else { return Ok(0) };
        let text = http::get(counter, "/requests")?.text();
        let numbers = text.lines().nth(2).context("no stub_status")?;
        numbers.split_whitespace().nth(2).and_then(|n| n.parse().ok()).context("no count of requests")
    }

    /// Requests of the load, `before` which this was nginx's count.
    fn made(&self, before: u64, load: &Load) -> Result<u64> {
        let requests = match self.counter {
            Some(_) => self.requests()? - before - 1,
            None => load.answered,
        };
        ensure!(requests > 0, "no request was counted");
        Ok(requests)
    }

    fn load(&self, seconds: u32) -> Result<Load> {
        let watched = || -> u64 { self.watched.iter().flatten().map(|pid| measure::cpu_us(*pid)).sum() };
        let before = watched();
        let mut wrk = Command::new("wrk")
            .args(["-t", "1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{seconds}s"), &self.url])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting wrk")?;
        // It says its result at its very end; until it is waited for, its CPU time can still be read.
        let output = std::io::read_to_string(wrk.stdout.take().context("no output")?)?;
        let own = measure::cpu_us(wrk.id());
        wrk.wait()?;
        let watched_us = watched().saturating_sub(before);
        let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
        if let Some(errors) = output.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors")) {
            eprintln!("bench: wrk says: {}", errors.trim());
        }
        let answered = output.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
        let rate = rate.with_context(|| format!("wrk said nothing of its rate:\n{output}"))?;
        Ok(Load { rate, answered: answered.context("wrk did not count")?, cpu_us: watched_us + own, watched_us })
    }
}

struct Load {
    rate: f64,
    answered: u64,
    cpu_us: u64,
    watched_us: u64,
}

fn server_exchanges(spantap: &Spantap) -> Result<u64> {
    let own = spantap.own_metrics()?;
    let of =
        |s: &admin::Sample| s.name == "spantap_exchanges_total" && s.labels.get("side").is_some_and(|s| s == "server");
    Ok(admin::samples(&own).into_iter().filter(of).map(|s| s.value as u64).sum())
}

/// The receiver, a process of its own.
struct Sink {
    child: Child,
    port: u16,
    _output: BufReader<ChildStdout>,
}

impl Sink {
    fn start() -> Result<Self> {
        let mut child = Command::new(host::own("sink")?).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let port = line.trim().parse().context("the sink did not say where it listens")?;
        Ok(Self { child, port, _output: output })
    }

    fn ask(&self, path: &str) -> Result<String> {
        Ok(http::get(self.port, path)?.text())
    }

    fn counts(&self) -> Result<Counts> {
        Ok(serde_json::from_str(&self.ask("/counts")?)?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
