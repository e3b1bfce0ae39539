//! The table of instruments: what is measured of exchanges and of processes, under which names.
//!
//! In: nothing. Out: one [`Instrument`] for each metric. Names of `application` and `application_process` are those of the semantic
//! conventions, the others those of Beyla, the Collector's span metrics and service graph connectors.

use spantap_config::Feature;

use super::attribute::{Attribute as A, Mask};
use crate::exchange::Side;

/// What kind of metric an instrument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A distribution.
    Histogram,
    /// A sum that only grows.
    Counter,
    /// A sum that grows and shrinks; 0 when its process has ended.
    UpDownCounter,
    /// A value of the moment.
    Gauge,
}

/// Which value is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Of an exchange: its duration, seconds.
    Duration,
    /// Of an exchange: bytes of the request's body, where they are known.
    RequestSize,
    /// Of an exchange: bytes of the response's body, where they are known.
    ResponseSize,
    /// Of an exchange: 1.
    Calls,
    /// Of an exchange whose span's status is Error: 1.
    Failures,
    /// Of a process: 1 for as long as it has series.
    Presence,
    /// Of a process: CPU time since its start, seconds, by `cpu.mode`.
    CpuTime,
    /// Of a process: share of the CPUs that it may use, since the reading before, by `cpu.mode`.
    CpuUtilization,
    /// Of a process: resident bytes.
    MemoryUsage,
    /// Of a process: mapped bytes.
    MemoryVirtual,
    /// Of a process: bytes moved to and from storage, by `disk.io.direction`.
    DiskIo,
}

impl Source {
    /// Whether it is read of a process, not of an exchange.
    pub fn is_usage(self) -> bool {
        matches!(self, Self::CpuTime | Self::CpuUtilization | Self::MemoryUsage | Self::MemoryVirtual | Self::DiskIo)
    }
}

/// How the attributes of a point are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Those of its series, under their conventional keys; they can be chosen.
    Chosen,
    /// Those of span metrics (`span.name`, `status.code` …).
    Span,
    /// Those of an edge of the service graph (`client`, `server` …).
    Graph,
    /// None of its own: the resource says it all. In Prometheus those of the resource.
    Resource,
    /// The host's id.
    Host,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrument {
    /// Name in OTLP.
    pub name: &'static str,
    /// Unit (UCUM).
    pub unit: &'static str,
    /// Kind.
    pub kind: Kind,
    /// What it says, for people.
    pub description: &'static str,
    /// Name in Prometheus, with its unit, without `_total`.
    pub prometheus: &'static str,
    /// Group that it belongs to.
    pub feature: Feature,
    /// Which value.
    pub source: Source,
    /// Exchanges of which side; `None`: both.
    pub side: Option<Side>,
    /// How attributes are made.
    pub style: Style,
    /// What tells series apart if nothing is chosen.
    pub shown: Mask,
    /// What may be chosen.
    pub allowed: Mask,
}

const SERVER: Mask = Mask::of(&[A::Method, A::Scheme, A::Status, A::Error, A::Route, A::Version]);
const CLIENT: Mask =
    Mask::of(&[A::Method, A::Scheme, A::Status, A::Error, A::Template, A::Version, A::ServerAddress, A::ServerPort]);
/// For a server its own address is not shown: what clients put in `Host` would multiply series.
const SERVER_ALL: Mask = SERVER.with(&[A::ServerAddress, A::ServerPort, A::UrlPath, A::ClientAddress]);
const CLIENT_ALL: Mask = CLIENT.with(&[A::UrlPath]);
const SPAN: Mask = Mask::of(&[A::Side, A::Method, A::Route, A::Failed]);
const EDGE: Mask = Mask::of(&[A::Side, A::Peer]);
const NONE: Mask = Mask::of(&[]);

const fn http(
    name: &'static str,
    prometheus: &'static str,
    what: &'static str,
    side: Side,
    source: Source,
) -> Instrument {
    let server = matches!(side, Side::Server);
    Instrument {
        name,
        unit: if matches!(source, Source::Duration) { "s" } else { "By" },
        kind: Kind::Histogram,
        description: what,
        prometheus,
        feature: Feature::Application,
        source,
        side: Some(side),
        style: Style::Chosen,
        shown: if server { SERVER } else { CLIENT },
        allowed: if server { SERVER_ALL } else { CLIENT_ALL },
    }
}

const fn span(
    (name, prometheus, unit): (&'static str, &'static str, &'static str),
    what: &'static str,
    feature: Feature,
    source: Source,
) -> Instrument {
    let kind = if matches!(source, Source::Duration) { Kind::Histogram } else { Kind::Counter };
    let (side, style) = (None, Style::Span);
    Instrument {
        name,
        unit,
        kind,
        description: what,
        prometheus,
        feature,
        source,
        side,
        style,
        shown: SPAN,
        allowed: SPAN,
    }
}

const fn edge(
    (name, prometheus, unit): (&'static str, &'static str, &'static str),
    what: &'static str,
    side: Option<Side>,
    source: Source,
) -> Instrument {
    let of = span((name, prometheus, unit), what, Feature::ServiceGraph, source);
    Instrument { side, style: Style::Graph, shown: EDGE, allowed: EDGE, ..of }
}

const fn process(
    (name, prometheus, unit): (&'static str, &'static str, &'static str),
    what: &'static str,
    kind: Kind,
    source: Source,
    shown: Mask,
) -> Instrument {
    let (feature, side, style) = (Feature::Process, None, Style::Chosen);
    Instrument { name, unit, kind, description: what, prometheus, feature, source, side, style, shown, allowed: shown }
}

/// All instruments, in the order in which they are written.
pub static INSTRUMENTS: [Instrument; 24] = [
    http(
        "http.server.request.duration",
        "http_server_request_duration_seconds",
        "Duration of HTTP server requests.",
        Side::Server,
        Source::Duration,
    ),
    http(
        "http.client.request.duration",
        "http_client_request_duration_seconds",
        "Duration of HTTP client requests.",
        Side::Client,
        Source::Duration,
    ),
    http(
        "http.server.request.body.size",
        "http_server_request_body_size_bytes",
        "Size of HTTP server request bodies.",
        Side::Server,
        Source::RequestSize,
    ),
    http(
        "http.server.response.body.size",
        "http_server_response_body_size_bytes",
        "Size of HTTP server response bodies.",
        Side::Server,
        Source::ResponseSize,
    ),
    http(
        "http.client.request.body.size",
        "http_client_request_body_size_bytes",
        "Size of HTTP client request bodies.",
        Side::Client,
        Source::RequestSize,
    ),
    http(
        "http.client.response.body.size",
        "http_client_response_body_size_bytes",
        "Size of HTTP client response bodies.",
        Side::Client,
        Source::ResponseSize,
    ),
    // Without a unit, so that a Collector's Prometheus exporter keeps the names that dashboards ask for.
    span(
        ("traces_spanmetrics_latency", "traces_spanmetrics_latency", ""),
        "Duration of spans, seconds.",
        Feature::Span,
        Source::Duration,
    ),
    span(
        ("traces_spanmetrics_calls_total", "traces_spanmetrics_calls", ""),
        "Number of spans.",
        Feature::Span,
        Source::Calls,
    ),
    span(
        ("traces.span.metrics.duration", "traces_span_metrics_duration_seconds", "s"),
        "Duration of spans.",
        Feature::SpanOtel,
        Source::Duration,
    ),
    span(
        ("traces.span.metrics.calls", "traces_span_metrics_calls", ""),
        "Number of spans.",
        Feature::SpanOtel,
        Source::Calls,
    ),
    span(
        ("traces_spanmetrics_size_total", "traces_spanmetrics_size", ""),
        "Bytes of request bodies.",
        Feature::SpanSizes,
        Source::RequestSize,
    ),
    span(
        ("traces_spanmetrics_response_size_total", "traces_spanmetrics_response_size", ""),
        "Bytes of response bodies.",
        Feature::SpanSizes,
        Source::ResponseSize,
    ),
    edge(
        ("traces_service_graph_request_client", "traces_service_graph_request_client_seconds", "s"),
        "Duration of requests between two services, seen by the client.",
        Some(Side::Client),
        Source::Duration,
    ),
    edge(
        ("traces_service_graph_request_server", "traces_service_graph_request_server_seconds", "s"),
        "Duration of requests between two services, seen by the server.",
        Some(Side::Server),
        Source::Duration,
    ),
    edge(
        ("traces_service_graph_request_total", "traces_service_graph_request", ""),
        "Number of requests between two services.",
        None,
        Source::Calls,
    ),
    edge(
        ("traces_service_graph_request_failed_total", "traces_service_graph_request_failed", ""),
        "Number of failed requests between two services.",
        None,
        Source::Failures,
    ),
    TARGET_INFO_SPAN,
    TARGET_INFO_SPAN_OTEL,
    Instrument { style: Style::Host, feature: Feature::Host, ..info("traces_host_info", "Host of the service.") },
    process(
        ("process.cpu.time", "process_cpu_time_seconds", "s"),
        "CPU time of the process by mode.",
        Kind::Counter,
        Source::CpuTime,
        Mask::of(&[A::CpuMode]),
    ),
    process(
        ("process.cpu.utilization", "process_cpu_utilization_ratio", "1"),
        "Share of the CPUs that the process may use, by mode, since the reading before.",
        Kind::Gauge,
        Source::CpuUtilization,
        Mask::of(&[A::CpuMode]),
    ),
    process(
        ("process.memory.usage", "process_memory_usage_bytes", "By"),
        "Physical memory in use.",
        Kind::UpDownCounter,
        Source::MemoryUsage,
        NONE,
    ),
    process(
        ("process.memory.virtual", "process_memory_virtual_bytes", "By"),
        "Virtual memory that is mapped.",
        Kind::UpDownCounter,
        Source::MemoryVirtual,
        NONE,
    ),
    process(
        ("process.disk.io", "process_disk_io_bytes", "By"),
        "Bytes moved to and from storage.",
        Kind::Counter,
        Source::DiskIo,
        Mask::of(&[A::DiskDirection]),
    ),
];

/// Beside either of the span metrics, which exclude each other.
const TARGET_INFO_SPAN: Instrument = info("traces_target_info", "Resource of the service.");
const TARGET_INFO_SPAN_OTEL: Instrument = Instrument { feature: Feature::SpanOtel, ..TARGET_INFO_SPAN };

const fn info(name: &'static str, what: &'static str) -> Instrument {
    let (feature, source, style) = (Feature::Span, Source::Presence, Style::Resource);
    Instrument {
        name,
        unit: "",
        kind: Kind::Gauge,
        description: what,
        prometheus: name,
        feature,
        source,
        side: None,
        style,
        shown: NONE,
        allowed: NONE,
    }
}

impl Instrument {
    /// Name of its samples in Prometheus text, without the suffixes of a histogram.
    pub fn sample_name(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{total}", self.prometheus)
    }

    /// The instrument with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        INSTRUMENTS.iter().find(|instrument| instrument.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenTelemetry specification, "Prometheus and OpenMetrics compatibility": from name and unit.
    fn derived(name: &str, unit: &str) -> String {
        let suffix = match unit {
            "s" => "_seconds",
            "By" => "_bytes",
            "1" => "_ratio",
            _ => "",
        };
        format!("{}{suffix}", name.replace('.', "_"))
    }

    #[test]
    fn prometheus_names_follow_from_name_and_unit() {
        for i in &INSTRUMENTS {
            let want = derived(i.name, i.unit);
            // Names that end in `_total` already: the suffix is that of the sample.
            assert_eq!(i.prometheus, want.strip_suffix("_total").unwrap_or(&want), "{}", i.name);
        }
        assert_eq!(
            Instrument::named("process.cpu.time").map(Instrument::sample_name).as_deref(),
            Some("process_cpu_time_seconds_total")
        );
    }

    #[test]
    fn what_is_shown_may_be_chosen() {
        assert!(INSTRUMENTS.iter().all(|i| i.shown.and(i.allowed) == i.shown));
    }
}
