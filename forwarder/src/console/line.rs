//! One exchange as text or JSON. The keys of the JSON object are documented in docs/telemetry.md and stay.

use std::io::{Result, Write};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    exchange::Side,
    model::UnixNs,
    observation::{Host, Observation, Rules, verdict},
    resource::Resource,
    semconv::key,
    trace::SpanIdentity,
};

#[derive(Serialize)]
struct Object<'a> {
    time: String,
    side: &'static str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    outcome: &'static str,
    duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_seconds: Option<f64>,
    scheme: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    service_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_namespace: &'a str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
}

fn timestamp(at: UnixNs) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn side(seen: &Observation<'_>) -> &'static str {
    if seen.exchange.side == Side::Server { "server" } else { "client" }
}

fn method<'a>(seen: &'a Observation<'_>) -> &'a str {
    seen.method_original.as_deref().unwrap_or(seen.method.as_str())
}

/// A JSON object and a line break.
pub(super) fn json(
    out: &mut Vec<u8>,
    seen: &Observation<'_>,
    identity: Option<&SpanIdentity>,
    resource: &Resource,
    rules: &Rules,
    indent: bool,
) -> Result<()> {
    let object = Object {
        time: format!("{:.6}", timestamp(seen.start)),
        side: side(seen),
        method: method(seen),
        status: seen.status,
        error: seen.error.map(|e| e.as_str().into_owned()),
        outcome: verdict::outcome_name(seen.exchange.outcome).unwrap_or("complete"),
        duration_seconds: seen.duration().as_secs_f64(),
        queue_seconds: seen.exchange.queued.map(|q| q.as_secs_f64()),
        scheme: seen.scheme.as_str(),
        path: &seen.path,
        query: seen.query.as_deref(),
        route: seen.route.map(|r| rules.routes.text(r)),
        server_address: seen.server.as_ref().map(Host::as_str),
        server_port: seen.server_port,
        client_address: seen.client.as_ref().map(Host::as_str),
        peer_address: seen.peer.as_ref().map(Host::as_str),
        peer_port: seen.peer_port,
        request_body_bytes: seen.exchange.request.body_size,
        response_body_bytes: seen.exchange.response.as_ref().and_then(|r| r.body_size),
        user_agent: seen.user_agent.as_deref(),
        service_name: resource.text(key::SERVICE_NAME),
        service_namespace: resource.text(key::SERVICE_NAMESPACE),
        pid: seen.exchange.process.pid,
        trace_id: identity.map(|i| hex(&i.trace_id)),
        span_id: identity.map(|i| hex(&i.span_id)),
        parent_span_id: identity.and_then(|i| i.parent).map(|p| hex(&p)),
    };
    if indent {
        serde_json::to_writer_pretty(&mut *out, &object)?;
    } else {
        serde_json::to_writer(&mut *out, &object)?;
    }
    out.write_all(b"\n")
}

/// A readable line. Control characters of strangers do not reach the terminal.
pub(super) fn text(
    out: &mut Vec<u8>,
    seen: &Observation<'_>,
    identity: Option<&SpanIdentity>,
    resource: &Resource,
    rules: &Rules,
    zone: &TimeZone,
) -> Result<()> {
    let time = timestamp(seen.start).to_zoned(zone.clone());
    let status = match (seen.status, verdict::outcome_name(seen.exchange.outcome)) {
        (Some(code), None) => code.to_string(),
        (Some(code), Some(outcome)) => format!("{code}({outcome})"),
        (None, outcome) => outcome.unwrap_or("-").to_owned(),
    };
    let route = seen.route.map_or(String::new(), |r| format!(" ({})", rules.routes.text(r)));
    let query = seen.query.as_deref().map_or(String::new(), |q| format!("?{q}"));
    let end = |host: &Option<Host<'_>>, port: Option<u16>| {
        let host = host.as_ref().map_or("?", Host::as_str);
        port.map_or(host.to_owned(), |port| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        })
    };
    let (peer, server) = (end(&seen.peer, seen.peer_port), end(&seen.server, seen.server_port));
    let (from, to) = if seen.exchange.side == Side::Server { (peer, server) } else { ("local".to_owned(), server) };
    let size = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |b| format!("{b}B"));
    let service = match resource.text(key::SERVICE_NAMESPACE) {
        "" => resource.text(key::SERVICE_NAME).to_owned(),
        namespace => format!("{namespace}/{}", resource.text(key::SERVICE_NAME)),
    };
    let traceparent =
        identity.map_or("-".to_owned(), |i| format!("00-{}-{}-{:02x}", hex(&i.trace_id), hex(&i.span_id), i.flags));
    let line = format!(
        "{} ({:.3?}) {} {status} {} {}{query}{route} [{from}]->[{to}] request:{} response:{} svc=[{service}:{}] traceparent=[{traceparent}]",
        time.strftime("%Y-%m-%d %H:%M:%S%.3f"),
        seen.duration(),
        side(seen),
        method(seen),
        seen.path,
        size(seen.exchange.request.body_size),
        size(seen.exchange.response.as_ref().and_then(|r| r.body_size)),
        seen.exchange.process.pid,
    );
    for c in line.chars() {
        if c.is_control() {
            write!(out, "{}", c.escape_default())?;
        } else {
            write!(out, "{c}")?;
        }
    }
    out.write_all(b"\n")
}
