//! The table of instruments, under which names what is told.
//!
//! In: nothing. Out: one [`Instrument`] for each metric. Names of `application` and `application_process` are those of the semantic
//! conventions, the others those of Beyla, the Collector's span metrics and service graph connectors.

use spantap_config::Feature;

use super::{Instrument, Kind, Source, Style};
use crate::{
    exchange::Side,
    metric::attribute::{Attribute as A, Mask},
};

const SERVER: Mask = Mask::of(&[A::Method, A::Scheme, A::Status, A::Error, A::Route, A::Version]);
const CLIENT: Mask =
    Mask::of(&[A::Method, A::Scheme, A::Status, A::Error, A::Template, A::Version, A::ServerAddress, A::ServerPort]);
/// For a server its own address is not shown: what clients put in `Host` would multiply series.
const SERVER_ALL: Mask = SERVER.with(&[A::ServerAddress, A::ServerPort, A::UrlPath, A::ClientAddress]);
const CLIENT_ALL: Mask = CLIENT.with(&[A::UrlPath]);
/// What is known of a request before it is answered.
const OPEN: Mask = Mask::of(&[A::Method, A::Scheme]);
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
pub static INSTRUMENTS: [Instrument; 25] = [
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
    Instrument {
        unit: "{request}",
        kind: Kind::UpDownCounter,
        shown: OPEN,
        allowed: OPEN.with(&[A::ServerAddress, A::ServerPort]),
        ..http(
            "http.server.active_requests",
            "http_server_active_requests",
            "Number of active HTTP server requests.",
            Side::Server,
            Source::OpenRequests,
        )
    },
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
