//! A real OpenTelemetry Collector, one for each instance, on free ports.
//!
//! In: OTLP over HTTP and gRPC. Out: what it received, read from what its file exporter wrote.

mod configured;
mod lines;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use self::lines::Lines;
use crate::{
    host::{self, Reason},
    http,
    process::Process,
    telemetry::Telemetry,
};

/// User and password that a Collector with authentication asks for.
pub const CREDENTIALS: (&str, &str) = ("alice", "wonderland");

/// A running Collector and what it received.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    folder: tempfile::TempDir,
    /// Port of OTLP over HTTP on 127.0.0.1.
    pub port: u16,
    /// Port of OTLP over gRPC on 127.0.0.1; 0 if it has none.
    pub grpc: u16,
    health: u16,
    authenticated: bool,
    traces: Lines,
    metrics: Lines,
    telemetry: Telemetry,
}

/// `None` if a Collector can be started here, else what is missing.
///
/// Builds it where that has not been done, which takes minutes and says so on standard error; not for `--list`.
pub fn lacks_collector() -> Option<Reason> {
    if std::env::args().any(|argument| argument == "--list") {
        return None;
    }
    match program() {
        Ok(_) => None,
        Err(error) => Some(error.clone()),
    }
}

fn program() -> &'static Result<PathBuf, String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let tool = host::repository().join("tools/collector.sh");
        let output = Command::new(&tool).stderr(std::process::Stdio::inherit()).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
            }
            Ok(output) if output.status.code() == Some(3) => Err("needs Go, to build the Collector".to_owned()),
            Ok(output) => Err(format!("the Collector could not be built: {}", output.status)),
            Err(error) => Err(format!("{}: {error}", tool.display())),
        }
    })
}

impl Collector {
    /// Starts one that takes everything.
    ///
    /// # Errors
    /// When it cannot be built or does not get ready within 20 s.
    pub fn start() -> Result<Self> {
        Self::start_with(None, false)
    }

    /// Starts one that asks for [`CREDENTIALS`] (HTTP basic authentication).
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn start_authenticated() -> Result<Self> {
        Self::start_with(None, true)
    }

    /// Starts one on a port of the caller's, such as one that a Collector used before.
    ///
    /// # Errors
    /// As [`Collector::start`]; also when the port is taken.
    pub fn start_on(port: u16) -> Result<Self> {
        Self::start_with(Some(port), false)
    }

    fn of(process: Process, folder: tempfile::TempDir, port: u16, health: u16, authenticated: bool) -> Self {
        let [traces, metrics] = ["traces.jsonl", "metrics.jsonl"].map(|name| Lines::of(folder.path().join(name)));
        Self { process, folder, port, grpc: 0, health, authenticated, traces, metrics, telemetry: Telemetry::default() }
    }

    fn start_with(port: Option<u16>, authenticated: bool) -> Result<Self> {
        let program = program().as_ref().map_err(|error| anyhow!("{error}"))?;
        let folder = host::folder()?;
        let port = port.map_or_else(host::free_port, Ok)?;
        let (grpc, health) = (host::free_port()?, host::free_port()?);
        let path = folder.path().join("collector.yaml");
        std::fs::write(&path, configuration(folder.path(), port, grpc, health, authenticated))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&path);
        let process = Process::start("collector", folder.path(), command)?;
        let mut collector = Self::of(process, folder, port, health, authenticated);
        collector.grpc = grpc;
        let health = collector.health;
        collector
            .process
            .wait_ready(Duration::from_secs(20), |_| http::get(health, "/").is_ok_and(|a| a.status == 200))?;
        Ok(collector)
    }

    /// URL for exporters, without a path.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether it asks for [`CREDENTIALS`].
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Folder that lives as long as this Collector.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything received so far.
    ///
    /// # Errors
    /// When what it wrote is no OTLP/JSON.
    pub fn telemetry(&mut self) -> Result<&Telemetry> {
        for line in self.traces.new_lines()? {
            self.telemetry.add_traces(&line)?;
        }
        for line in self.metrics.new_lines()? {
            self.telemetry.add_metrics(&line)?;
        }
        Ok(&self.telemetry)
    }

    /// Waits until `look` says `Ok`.
    ///
    /// # Errors
    /// After `limit`, with the last error of `look`: what was still missing.
    pub fn wait_until<T>(&mut self, limit: Duration, mut look: impl FnMut(&Telemetry) -> Result<T>) -> Result<T> {
        let limit = host::patient(limit);
        let end = Instant::now() + limit;
        loop {
            match look(self.telemetry()?) {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() >= end => return Err(error.context(format!("still after {limit:?}"))),
                Err(_) => {}
            }
            if !self.process.is_running() {
                bail!("the Collector has ended\n{}", self.process.tail());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Waits until nothing has arrived for `quiet`; at most `limit`.
    ///
    /// # Errors
    /// When what it wrote is no OTLP/JSON.
    pub fn settle(&mut self, quiet: Duration, limit: Duration) -> Result<()> {
        let (quiet, limit) = (host::patient(quiet), host::patient(limit));
        let end = Instant::now() + limit;
        let (mut seen, mut since) = (self.telemetry()?.spans.len(), Instant::now());
        while since.elapsed() < quiet && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(25));
            let now = self.telemetry()?.spans.len();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Stops it; what it had received stays readable.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(10)).map(drop)
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }
}

fn configuration(folder: &Path, port: u16, grpc: u16, health: u16, authenticated: bool) -> String {
    let (user, password) = CREDENTIALS;
    let auth = if authenticated { "\n        auth: {authenticator: basicauth/server}" } else { "" };
    let (extension, extensions) = if authenticated {
        (
            format!("  basicauth/server:\n    htpasswd:\n      inline: \"{user}:{password}\"\n"),
            "health_check, basicauth/server",
        )
    } else {
        (String::new(), "health_check")
    };
    let folder = folder.display();
    format!(
        "extensions:
  health_check:
    endpoint: 127.0.0.1:{health}
{extension}receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:{grpc}{auth}
      http:
        endpoint: 127.0.0.1:{port}{auth}
exporters:
  file/traces: {{path: {folder}/traces.jsonl, flush_interval: 50ms}}
  file/metrics: {{path: {folder}/metrics.jsonl, flush_interval: 50ms}}
service:
  extensions: [{extensions}]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file/traces]}}
    metrics: {{receivers: [otlp], exporters: [file/metrics]}}
"
    )
}
