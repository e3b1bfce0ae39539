//! The typed values. Everything is public data: built by the reader of this crate, read by both programs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The whole configuration, effective: defaults, then YAML, then environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which processes are observed.
    pub discovery: Discovery,
    /// What concerns the privileged agent alone.
    pub agent: Agent,
    /// Path of the Unix socket between agent and forwarder.
    pub socket: PathBuf,
    /// Where traces go by OTLP; `None` if not configured.
    pub traces: Option<OtlpTraces>,
    /// Where metrics go by OTLP; `None` if not configured.
    pub metrics: Option<OtlpMetrics>,
    /// Prometheus scrape endpoint; `None` if off.
    pub prometheus: Option<Prometheus>,
    /// What is printed for each exchange on standard output.
    pub console: Console,
    /// Address of `/healthz`, `/readyz`, `/metrics` of Spantap itself; `None` if `off`.
    pub admin: Option<SocketAddr>,
    /// `http.route` from configured patterns (Beyla's `routes`).
    pub routes: Routes,
    /// How sensitive parts of URLs are handled.
    pub redaction: Redaction,
    /// Head sampling of traces. Metrics count before it.
    pub sampler: Sampler,
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

/// Which processes are observed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Discovery {
    /// Entries of `discovery.instrument`; any match selects. Empty: every process that serves or makes requests.
    pub instrument: Vec<Selector>,
    /// Entries of `discovery.exclude_instrument` and of the default exclusions; any match excludes.
    pub exclude: Vec<Selector>,
    /// How often `/proc` is looked through for what no event told.
    pub poll_interval: Duration,
}

/// One discovery entry: all criteria that are present must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selector {
    /// Listening ports, any of which selects; empty: no criterion.
    pub open_ports: Vec<PortRange>,
    /// Glob on the full path of the executable.
    pub exe_path: Option<Glob>,
    /// Glob on the arguments joined by single spaces.
    pub cmd_args: Option<Glob>,
    /// Languages (`go`, `java`, `nodejs` …), any of which matches; empty: no criterion.
    pub languages: Vec<String>,
    /// Process ids, any of which matches; empty: no criterion.
    pub target_pids: Vec<PidRange>,
    /// Only processes in a container.
    pub containers_only: bool,
    /// `name` of the entry (deprecated in Beyla, still honoured).
    pub name: Option<String>,
    /// `namespace` of the entry (deprecated in Beyla, still honoured).
    pub namespace: Option<String>,
    /// Signals to export for what matches.
    pub exports: Exports,
}

/// Signals of a discovery entry (`exports`): unset means all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exports {
    /// Spans.
    pub traces: bool,
    /// Metrics.
    pub metrics: bool,
}

impl Default for Exports {
    fn default() -> Self {
        Self { traces: true, metrics: true }
    }
}

/// Inclusive range of TCP ports, 1..=65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// Inclusive range of process ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidRange {
    /// First pid.
    pub first: u32,
    /// Last pid, not below `first`.
    pub last: u32,
}

/// A compiled glob with the syntax that Beyla uses: `*` `?` `[a-z]` `[!a]` `{a,b}` and `\` as escape;
/// no character is special to `*`, so `*nginx` matches `/usr/sbin/nginx`.
#[derive(Debug, Clone)]
pub struct Glob {
    /// As the user wrote it.
    pub pattern: String,
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Glob {
    /// Whether `text` matches as a whole.
    pub fn matches(&self, text: &str) -> bool {
        self.pattern == text
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
}

/// OTLP destination of one signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Full URL that requests go to, signal path included.
    pub endpoint: String,
    /// `http/protobuf`; the others are refused with a clear error until they are served.
    pub protocol: OtlpProtocol,
    /// Header names (lower case) and values. Values are secret: never logged.
    pub headers: Vec<(String, Secret)>,
    /// Time for one export with all its retries (`OTEL_EXPORTER_OTLP_TIMEOUT`); zero: no limit.
    pub timeout: Duration,
    /// Whether bodies are compressed.
    pub compression: Compression,
    /// PEM file with certificate authorities that replace the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files of client key and certificate, both or none.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Accept any server certificate.
    pub insecure_skip_verify: bool,
}

/// A text that must not reach a log: its `Debug` prints `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Encoding and transport of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/HTTP with protobuf bodies.
    HttpProtobuf,
}

/// Compression of OTLP bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// gzip.
    Gzip,
}

/// Traces by OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpTraces {
    /// Where to.
    pub otlp: Otlp,
    /// Spans in one request at most (`batch_max_size`; 4096).
    pub batch_max_size: usize,
    /// How long a span waits at most for others (`batch_timeout`; Spantap's default is 1 s).
    pub batch_timeout: Duration,
    /// Spans kept in memory while the destination is slow or away (`queue_size`; 16384… of Beyla; Spantap counts bytes beside).
    pub queue_size: usize,
    /// First pause before a retry, longest pause, and after how long a batch is given up.
    pub backoff: Backoff,
}

/// Pauses between retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First pause.
    pub initial: Duration,
    /// Longest pause.
    pub max: Duration,
    /// A batch older than this is given up and counted.
    pub max_elapsed: Duration,
}

/// Metrics by OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpMetrics {
    /// Where to.
    pub otlp: Otlp,
    /// Time between exports.
    pub interval: Duration,
    /// Bounds of duration histograms, seconds, strictly increasing.
    pub duration_buckets: Vec<f64>,
    /// A series of a process that has ended is exported this long.
    pub ttl: Duration,
}

/// Prometheus scrape endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Prometheus {
    /// Port on all addresses.
    pub port: u16,
    /// Path, `/metrics`.
    pub path: String,
    /// Bounds of duration histograms, seconds, strictly increasing.
    pub duration_buckets: Vec<f64>,
    /// A series of a process that has ended is shown this long.
    pub ttl: Duration,
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

/// Beyla's `routes`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routes {
    /// Path patterns such as `/user/{id}` or `/user/:id` or `/static/*`; the first that matches is `http.route`.
    pub patterns: Vec<String>,
}

/// Redaction of URLs.
#[derive(Debug, Clone, PartialEq)]
pub struct Redaction {
    /// Query parameters whose values are replaced by `REDACTED`, matched without regard to case.
    pub query_parameters: Vec<String>,
}

/// Head sampler of traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Every span.
    AlwaysOn,
    /// No span.
    AlwaysOff,
    /// This share of traces, 0..=1, decided from the trace id.
    TraceIdRatio(f64),
    /// The parent's decision where there is one, else every span.
    ParentBasedAlwaysOn,
    /// The parent's decision where there is one, else none.
    ParentBasedAlwaysOff,
    /// The parent's decision where there is one, else this share.
    ParentBasedTraceIdRatio(f64),
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
