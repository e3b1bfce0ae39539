//! Another configuration for a running pipeline: destinations change, series go on, the books add up, nothing changes
//! where the new one can not be used.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric::Data};
use receiver::{Received, Receiver, Step, get, ok, until};
use spantap::{
    exchange::Side,
    pipeline::{self, Pipeline},
    telemetry::summary::Summary,
};
use spantap_config::{Config, IgnoreMode, KeepSpans, Prometheus, Sampler, Secret, Temporality, Unmatched};
use tokio::time::Instant;

fn config(receiver: &Receiver) -> Config {
    Config {
        traces: Some(sample::otlp_traces(receiver.url("/v1/traces"))),
        metrics: Some(sample::otlp_metrics(receiver.url("/v1/metrics"))),
        ..sample::config()
    }
}

fn report(pipeline: &mut Pipeline, n: usize) {
    for _ in 0..n {
        pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    }
}

fn request(pipeline: &mut Pipeline, path: &'static str, status: u16) {
    let mut exchange = sample::exchange(Side::Server);
    exchange.request.target = Bytes::from_static(path.as_bytes());
    exchange.response.as_mut().unwrap().status = status;
    pipeline.exchange(&exchange, &sample::clock());
}

async fn drain(pipeline: Pipeline) -> Summary {
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(30)).await;
    assert!(summary.adds_up(), "{summary:?}");
    summary
}

fn spans(receiver: &Receiver) -> usize {
    receiver.received().iter().filter(|r| r.path == "/v1/traces").map(Received::span_count).sum()
}

fn last_points(receiver: &Receiver) -> Vec<HistogramDataPoint> {
    let requests = receiver.received();
    let last = requests.iter().rfind(|r| r.path == "/v1/metrics").unwrap();
    let metrics = last.metrics().resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    let of = metrics.filter(|m| m.name == "http.server.request.duration").flat_map(|m| match m.data {
        Some(Data::Histogram(h)) => h.data_points,
        other => panic!("{other:?}"),
    });
    of.collect()
}

#[tokio::test]
async fn each_destination_gets_its_share_and_the_series_go_on() {
    let (one, two) = (Receiver::start(vec![ok()]).await, Receiver::start(vec![ok()]).await);
    let (first, second) = (config(&one), config(&two));
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    report(&mut pipeline, 3);
    pipeline.reload(&first, &second).unwrap();
    report(&mut pipeline, 4);
    let summary = drain(pipeline).await;
    assert_eq!((spans(&one), spans(&two), summary.traces.exported), (3, 4, 7));
    assert!(summary.losses.is_empty(), "{summary:?}");
    let (before, after) = (last_points(&one), last_points(&two));
    assert_eq!((before[0].count, after[0].count), (3, 7));
    assert_eq!(before[0].start_time_unix_nano, after[0].start_time_unix_nano, "one series");
}

#[tokio::test]
async fn an_old_destination_that_is_slow_gets_what_is_its_own() {
    let slow = Receiver::start(vec![Step::Answer(503, "", vec![]), Step::Answer(503, "", vec![]), ok()]).await;
    let fast = Receiver::start(vec![ok()]).await;
    let only = |receiver: &Receiver| Config { metrics: None, ..config(receiver) };
    let (first, second) = (only(&slow), only(&fast));
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    report(&mut pipeline, 3);
    pipeline.reload(&first, &second).unwrap();
    report(&mut pipeline, 1);
    until("the new one does not wait for the old one", || {
        pipeline.tick();
        spans(&fast) == 1
    })
    .await;
    let summary = drain(pipeline).await;
    assert_eq!((summary.traces.exported, summary.traces.queued, summary.losses.len()), (4, 0, 0), "{summary:?}");
}

#[tokio::test]
async fn what_the_old_credentials_could_not_deliver_goes_with_the_new() {
    let receiver = Receiver::start(vec![Step::Answer(401, "", vec![])]).await;
    let with = |token: &str| {
        let mut config = Config { metrics: None, ..config(&receiver) };
        let traces = config.traces.as_mut().unwrap();
        traces.otlp.headers = vec![("authorization".into(), Secret(token.into()))];
        traces.backoff.initial = Duration::from_secs(3600);
        traces.backoff.max = Duration::from_secs(3600);
        config
    };
    let (first, second) = (with("Bearer old"), with("Bearer new"));
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    report(&mut pipeline, 3);
    until("refused", || {
        pipeline.tick();
        pipeline.telemetry().traces.refusal().is_some()
    })
    .await;
    report(&mut pipeline, 2);
    // The old one asks once more.
    receiver.behave(vec![Step::Answer(401, "", vec![]), ok()]);
    pipeline.reload(&first, &second).unwrap();
    until("delivered", || {
        pipeline.tick();
        pipeline.telemetry().traces.exported.get() == 5
    })
    .await;
    let summary = drain(pipeline).await;
    assert_eq!((summary.traces.exported, summary.losses.len()), (5, 0), "{summary:?}");
    let sent: Vec<_> =
        receiver.received().iter().map(|r| (r.headers["authorization"].clone(), r.span_count())).collect();
    let by = |token: &str| sent.iter().filter(|(value, n)| value == token && *n > 0).map(|(_, n)| n).sum::<usize>();
    assert_eq!((by("Bearer old"), by("Bearer new")), (3, 5), "{sent:?}");
}

#[tokio::test]
async fn what_can_not_be_used_changes_nothing() {
    let receiver = Receiver::start(vec![ok()]).await;
    let running = config(&receiver);
    let mut pipeline = Pipeline::new(&running, Arc::default()).unwrap();
    let mut broken = running.clone();
    broken.traces.as_mut().unwrap().otlp.certificate = Some("/nonexistent/ca.pem".into());
    broken.traces.as_mut().unwrap().otlp.endpoint = "https://localhost:1/v1/traces".into();
    broken.sampler = Sampler::AlwaysOff;
    let error = pipeline.reload(&running, &broken).unwrap_err().to_string();
    assert!(error.contains("otel_traces_export") && error.contains("/nonexistent/ca.pem"), "{error}");
    report(&mut pipeline, 2);
    assert_eq!(drain(pipeline).await.traces.exported, 2);
}

#[tokio::test]
async fn signals_come_and_go() {
    let receiver = Receiver::start(vec![ok()]).await;
    let (both, none) = (config(&receiver), sample::config());
    let mut pipeline = Pipeline::new(&none, Arc::default()).unwrap();
    report(&mut pipeline, 1);
    pipeline.reload(&none, &both).unwrap();
    report(&mut pipeline, 2);
    pipeline.reload(&both, &none).unwrap();
    report(&mut pipeline, 4);
    let summary = drain(pipeline).await;
    assert_eq!((summary.traces.exported, summary.unwanted), (2, 5));
    assert_eq!(last_points(&receiver)[0].count, 2);
}

#[tokio::test]
async fn routes_samplers_and_names_apply_from_then_on() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut first = config(&receiver);
    (first.routes.unmatched, first.metrics) = (Unmatched::Heuristic, None);
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    request(&mut pipeline, "/cart/7", 200);
    let mut second = first.clone();
    second.routes.patterns = vec!["/cart/{id}".into()];
    (second.routes.ignored, second.routes.ignore_mode) = (vec!["/health".into()], IgnoreMode::Traces);
    (second.sampler, second.keep) = (Sampler::AlwaysOff, KeepSpans { errors: true, ..KeepSpans::default() });
    second.service_name = Some("renamed".into());
    pipeline.reload(&first, &second).unwrap();
    for (path, status) in [("/cart/7", 200), ("/cart/7", 500), ("/health", 500)] {
        request(&mut pipeline, path, status);
    }
    let summary = drain(pipeline).await;
    assert_eq!((summary.traces.exported, summary.unsampled, summary.ignored), (2, 1, 1));
    let mut found = Vec::new();
    for of in receiver.received().iter().flat_map(|r| r.traces().resource_spans) {
        let renamed = format!("{:?}", of.resource).contains("renamed");
        found.extend(of.scope_spans[0].spans.iter().map(|s| (renamed, s.name.clone(), s.trace_state.clone())));
    }
    let want = [(false, "GET /cart/*", ""), (true, "GET /cart/{id}", "ot=th:0")];
    assert_eq!(found, want.map(|(renamed, name, state)| (renamed, name.to_owned(), state.to_owned())));
}

#[tokio::test]
async fn scrapes_go_on() {
    let scraped = sample::prometheus();
    let first = Config { prometheus: Some(scraped.clone()), ..sample::config() };
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    let mut address = pipeline.scrape_address().unwrap();
    address.set_ip([127, 0, 0, 1].into());
    report(&mut pipeline, 2);
    let second = Config { prometheus: Some(Prometheus { path: "/other".into(), ..scraped.clone() }), ..first.clone() };
    pipeline.reload(&first, &second).unwrap();
    report(&mut pipeline, 1);
    let (status, text) = get(address, "/other").await;
    assert!(status == 200 && text.contains("_count") && text.contains(" 3"), "{text}");
    assert_eq!(get(address, "/metrics").await.0, 404);
    let buckets = Prometheus { duration_buckets: vec![1.0], ..scraped };
    let third = Config { prometheus: Some(buckets), ..first.clone() };
    pipeline.reload(&second, &third).unwrap();
    report(&mut pipeline, 1);
    let (_, text) = get(address, "/metrics").await;
    assert!(text.contains("le=\"1") && !text.contains("le=\"0.005"), "other buckets are other series: {text}");
    pipeline.reload(&third, &sample::config()).unwrap();
    assert_eq!(get(address, "/metrics").await.0, 404);
    drain(pipeline).await;
}

#[tokio::test]
async fn differences_wait_where_collections_were_replaced_before() {
    let receiver = Receiver::start(vec![ok()]).await;
    let first = Config { traces: None, ..config(&receiver) };
    let mut second = first.clone();
    let metrics = second.metrics.as_mut().unwrap();
    (metrics.interval, metrics.aggregation.temporality) = (Duration::from_millis(20), Temporality::Delta);
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    report(&mut pipeline, 1);
    pipeline.reload(&first, &second).unwrap();
    receiver.behave(vec![Step::Answer(503, "", vec![])]);
    let telemetry = pipeline.telemetry().clone();
    for _ in 0..4 {
        report(&mut pipeline, 1);
        let before = telemetry.metrics.accepted.get();
        until("a collection", || {
            pipeline.tick();
            telemetry.metrics.accepted.get() > before
        })
        .await;
    }
    receiver.behave(vec![ok()]);
    let summary = drain(pipeline).await;
    assert_eq!((summary.metrics.superseded, summary.metrics.exported), (0, summary.metrics.accepted), "{summary:?}");
}

#[test]
fn what_can_not_change_is_named_and_stays() {
    let running = sample::config();
    assert!(pipeline::fixed(&running, &mut running.clone()).is_empty());
    let mut new = running.clone();
    new.socket = "/other".into();
    new.admin = Some(([127, 0, 0, 1], 1).into());
    new.forwarder.user = Some("other".into());
    // The agent's to say.
    new.agent.head_bytes = 512;
    new.discovery.poll_interval = Duration::from_secs(99);
    new.prometheus = Some(Prometheus { port: 9, ..sample::prometheus() });
    let keys: Vec<_> = pipeline::fixed(&running, &mut new).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["spantap.socket", "spantap.admin", "spantap.user", "prometheus_export.port"]);
    assert_eq!((&new.socket, new.admin, &new.prometheus), (&running.socket, running.admin, &running.prometheus));
    assert_eq!(new.forwarder, running.forwarder);
}
