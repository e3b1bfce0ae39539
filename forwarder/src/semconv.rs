//! Names of the OpenTelemetry semantic conventions that are used, version 1.44.0, and Spantap's own.
//!
//! In: nothing. Out: constants, so that a name stands in one place.

/// Schema that all names here belong to.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Name of the instrumentation scope of all spans and metrics.
pub const SCOPE_NAME: &str = "spantap";
/// Version of the instrumentation scope.
pub const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Attribute keys, in the order of the registry.
pub mod key {
    #![allow(missing_docs)] // the value is the documentation
    pub const CLIENT_ADDRESS: &str = "client.address";
    pub const CONTAINER_ID: &str = "container.id";
    pub const CPU_MODE: &str = "cpu.mode";
    pub const DISK_IO_DIRECTION: &str = "disk.io.direction";
    pub const ERROR_TYPE: &str = "error.type";
    pub const HOST_ID: &str = "host.id";
    pub const HOST_NAME: &str = "host.name";
    pub const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
    /// Followed by the name of the field in lower case.
    pub const HTTP_REQUEST_HEADER: &str = "http.request.header.";
    pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
    pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
    pub const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
    pub const HTTP_RESPONSE_HEADER: &str = "http.response.header.";
    pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    pub const HTTP_ROUTE: &str = "http.route";
    pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
    pub const NETWORK_PEER_PORT: &str = "network.peer.port";
    pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
    pub const NETWORK_TRANSPORT: &str = "network.transport";
    pub const OS_TYPE: &str = "os.type";
    pub const OTEL_METRIC_OVERFLOW: &str = "otel.metric.overflow";
    pub const PROCESS_CREATION_TIME: &str = "process.creation.time";
    pub const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
    pub const PROCESS_EXECUTABLE_PATH: &str = "process.executable.path";
    pub const PROCESS_PID: &str = "process.pid";
    pub const SERVER_ADDRESS: &str = "server.address";
    pub const SERVER_PORT: &str = "server.port";
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
    pub const SERVICE_NAME: &str = "service.name";
    pub const SERVICE_NAMESPACE: &str = "service.namespace";
    pub const SERVICE_VERSION: &str = "service.version";
    pub const TELEMETRY_SDK_LANGUAGE: &str = "telemetry.sdk.language";
    pub const TELEMETRY_SDK_NAME: &str = "telemetry.sdk.name";
    pub const TELEMETRY_SDK_VERSION: &str = "telemetry.sdk.version";
    pub const URL_FULL: &str = "url.full";
    pub const URL_PATH: &str = "url.path";
    pub const URL_QUERY: &str = "url.query";
    pub const URL_SCHEME: &str = "url.scheme";
    pub const URL_TEMPLATE: &str = "url.template";
    pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";

    // Of span metrics and service graphs, as Beyla and the Collector's connectors write them.
    pub const CLIENT: &str = "client";
    pub const CLIENT_SERVICE_NAMESPACE: &str = "client_service_namespace";
    pub const SERVER: &str = "server";
    pub const SERVER_SERVICE_NAMESPACE: &str = "server_service_namespace";
    pub const GRAFANA_HOST_ID: &str = "grafana.host.id";
    pub const SOURCE: &str = "source";
    pub const SPAN_KIND: &str = "span.kind";
    pub const SPAN_NAME: &str = "span.name";
    pub const STATUS_CODE: &str = "status.code";

    /// Spantap's own: the head of the request was longer than what was captured, so fields may be missing. Boolean, only when true.
    pub const SPANTAP_HEAD_TRUNCATED: &str = "spantap.request.head_truncated";
    /// Spantap's own: how the parent was found where no header tells it: `connection` or `thread`.
    pub const SPANTAP_LINK_METHOD: &str = "spantap.link.method";
    /// Spantap's own: `aborted` or `no_response`; absent when the exchange was seen to its end.
    pub const SPANTAP_OUTCOME: &str = "spantap.outcome";
    /// Spantap's own: seconds that the request waited in the kernel before the server read it; part of the span's duration.
    pub const SPANTAP_QUEUE_DURATION: &str = "spantap.server.queue.duration";
    /// Spantap's own: the system's thread that read or wrote the first byte of the request. `thread.id` is a runtime's own number.
    pub const SPANTAP_THREAD_ID: &str = "spantap.thread.id";
}
