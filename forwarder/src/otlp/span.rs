//! One span as OTLP protobuf (`opentelemetry.proto.trace.v1.Span`).
//!
//! In: an observation and its identity. Out: the span's bytes, appended as field 2 of a `ScopeSpans`.

use super::wire::{
    attr_bool, attr_double, attr_int, attr_list, attr_parts, attr_str, bytes, fixed64, header, message, put,
};
use crate::{
    exchange::{Captured, Side},
    link::Method,
    observation::{Host, Observation, Rules, verdict},
    semconv::key,
    trace::SpanIdentity,
    value::text,
};

/// Field 9 of `Span`, length-delimited.
const ATTRIBUTES: u8 = 9 << 3 | 2;

/// Encodes spans one at a time; keeps its working space.
#[derive(Debug, Default)]
pub struct SpanEncoder {
    // A span's length stands before it and is known after it: it is written here and copied.
    scratch: Vec<u8>,
    port: String,
}

impl SpanEncoder {
    /// Appends the span of `seen` to `out`, with the tag and length of `ScopeSpans.spans`.
    pub fn append(&mut self, out: &mut Vec<u8>, seen: &Observation<'_>, id: &SpanIdentity, rules: &Rules) {
        self.scratch.clear();
        self.port.clear();
        let w = &mut self.scratch;
        let server = seen.exchange.side == Side::Server;
        let route = seen.route.map(|r| rules.routes.text(r));
        bytes(w, 0x0a, &id.trace_id);
        bytes(w, 0x12, &id.span_id);
        if !id.trace_state.is_empty() {
            bytes(w, 0x1a, id.trace_state.as_bytes());
        }
        if let Some(parent) = &id.parent {
            bytes(w, 0x22, parent);
        }
        name(w, seen, route);
        w.extend_from_slice(&[6 << 3, if server { 2 } else { 3 }]);
        fixed64(w, 7 << 3 | 1, seen.start.0);
        fixed64(w, 8 << 3 | 1, seen.end.0);
        request(w, seen, route, &mut self.port);
        network(w, seen);
        result(w, seen, id.link);
        if seen.error.is_some_and(verdict::ErrorType::fails_span) {
            w.extend_from_slice(&[15 << 3 | 2, 2, 3 << 3, 2]); // Status{code: ERROR}, no description: the code says it
        }
        // Bit 8: whether the parent is remote is known; bit 9: it is.
        let flags = u32::from(id.flags) | if id.remote_parent { 0x300 } else { 0x100 };
        // Field 16: the only tag of two bytes.
        w.extend_from_slice(&[0x85, 0x01]);
        w.extend_from_slice(&flags.to_le_bytes());
        header(out, 0x12, w.len());
        out.extend_from_slice(w);
    }
}

fn name(w: &mut Vec<u8>, seen: &Observation<'_>, route: Option<&str>) {
    let method = seen.method.span_name();
    match route {
        Some(route) => {
            header(w, 0x2a, method.len() + 1 + route.len());
            put(w, method.as_bytes());
            w.push(b' ');
            put(w, route.as_bytes());
        }
        None => bytes(w, 0x2a, method.as_bytes()),
    }
}

fn request(w: &mut Vec<u8>, seen: &Observation<'_>, route: Option<&str>, port: &mut String) {
    attr_str(w, ATTRIBUTES, key::HTTP_REQUEST_METHOD, seen.method.as_str());
    if let Some(original) = &seen.method_original {
        attr_str(w, ATTRIBUTES, key::HTTP_REQUEST_METHOD_ORIGINAL, original);
    }
    if let Some(route) = route {
        let name = if seen.exchange.side == Side::Server { key::HTTP_ROUTE } else { key::URL_TEMPLATE };
        attr_str(w, ATTRIBUTES, name, route);
    }
    attr_str(w, ATTRIBUTES, key::URL_SCHEME, seen.scheme.as_str());
    if seen.exchange.side == Side::Server {
        attr_str(w, ATTRIBUTES, key::URL_PATH, &seen.path);
        if let Some(query) = &seen.query {
            attr_str(w, ATTRIBUTES, key::URL_QUERY, query);
        }
    } else {
        attr_parts(w, ATTRIBUTES, key::URL_FULL, &seen.url_full(port));
    }
    if let Some(agent) = &seen.user_agent {
        attr_str(w, ATTRIBUTES, key::USER_AGENT_ORIGINAL, agent);
    }
    if let Some(size) = seen.exchange.request.body_size {
        attr_int(w, ATTRIBUTES, key::HTTP_REQUEST_BODY_SIZE, clamp(size));
    }
    captured(w, key::HTTP_REQUEST_HEADER, &seen.exchange.request.headers.captured);
    if seen.exchange.request.truncated {
        attr_bool(w, ATTRIBUTES, key::SPANTAP_HEAD_TRUNCATED, true);
    }
}

fn network(w: &mut Vec<u8>, seen: &Observation<'_>) {
    let host = |w: &mut Vec<u8>, key, host: &Option<Host<'_>>| {
        if let Some(host) = host {
            attr_str(w, ATTRIBUTES, key, host.as_str());
        }
    };
    host(w, key::SERVER_ADDRESS, &seen.server);
    if let Some(port) = seen.server_port {
        attr_int(w, ATTRIBUTES, key::SERVER_PORT, port.into());
    }
    host(w, key::CLIENT_ADDRESS, &seen.client);
    host(w, key::NETWORK_PEER_ADDRESS, &seen.peer);
    if let Some(port) = seen.peer_port {
        attr_int(w, ATTRIBUTES, key::NETWORK_PEER_PORT, port.into());
    }
    attr_str(w, ATTRIBUTES, key::NETWORK_PROTOCOL_VERSION, seen.version);
    if seen.is_unix() {
        attr_str(w, ATTRIBUTES, key::NETWORK_TRANSPORT, "unix");
    }
    attr_int(w, ATTRIBUTES, key::SPANTAP_THREAD_ID, seen.exchange.thread.into());
}

fn result(w: &mut Vec<u8>, seen: &Observation<'_>, link: Option<Method>) {
    if let Some(status) = seen.status {
        attr_int(w, ATTRIBUTES, key::HTTP_RESPONSE_STATUS_CODE, status.into());
    }
    if let Some(size) = seen.exchange.response.as_ref().and_then(|r| r.body_size) {
        attr_int(w, ATTRIBUTES, key::HTTP_RESPONSE_BODY_SIZE, clamp(size));
    }
    if let Some(response) = &seen.exchange.response {
        captured(w, key::HTTP_RESPONSE_HEADER, &response.captured);
    }
    if let Some(error) = seen.error {
        attr_str(w, ATTRIBUTES, key::ERROR_TYPE, &error.as_str());
    }
    if let Some(method) = link {
        attr_str(w, ATTRIBUTES, key::SPANTAP_LINK_METHOD, method.name());
    }
    if let Some(outcome) = verdict::outcome_name(seen.exchange.outcome) {
        attr_str(w, ATTRIBUTES, key::SPANTAP_OUTCOME, outcome);
    }
    if let Some(queued) = seen.exchange.queued {
        attr_double(w, ATTRIBUTES, key::SPANTAP_QUEUE_DURATION, queued.as_secs_f64());
    }
}

/// Fields that were asked for, each name once with all its values (semantic conventions, `http.request.header.<key>`).
fn captured(w: &mut Vec<u8>, prefix: &str, captured: &Captured) {
    for (at, (name, _)) in captured.iter().enumerate() {
        if captured.iter().take(at).any(|(before, _)| before == name) {
            continue;
        }
        let values: Vec<_> =
            captured.iter().filter(|(other, _)| other == name).map(|(_, value)| text(value, value.len())).collect();
        let values: Vec<&str> = values.iter().map(|value| &**value).collect();
        attr_list(w, ATTRIBUTES, &format!("{prefix}{name}"), &values);
    }
}

fn clamp(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Appends the scope that all telemetry has (`InstrumentationScope`) as field 1.
pub(crate) fn scope(out: &mut Vec<u8>) {
    message(out, 0x0a, |w| {
        bytes(w, 0x0a, crate::semconv::SCOPE_NAME.as_bytes());
        bytes(w, 0x12, crate::semconv::SCOPE_VERSION.as_bytes());
    });
}

#[cfg(test)]
mod tests;
