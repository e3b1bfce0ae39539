#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::collections::HashMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use proptest::prelude::*;
use prost::Message;
use spantap_config::Sampler;

use super::*;
use crate::{
    exchange::{ClosedBy, Exchange, Outcome},
    model::Endpoints,
    observation::{route::Routes, target::Redactor},
    otlp::request::append_resource,
    resource::ResourceBuilder,
    sample,
    trace::Tracer,
};

fn rules() -> Rules {
    Rules {
        routes: Routes::new(&["/cart/{id}".into()]),
        redactor: Redactor::new(&["sig".into()]),
        ..Default::default()
    }
}

/// Encodes as the pipeline does, decodes with the generated types.
fn decode(exchange: &Exchange, rules: &Rules) -> ExportTraceServiceRequest {
    let seen = Observation::new(exchange, sample::clock(), rules);
    let id = Tracer::seeded(Sampler::AlwaysOn, 1).start(exchange.side, &exchange.request.headers).unwrap();
    let mut spans = Vec::new();
    SpanEncoder::default().append(&mut spans, &seen, &id, rules);
    let mut body = Vec::new();
    let resource = ResourceBuilder::new(&sample::config()).process(&exchange.process);
    append_resource(&mut body, &resource.encoded, &spans);
    ExportTraceServiceRequest::decode(body.as_slice()).unwrap()
}

fn span(exchange: &Exchange) -> Span {
    decode(exchange, &rules()).resource_spans[0].scope_spans[0].spans[0].clone()
}

fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let text = |kv: &KeyValue| match kv.value.as_ref().unwrap().value.as_ref().unwrap() {
        Any::StringValue(s) => s.clone(),
        Any::IntValue(i) => format!("i{i}"),
        Any::BoolValue(b) => format!("b{b}"),
        Any::DoubleValue(d) => format!("d{d}"),
        Any::ArrayValue(list) => {
            let texts = list.values.iter().map(|v| match v.value.as_ref().unwrap() {
                Any::StringValue(s) => s.as_str(),
                other => panic!("unexpected {other:?}"),
            });
            format!("l{}", texts.collect::<Vec<_>>().join("|"))
        }
        other => panic!("unexpected {other:?}"),
    };
    let map: HashMap<_, _> = list.iter().map(|kv| (kv.key.clone(), text(kv))).collect();
    assert_eq!(map.len(), list.len(), "keys are unique");
    map
}

fn expect(exchange: &Exchange, want: &[(&str, &str)]) -> Span {
    let span = span(exchange);
    let want: HashMap<_, _> = want.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    assert_eq!(attributes(&span.attributes), want);
    span
}

#[test]
fn captured_fields_are_lists() {
    let mut e = sample::exchange(Side::Server);
    let captured = |fields: &[(&str, &'static [u8])]| {
        fields.iter().map(|(name, value)| ((*name).into(), Bytes::from_static(value))).collect::<Vec<_>>()
    };
    e.request.headers.captured = captured(&[("x-id", b"1"), ("accept", b""), ("x-id", b"2\xff")]);
    e.response.as_mut().unwrap().captured = captured(&[("etag", b"\"a\"")]);
    let found = attributes(&span(&e).attributes);
    let text = |key: &str| found.get(key).map(String::as_str);
    assert_eq!(text("http.request.header.x-id"), Some("l1|2\u{fffd}"));
    assert_eq!(text("http.request.header.accept"), Some("l"));
    assert_eq!(text("http.response.header.etag"), Some("l\"a\""));
}

#[test]
fn server_span_in_full() {
    let mut e = sample::exchange(Side::Server);
    e.queued = Some(std::time::Duration::from_micros(250));
    let span = expect(
        &e,
        &[
            ("http.request.method", "GET"),
            ("http.route", "/cart/{id}"),
            ("url.scheme", "http"),
            ("url.path", "/cart/7"),
            ("url.query", "item=3"),
            ("user_agent.original", "curl/8.5.0"),
            ("http.request.body.size", "i0"),
            ("server.address", "shop.example"),
            ("server.port", "i8080"),
            ("client.address", "10.0.0.2"),
            ("network.peer.address", "10.0.0.2"),
            ("network.peer.port", "i40000"),
            ("network.protocol.version", "1.1"),
            ("spantap.thread.id", "i4242"),
            ("http.response.status_code", "i200"),
            ("http.response.body.size", "i1234"),
            ("spantap.server.queue.duration", "d0.00025"),
        ],
    );
    assert_eq!(span.name, "GET /cart/{id}");
    assert_eq!(span.kind(), SpanKind::Server);
    assert_eq!(
        (span.start_time_unix_nano, span.end_time_unix_nano),
        (sample::EPOCH + 1_000_000, sample::EPOCH + 4_000_000)
    );
    assert_eq!((span.trace_id.len(), span.span_id.len(), span.parent_span_id.len()), (16, 8, 0));
    assert_eq!(span.status, None);
    assert_eq!(span.flags, 0x103);
}

#[test]
fn client_span_in_full() {
    let mut e = sample::exchange(Side::Client);
    e.request.headers.traceparent =
        vec![Bytes::from_static(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    e.request.headers.tracestate = vec![Bytes::from_static(b"a=1")];
    e.response.as_mut().unwrap().status = 404;
    let span = expect(
        &e,
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            ("url.full", "http://shop.example:8080/cart/7?item=3"),
            ("user_agent.original", "curl/8.5.0"),
            ("http.request.body.size", "i0"),
            ("server.address", "shop.example"),
            ("server.port", "i8080"),
            ("network.peer.address", "10.0.0.2"),
            ("network.peer.port", "i40000"),
            ("network.protocol.version", "1.1"),
            ("spantap.thread.id", "i4242"),
            ("http.response.status_code", "i404"),
            ("http.response.body.size", "i1234"),
            ("error.type", "404"),
        ],
    );
    assert_eq!((span.name.as_str(), span.kind()), ("GET", SpanKind::Client));
    let status = span.status.unwrap();
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, ""));
    assert_eq!(span.parent_span_id, *b"\xb7\xad\x6b\x71\x69\x20\x33\x31");
    assert_eq!((span.flags, span.trace_state.as_str()), (0x101, "a=1"));
}

#[test]
fn a_remote_parent_is_marked() {
    let mut e = sample::exchange(Side::Server);
    e.request.headers.traceparent =
        vec![Bytes::from_static(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03")];
    assert_eq!(span(&e).flags, 0x303);
}

#[test]
fn no_response_has_no_status() {
    let mut e = sample::exchange(Side::Server);
    e.response = None;
    e.outcome = Outcome::NoResponse(ClosedBy::Peer);
    let left = span(&e);
    let found = attributes(&left.attributes);
    assert!(!found.contains_key("http.response.status_code"));
    assert_eq!(
        (found["error.type"].as_str(), found["spantap.outcome"].as_str()),
        ("client_disconnected", "no_response")
    );
    assert_eq!(left.status, None, "no fault of the server");
    e.outcome = Outcome::NoResponse(ClosedBy::Local);
    assert_eq!(span(&e).status.unwrap().code(), StatusCode::Error);
}

#[test]
fn unknown_methods_do_not_name_spans() {
    let mut e = sample::exchange(Side::Server);
    e.request.method = Bytes::from_static(b"get");
    e.request.target = Bytes::from_static(b"/other");
    let span = span(&e);
    let found = attributes(&span.attributes);
    assert_eq!((span.name.as_str(), found["http.request.method"].as_str()), ("HTTP", "_OTHER"));
    assert_eq!(found["http.request.method_original"], "get");
    assert!(!found.contains_key("http.route"));
}

#[test]
fn envelope() {
    let request = decode(&sample::exchange(Side::Server), &rules());
    let spans = &request.resource_spans[0];
    assert_eq!(spans.schema_url, crate::semconv::SCHEMA_URL);
    assert_eq!(attributes(&spans.resource.as_ref().unwrap().attributes)["service.name"], "shop");
    let scope = &spans.scope_spans[0];
    assert_eq!(scope.schema_url, crate::semconv::SCHEMA_URL);
    let named = scope.scope.as_ref().unwrap();
    assert_eq!((named.name.as_str(), named.version.as_str()), ("spantap", env!("CARGO_PKG_VERSION")));
}

#[test]
fn unix_sockets() {
    let mut e = sample::exchange(Side::Client);
    e.request.headers.host = None;
    e.connection = std::sync::Arc::new(crate::model::Connection {
        socket: crate::model::SocketId(1),
        endpoints: Endpoints::Unix { path: Some("/run/app.sock".into()) },
        network_namespace: 0,
        tie: crate::model::Tie::Unknown,
    });
    let found = attributes(&span(&e).attributes);
    assert_eq!(found["network.transport"], "unix");
    assert_eq!(found["network.peer.address"], "/run/app.sock");
    assert_eq!(found["server.address"], "/run/app.sock");
    assert!(!found.contains_key("server.port"));
}

prop_compose! {
    fn any_exchange()(
        server in any::<bool>(),
        method in proptest::collection::vec(any::<u8>(), 0..80),
        target in prop_oneof![proptest::collection::vec(any::<u8>(), 0..6000), "/[a-zé%=&;?]{0,300}".prop_map(String::into_bytes)],
        fields in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..400)), 8),
        status in proptest::option::of(any::<u16>()),
        sizes in any::<(Option<u64>, Option<u64>)>(),
        times in any::<(u64, u64)>(),
        outcome in 0usize..7,
    ) -> Exchange {
        let mut e = sample::exchange(if server { Side::Server } else { Side::Client });
        let field = |at: usize| fields[at].clone().map(Bytes::from);
        e.request.method = method.into();
        e.request.target = target.into();
        let h = &mut e.request.headers;
        (h.host, h.user_agent, h.forwarded) = (field(0), field(1), field(2));
        (h.x_forwarded_for, h.x_forwarded_proto, h.x_forwarded_host) = (field(3), field(4), field(5));
        h.traceparent = field(6).into_iter().collect();
        h.tracestate = field(7).into_iter().collect();
        e.request.body_size = sizes.0;
        e.response = status.map(|status| crate::exchange::Response { status, version: e.request.version, body_size: sizes.1, captured: vec![] });
        (e.start.0, e.end.0) = times;
        let by = [ClosedBy::Local, ClosedBy::Peer, ClosedBy::Reset];
        e.outcome = match outcome { 0 => Outcome::Complete, n @ 1..4 => Outcome::Aborted(by[n - 1]), n => Outcome::NoResponse(by[n - 4]) };
        e
    }
}

proptest! {
    #[test]
    fn anything_encodes_to_what_was_observed(e in any_exchange()) {
        let rules = rules();
        let span = span(&e);
        let seen = Observation::new(&e, sample::clock(), &rules);
        let found = attributes(&span.attributes);
        prop_assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        prop_assert!(!span.name.is_empty() && span.trace_id != [0; 16] && span.span_id != [0; 8]);
        prop_assert_eq!(found.get("user_agent.original").map(String::as_str), seen.user_agent.as_deref());
        prop_assert_eq!(found.get("server.address").map(String::as_str), seen.server.as_ref().map(|h| h.as_str()));
        if e.side == Side::Server {
            prop_assert_eq!(&found["url.path"], &seen.path);
            prop_assert_eq!(found.get("url.query").map(String::as_str), seen.query.as_deref());
        } else {
            prop_assert!(found["url.full"].starts_with("http"));
        }
        prop_assert_eq!(found.contains_key("http.response.status_code"), e.response.is_some());
        let failed = span.status.as_ref().is_some_and(|s| s.code() == StatusCode::Error);
        prop_assert_eq!(failed, seen.error.is_some_and(|x| x.fails_span()));
        prop_assert!(span.encoded_len() < 64 * 1024);
    }
}
