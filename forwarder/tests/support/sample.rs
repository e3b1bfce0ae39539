//! Exchanges, processes and configuration for tests: plain defaults that each test changes where it matters.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use spantap::{
    exchange::{Exchange, HttpVersion, Outcome, Request, RequestHeaders, Response, Side},
    model::{
        ClockAnchor, Connection, Endpoints, EventKind, MonotonicNs, Process, ProcessId, SocketEvent, SocketId, Tie,
        UnixNs,
    },
};
use spantap_config::*;

/// The wall clock at monotonic zero: 2026-01-02T03:04:05Z.
pub const EPOCH: u64 = 1_767_323_045_000_000_000;

pub fn clock() -> ClockAnchor {
    ClockAnchor { monotonic: MonotonicNs(0), realtime: UnixNs(EPOCH) }
}

pub fn process(id: u32, name: &str) -> Process {
    Process {
        id: ProcessId(id),
        pid: 1000 + id,
        start: UnixNs(EPOCH - 5_000_000_000),
        executable: format!("/usr/bin/{name}"),
        environment: vec![],
        container_id: None,
        language: Some("go".into()),
        service_name: None,
        service_namespace: None,
        export_traces: true,
        export_metrics: true,
        overrides: Default::default(),
    }
}

pub fn connection(socket: u64) -> Connection {
    Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Tcp { local: ([10, 0, 0, 1].into(), 8080), peer: ([10, 0, 0, 2].into(), 40000) },
        network_namespace: 0,
        tie: Tie::Unknown,
    }
}

/// A request without a body or any field that is looked at.
pub fn request(target: &str) -> Request {
    Request {
        method: Bytes::from_static(b"GET"),
        target: Bytes::copy_from_slice(target.as_bytes()),
        version: HttpVersion::Http11,
        headers: RequestHeaders::default(),
        body_size: None,
        truncated: false,
    }
}

pub fn exchange(side: Side) -> Exchange {
    Exchange {
        serial: 0,
        side,
        process: Arc::new(process(1, "shop")),
        connection: Arc::new(connection(7)),
        tls: false,
        thread: 4242,
        request: Request {
            headers: RequestHeaders {
                host: Some(Bytes::from_static(b"shop.example:8080")),
                user_agent: Some(Bytes::from_static(b"curl/8.5.0")),
                ..Default::default()
            },
            body_size: Some(0),
            ..request("/cart/7?item=3")
        },
        response: Some(Response { status: 200, version: HttpVersion::Http11, body_size: Some(1234), captured: vec![] }),
        outcome: Outcome::Complete,
        start: MonotonicNs(1_000_000),
        response_start: Some(MonotonicNs(3_000_000)),
        end: MonotonicNs(4_000_000),
        queued: None,
    }
}

pub fn otlp(endpoint: String) -> Otlp {
    Otlp {
        signal: Signal::Traces,
        endpoint,
        socket: None,
        protocol: OtlpProtocol::HttpProtobuf,
        headers: vec![],
        header_source: None,
        timeout: Duration::from_secs(2),
        compression: Compression::None,
        certificate: None,
        client_identity: None,
        tls_files: Vec::new(),
        insecure_skip_verify: false,
    }
}

pub fn otlp_traces(endpoint: String) -> OtlpTraces {
    OtlpTraces {
        otlp: otlp(endpoint),
        batch_max_size: 4096,
        batch_timeout: Duration::from_millis(20),
        queue_size: 16384,
        backoff: Backoff {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(50),
            max_elapsed: Duration::from_secs(20),
        },
    }
}

pub const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

pub const SIZE_BUCKETS: [f64; 3] = [0.0, 1024.0, 4096.0];

pub fn otlp_metrics(endpoint: String) -> OtlpMetrics {
    OtlpMetrics {
        otlp: Otlp { signal: Signal::Metrics, ..otlp(endpoint) },
        interval: Duration::from_secs(60),
        features: Features::of(&[Feature::Application]),
        duration_buckets: BUCKETS.to_vec(),
        request_size_buckets: SIZE_BUCKETS.to_vec(),
        response_size_buckets: SIZE_BUCKETS.to_vec(),
        ttl: Duration::from_secs(300),
        aggregation: Default::default(),
    }
}

pub fn prometheus() -> Prometheus {
    Prometheus {
        port: 0,
        path: "/metrics".into(),
        features: Features::of(&[Feature::Application]),
        duration_buckets: BUCKETS.to_vec(),
        request_size_buckets: SIZE_BUCKETS.to_vec(),
        response_size_buckets: SIZE_BUCKETS.to_vec(),
        ttl: Duration::from_secs(300),
        scrape: Default::default(),
    }
}

/// Nothing is exported, nothing listens.
pub fn config() -> Config {
    Config {
        forwarder: Default::default(),
        discovery: Discovery::default(),
        agent: Agent {
            ring_buffer_bytes: 8 << 20,
            queue_bytes: 4 << 20,
            head_bytes: 4096,
            forwarder_uids: vec![],
            hooks: spantap_config::Hooks::Auto,
            btf: None,
            tls: true,
            propagation: spantap_config::Propagation { headers: false, accept_wrong_fionread: false, threshold: 0 },
            usage_interval: None,
        },
        socket: PathBuf::from("/nonexistent"),
        spool: None,
        traces: None,
        metrics: None,
        fallback: None,
        prometheus: None,
        console: Console::Off,
        admin: None,
        routes: Routes::default(),
        redaction: Redaction { query_parameters: vec!["sig".into(), "X-Amz-Signature".into()] },
        headers: Headers::default(),
        attributes: Attributes::default(),
        sampler: Sampler::ParentBasedAlwaysOn,
        keep: KeepSpans::default(),
        links: true,
        links_experimental: Vec::new(),
        exclude_instrumented: ExcludeInstrumented { spans: true, metrics: false },
        service_name: None,
        service_namespace: None,
        resource_attributes: vec![],
        host_name: None,
        host_id: None,
        shutdown_timeout: Duration::from_secs(10),
        log: Log { level: LogLevel::Info, format: LogFormat::Text },
    }
}

/// An event of process 1, thread 5, that moved nothing.
pub fn socket_event(kind: EventKind, socket: u64, time: u64) -> SocketEvent {
    SocketEvent {
        socket: SocketId(socket),
        kind,
        time: MonotonicNs(time),
        began: MonotonicNs(time),
        process: ProcessId(1),
        thread: 5,
        offset: 0,
        length: 0,
        opposite_offset: 0,
        queued_ns: 0,
        turn: 0,
        head: Bytes::new(),
        tail: Bytes::new(),
        unreadable: false,
        opaque: false,
        tls: false,
        encrypted: false,
        untied: false,
        blocking: false,
        propagated: false,
    }
}
