//! The typed values. Everything is public data: built by the reader of this crate, read by both programs.

mod aggregation;
mod discovery;
mod metrics;
mod otlp;
mod pattern;
mod spans;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use aggregation::{Aggregation, ExemplarFilter, Histograms, Scrape, Temporality};
pub use discovery::{Discovery, Exports, PidRange, PortRange, Selector};
pub use metrics::{Attributes, Feature, Features, Selection};
pub use otlp::{
    Backoff, Compression, Fallback, HeaderSource, Otlp, OtlpMetrics, OtlpProtocol, OtlpTraces, Secret, Signal,
};
pub use pattern::{Glob, PatternError};
pub use spans::{Headers, IgnoreMode, KeepSpans, Routes, Sampler, ServiceRoutes, Unmatched};

/// The whole configuration, effective: defaults, then YAML, then environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which processes are observed.
    pub discovery: Discovery,
    /// What concerns the privileged agent alone.
    pub agent: Agent,
    /// Whom the forwarder runs as and takes for the agent.
    pub forwarder: Forwarder,
    /// Path of the Unix socket between agent and forwarder.
    pub socket: PathBuf,
    /// Where is kept what a destination cannot take (`spantap.spool.path`); `None`: in memory only.
    pub spool: Option<Spool>,
    /// Where traces go by OTLP; `None` if not configured.
    pub traces: Option<OtlpTraces>,
    /// Where metrics go by OTLP; `None` if not configured.
    pub metrics: Option<OtlpMetrics>,
    /// Where to send by OTLP if nothing was configured and a Collector listens on this host; `None` as soon as the user said
    /// anything about where telemetry goes, even "nowhere".
    pub fallback: Option<Box<Fallback>>,
    /// Prometheus scrape endpoint; `None` if off.
    pub prometheus: Option<Prometheus>,
    /// What is printed for each exchange on standard output.
    pub console: Console,
    /// Address of `/healthz`, `/readyz`, `/metrics` of Spantap itself; `None` if `off`.
    pub admin: Option<SocketAddr>,
    /// `http.route` from patterns and from paths (Beyla's `routes`).
    pub routes: Routes,
    /// How sensitive parts of URLs are handled.
    pub redaction: Redaction,
    /// Header fields that become attributes of spans.
    pub headers: Headers,
    /// Which attributes metrics and spans carry, where that is not the default.
    pub attributes: Attributes,
    /// Head sampling of traces. Metrics count before it.
    pub sampler: Sampler,
    /// What is kept whatever the sampler says.
    pub keep: KeepSpans,
    /// Whether spans are linked across programs and inside of them (`spantap.links`: `auto`, the default, or `off`).
    pub links: bool,
    /// Runtimes whose requests are linked although that is an experiment (`spantap.links_experimental`; default: none).
    pub links_experimental: Vec<ExperimentalLinks>,
    /// What is left out of programs that export telemetry of their own.
    pub exclude_instrumented: ExcludeInstrumented,
    /// Name that overrides that of every service (`service_name`, `OTEL_SERVICE_NAME` of Spantap's own environment).
    pub service_name: Option<String>,
    /// Namespace for every service.
    pub service_namespace: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` of Spantap's own environment: added to every resource.
    pub resource_attributes: Vec<(String, String)>,
    /// Overrides `host.name`.
    pub host_name: Option<String>,
    /// Overrides `host.id`.
    pub host_id: Option<String>,
    /// Everything that a start is allowed to take to drain at the end.
    pub shutdown_timeout: Duration,
    /// Logging of the program itself.
    pub log: Log,
}

/// Runtimes whose requests are linked by experiment (`spantap.links_experimental`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExperimentalLinks {
    /// Rust's tokio.
    Tokio,
}

impl ExperimentalLinks {
    /// All, with their words in the configuration.
    pub const WORDS: [(&'static str, Self); 1] = [("tokio", Self::Tokio)];

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
        }
    }
}

/// Ways to hook sends and receives in the kernel (`spantap.hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hooks {
    /// The best that the kernel takes of `fentry` and `tracepoint`.
    #[default]
    Auto,
    /// Entry and return of kernel functions, by BPF trampolines.
    Fentry,
    /// BTF tracepoints, Linux 6.3 and later.
    Tracepoint,
    /// Kprobes on entries of kernel functions.
    Kprobe,
}

impl Hooks {
    /// All, with their words in the configuration.
    pub const WORDS: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("fentry", Self::Fentry), ("tracepoint", Self::Tracepoint), ("kprobe", Self::Kprobe)];

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, hooks)| *hooks == self).map_or("auto", |(word, _)| word)
    }
}

/// What concerns the agent alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Size of the ring buffer for socket events, bytes, a power of two (`spantap.ring_buffer_size`; 8 MiB).
    pub ring_buffer_bytes: u32,
    /// Encoded bytes kept while the forwarder is away (`spantap.agent_queue_size`; 4 MiB).
    pub queue_bytes: usize,
    /// Bytes captured of the head of a message, 256..=16384 (`spantap.head_size`; 4096).
    pub head_bytes: u32,
    /// Users (numeric ids) that the forwarder may run as, beside the agent's own user and root (`spantap.forwarder_uids`; any if empty).
    pub forwarder_uids: Vec<u32>,
    /// How sends and receives are hooked (`spantap.hooks`).
    pub hooks: Hooks,
    /// BTF of the running kernel for one that does not tell it itself, or a folder with a file `RELEASE.btf` for each kernel
    /// (`spantap.btf`; absolute).
    pub btf: Option<PathBuf>,
    /// Whether TLS libraries are read (`spantap.tls`: `auto`, the default, or `off`).
    pub tls: bool,
    /// Whether requests are given a `traceparent`, and how.
    pub propagation: Propagation,
    /// How often CPU, memory and disk of the observed processes are read (`processes.interval`; 5 s); `None` if no exporter asks
    /// for the feature `application_process`.
    pub usage_interval: Option<Duration>,
}

/// How requests of observed processes are given a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// Whether they are (`ebpf.context_propagation: headers`); otherwise no byte of anybody's is changed.
    pub headers: bool,
    /// Also where the kernel tells the programs that no bytes wait on their connections (`FIONREAD`) although some do
    /// (`spantap.accept_wrong_fionread`; false).
    pub accept_wrong_fionread: bool,
    /// Of the last 56 bits of a trace id: a lower number is not sampled, 0..=2^56 (the head sampler's threshold).
    pub threshold: u64,
}

/// Whom the forwarder runs as and takes for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarder {
    /// User that it becomes when it is started as root, name or numeric id (`spantap.user`); `None`: `spantap` if there is
    /// one, else `nobody`.
    pub user: Option<String>,
    /// Users (numeric ids) that the agent may run as, beside root and the forwarder's own (`spantap.agent_uids`).
    pub agent_uids: Vec<u32>,
}

/// What is left out of programs that were seen to export the same signal by OTLP themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExcludeInstrumented {
    /// Spans (`discovery.exclude_otel_instrumented_services`; true).
    pub spans: bool,
    /// Metrics (`spantap.exclude_instrumented_metrics`; false).
    pub metrics: bool,
}

/// A folder for what a destination cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Absolute path of the folder (`spantap.spool.path`).
    pub path: PathBuf,
    /// Bytes kept of each signal (`spantap.spool.max_size`; 512 MiB), 16 MiB to 256 GiB; the oldest are given up beyond.
    pub max_bytes: u64,
    /// What is older is given up (`spantap.spool.max_age`; 24 h), never zero.
    pub max_age: Duration,
}

/// Prometheus scrape endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Prometheus {
    /// Port on all addresses.
    pub port: u16,
    /// Path, `/metrics`.
    pub path: String,
    /// Which metrics.
    pub features: Features,
    /// Bounds of duration histograms, seconds, strictly increasing.
    pub duration_buckets: Vec<f64>,
    /// Bounds of histograms of request sizes, bytes, strictly increasing.
    pub request_size_buckets: Vec<f64>,
    /// Bounds of histograms of response sizes, bytes, strictly increasing.
    pub response_size_buckets: Vec<f64>,
    /// A series of a process that has ended is shown this long.
    pub ttl: Duration,
    /// What is shown beside, and to whom.
    pub scrape: Scrape,
}

/// What is printed for each exchange (`spantap.console`, Beyla's `trace_printer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// Nothing.
    Off,
    /// A readable line.
    Text,
    /// A JSON object a line.
    Json,
    /// A JSON object, indented.
    JsonIndent,
    /// A running number.
    Counter,
}

/// Redaction of URLs.
#[derive(Debug, Clone, PartialEq)]
pub struct Redaction {
    /// Query parameters whose values are replaced by `REDACTED`, matched without regard to case.
    pub query_parameters: Vec<String>,
}

/// Logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Least severity.
    pub level: LogLevel,
    /// Form of the lines on standard error.
    pub format: LogFormat,
}

/// Severities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// The default.
    Info,
    /// What needs attention.
    Warn,
    /// What failed.
    Error,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}
