//! Where telemetry goes by OTLP.

use std::{borrow::Cow, path::PathBuf, time::Duration};

pub use crate::otlp::HeaderSource;

use super::{Aggregation, Features};
use crate::FileState;

/// OTLP destination of one signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// What it takes.
    pub signal: Signal,
    /// Full URL that requests go to, signal path included; `http` or `https`, with a host, without user information.
    /// A query may hold a secret: show [`Otlp::shown_endpoint`].
    pub endpoint: String,
    /// Unix stream socket that connections go to, whatever the host of `endpoint`; an absolute path.
    pub socket: Option<PathBuf>,
    /// Encoding and transport.
    pub protocol: OtlpProtocol,
    /// Header names (lower case) and values. Values are secret: never logged.
    pub headers: Vec<(String, Secret)>,
    /// How headers are read again; `None` if no file has a part in them.
    pub header_source: Option<HeaderSource>,
    /// Time for one try of an export (`OTEL_EXPORTER_OTLP_TIMEOUT`); zero: no limit. How long it is tried again is `backoff`.
    pub timeout: Duration,
    /// Whether bodies are compressed.
    pub compression: Compression,
    /// PEM file with certificate authorities that replace the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files of client key and certificate, both or none.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// How those files were when this was read, so that it is another destination once they change.
    pub tls_files: Vec<Option<FileState>>,
    /// Accept any server certificate.
    pub insecure_skip_verify: bool,
}

impl Otlp {
    /// Files of its headers, certificates and keys.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let headers = self.header_source.iter().flat_map(|source| source.files());
        let identity = self.client_identity.iter().flat_map(|(key, certificate)| [key, certificate]);
        headers.chain(&self.certificate).chain(identity)
    }

    /// The endpoint for logs and for people: without user information and query, where some put credentials. Without a
    /// path where the protocol gives it.
    pub fn shown_endpoint(&self) -> Cow<'_, str> {
        let plain = self.endpoint.split(['?', '#']).next().unwrap_or_default();
        match (&self.socket, self.protocol) {
            (Some(socket), _) => Cow::Owned(format!("unix:{}", socket.display())),
            (None, OtlpProtocol::Grpc) => {
                let host = plain.find("://").map_or(0, |at| at + 3);
                let end = plain.get(host..).and_then(|rest| rest.find('/')).map_or(plain.len(), |at| host + at);
                Cow::Borrowed(plain.get(..end).unwrap_or(plain))
            }
            (None, _) => Cow::Borrowed(plain),
        }
    }
}

/// OTLP to a Collector on this host, with everything but the endpoint as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// To `http://localhost:4318/v1/traces` (gRPC: port 4317); `None` if traces were turned off.
    pub traces: Option<OtlpTraces>,
    /// To `http://localhost:4318/v1/metrics` (gRPC: port 4317); `None` if metrics were turned off.
    pub metrics: Option<OtlpMetrics>,
}

impl Fallback {
    /// Ports on this host that something has to listen on, each once.
    pub fn ports(&self) -> Vec<u16> {
        let protocols = [self.traces.as_ref().map(|of| &of.otlp), self.metrics.as_ref().map(|of| &of.otlp)];
        let mut ports: Vec<u16> = protocols.into_iter().flatten().map(|otlp| otlp.protocol.port()).collect();
        ports.dedup();
        ports
    }
}

/// A text that must not reach a log: its `Debug` prints `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Series.
    Metrics,
}

/// Encoding and transport of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/HTTP with protobuf bodies.
    HttpProtobuf,
    /// OTLP/HTTP with JSON bodies.
    HttpJson,
    /// OTLP/gRPC.
    Grpc,
}

impl OtlpProtocol {
    /// Its name in the specification's variables.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
            Self::Grpc => "grpc",
        }
    }

    /// Port of a receiver on this host that nobody named (exporter specification, default endpoints).
    pub fn port(self) -> u16 {
        if self == Self::Grpc { 4317 } else { 4318 }
    }
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
    /// How long a span waits at most for others (`batch_timeout`, else `OTEL_BSP_SCHEDULE_DELAY`; Spantap's default is 1 s, so that
    /// a request is with the Collector within two).
    pub batch_timeout: Duration,
    /// Spans kept in memory while the destination is slow or away (`queue_size`, at least twice `batch_max_size`; 16384).
    /// Bytes are counted beside.
    pub queue_size: usize,
    /// Pauses between retries (`backoff_*`).
    pub backoff: Backoff,
}

/// Pauses between retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First pause (1 s).
    pub initial: Duration,
    /// Longest pause, not below `initial` (30 s).
    pub max: Duration,
    /// A batch older than this is given up and counted (5 min).
    pub max_elapsed: Duration,
}

/// Metrics by OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpMetrics {
    /// Where to.
    pub otlp: Otlp,
    /// Time between exports (`interval`, else `OTEL_METRIC_EXPORT_INTERVAL`; 60 s), at least 10 ms.
    pub interval: Duration,
    /// Which metrics.
    pub features: Features,
    /// Bounds of duration histograms, seconds, strictly increasing.
    pub duration_buckets: Vec<f64>,
    /// Bounds of histograms of request sizes, bytes, strictly increasing.
    pub request_size_buckets: Vec<f64>,
    /// Bounds of histograms of response sizes, bytes, strictly increasing.
    pub response_size_buckets: Vec<f64>,
    /// A series of a process that has ended is exported this long (5 min); never zero.
    pub ttl: Duration,
    /// Temporality, kind of histograms, exemplars.
    pub aggregation: Aggregation,
}
