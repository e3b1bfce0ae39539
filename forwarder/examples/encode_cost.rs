//! What a span costs: written directly, and by way of the generated types of `opentelemetry-proto`.
//!
//! `cargo run --release -p spantap --example encode_cost`. Each figure is the best of several rounds, in nanoseconds.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/sample.rs"]
mod sample;

use std::{hint::black_box, sync::Arc, time::Instant};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use spantap::{
    exchange::{Exchange, Side},
    observation::{Host, Observation, Rules},
    otlp::span::SpanEncoder,
    pipeline::Pipeline,
    semconv::key,
    trace::{SpanIdentity, Tracer},
};
use spantap_config::Sampler;

const SPANS: u32 = 200_000;
const ROUNDS: u32 = 7;

fn best(mut run: impl FnMut()) -> f64 {
    let nanoseconds = |start: Instant| start.elapsed().as_nanos() as f64 / f64::from(SPANS);
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..SPANS).for_each(|_| run());
            nanoseconds(start)
        })
        .fold(f64::MAX, f64::min)
}

/// The usual way: values first, bytes afterwards.
fn generated(seen: &Observation<'_>, id: &SpanIdentity) -> Span {
    let attribute = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let text = |key, value: &str| attribute(key, Value::StringValue(value.into()));
    let int = |key, value| attribute(key, Value::IntValue(value));
    let host = |h: &Option<Host<'_>>| h.as_ref().map_or(String::new(), |h| h.as_str().to_owned());
    let attributes = vec![
        text(key::HTTP_REQUEST_METHOD, seen.method.as_str()),
        text(key::URL_SCHEME, seen.scheme.as_str()),
        text(key::URL_PATH, &seen.path),
        text(key::URL_QUERY, seen.query.as_deref().unwrap_or_default()),
        text(key::USER_AGENT_ORIGINAL, seen.user_agent.as_deref().unwrap_or_default()),
        int(key::HTTP_REQUEST_BODY_SIZE, 0),
        text(key::SERVER_ADDRESS, &host(&seen.server)),
        int(key::SERVER_PORT, seen.server_port.unwrap_or_default().into()),
        text(key::CLIENT_ADDRESS, &host(&seen.client)),
        text(key::NETWORK_PEER_ADDRESS, &host(&seen.peer)),
        int(key::NETWORK_PEER_PORT, seen.peer_port.unwrap_or_default().into()),
        text(key::NETWORK_PROTOCOL_VERSION, seen.version),
        int(key::SPANTAP_THREAD_ID, seen.exchange.thread.into()),
        int(key::HTTP_RESPONSE_STATUS_CODE, seen.status.unwrap_or_default().into()),
        int(key::HTTP_RESPONSE_BODY_SIZE, 1234),
    ];
    Span {
        trace_id: id.trace_id.to_vec(),
        span_id: id.span_id.to_vec(),
        name: seen.method.span_name().into(),
        kind: 2,
        start_time_unix_nano: seen.start.0,
        end_time_unix_nano: seen.end.0,
        attributes,
        flags: 0x103,
        ..Default::default()
    }
}

fn whole(name: &str, config: &spantap_config::Config, exchange: &Exchange) {
    let mut pipeline = Pipeline::new(config, Arc::default()).unwrap();
    let cost = best(|| pipeline.exchange(black_box(exchange), &sample::clock()));
    println!("{name:<52} {cost:7.0} ns");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (exchange, rules) = (sample::exchange(Side::Server), Rules::default());
    let mut tracer = Tracer::new(Sampler::AlwaysOn);
    let id = tracer.start(Side::Server, &exchange.request.headers).unwrap();
    let seen = Observation::new(&exchange, sample::clock(), &rules);

    let observe = best(|| {
        black_box(Observation::new(black_box(&exchange), sample::clock(), &rules));
    });
    println!("{:<52} {observe:7.0} ns", "observation of an exchange");
    let identity = best(|| {
        black_box(tracer.start(Side::Server, black_box(&exchange.request.headers)));
    });
    println!("{:<52} {identity:7.0} ns", "identity and sampling");
    let (mut encoder, mut out) = (SpanEncoder::default(), Vec::new());
    let direct = best(|| {
        if out.len() > 3_000_000 {
            out.clear();
        }
        encoder.append(&mut out, black_box(&seen), &id, &rules);
    });
    println!("{:<52} {direct:7.0} ns", "span of 15 attributes, written directly");
    let mut out = Vec::new();
    let built = best(|| {
        if out.len() > 3_000_000 {
            out.clear();
        }
        generated(black_box(&seen), &id).encode_length_delimited(&mut out).unwrap();
    });
    println!("{:<52} {built:7.0} ns", "the same by generated types");
    println!("{:<52} {:7.1}", "ratio", built / direct);

    // Nothing listens on port 9 of localhost: the queue overflows, which costs what a full queue costs.
    let traces = Some(sample::otlp_traces("http://127.0.0.1:9/v1/traces".into()));
    let metrics = Some(sample::otlp_metrics("http://127.0.0.1:9/v1/metrics".into()));
    whole("pipeline, nothing configured", &sample::config(), &exchange);
    whole("pipeline, metrics", &spantap_config::Config { metrics: metrics.clone(), ..sample::config() }, &exchange);
    whole("pipeline, traces", &spantap_config::Config { traces: traces.clone(), ..sample::config() }, &exchange);
    whole("pipeline, traces and metrics", &spantap_config::Config { traces, metrics, ..sample::config() }, &exchange);
}
