//! Metrics through the whole pipeline: OTLP collections, the scrape endpoint and the admin endpoint agree with the spans.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/drive.rs"]
mod drive;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use drive::{report, ticking};
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric::Data};
use receiver::{Received, Receiver, Step, exchange, get, ok};
use spantap::{exchange::Side, model::ProcessId, pipeline::Pipeline};
use spantap_config::Config;
use tokio::time::Instant;

fn config(receiver: &Receiver) -> Config {
    Config { metrics: Some(sample::otlp_metrics(receiver.url("/v1/metrics"))), ..sample::config() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn server_points(request: &Received) -> Vec<HistogramDataPoint> {
    let metrics = request.metrics().resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    let of = metrics.filter(|m| m.name == "http.server.request.duration").flat_map(|m| match m.data {
        Some(Data::Histogram(h)) => h.data_points,
        other => panic!("{other:?}"),
    });
    of.collect()
}

#[tokio::test]
async fn the_first_collection_comes_soon_and_the_last_at_stop() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut pipeline = Pipeline::new(&config(&receiver), Arc::default()).unwrap();
    let start = Instant::now();
    report(&mut pipeline, 2);
    ticking(&mut pipeline, "the first collection", |_| receiver.received().len() == 1).await;
    assert!(start.elapsed() < Duration::from_secs(10), "far below the interval of a minute");
    report(&mut pipeline, 1);
    let summary = pipeline.drain(soon()).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary:?}");
    let requests = receiver.received();
    let [first, last] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    let (first, last) = (&server_points(first)[0], &server_points(last)[0]);
    assert_eq!((first.count, last.count), (2, 3), "cumulative");
    assert_eq!(first.start_time_unix_nano, last.start_time_unix_nano);
    assert!(last.time_unix_nano > first.time_unix_nano);
    let own = requests[1].metrics();
    let names: Vec<_> = own
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics)
        .flat_map(|s| &s.metrics)
        .map(|m| m.name.clone())
        .collect();
    assert!(names.contains(&"spantap.exchanges".to_owned()) && names.contains(&"spantap.losses".to_owned()));
}

#[tokio::test]
async fn metrics_count_before_sampling_and_equal_spans() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    config.traces = Some(sample::otlp_traces(receiver.url("/v1/traces")));
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    let mut unsampled = sample::exchange(Side::Server);
    unsampled.request.headers.traceparent = vec!["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()];
    pipeline.exchange(&unsampled, &sample::clock());
    report(&mut pipeline, 1);
    pipeline.drain(soon()).await;
    let requests = receiver.received();
    let metrics = requests.iter().find(|r| r.path == "/v1/metrics").unwrap();
    let point = &server_points(metrics)[0];
    let traces = requests.iter().find(|r| r.path == "/v1/traces").unwrap().traces();
    let spans = &traces.resource_spans[0].scope_spans[0].spans;
    assert_eq!((point.count, spans.len()), (2, 1));
    let seconds = (spans[0].end_time_unix_nano - spans[0].start_time_unix_nano) as f64 / 1e9;
    assert_eq!(point.sum, Some(seconds * 2.0));
}

#[tokio::test]
async fn later_collections_replace_those_that_wait() {
    let receiver = Receiver::start(vec![Step::Answer(503, "", vec![]), ok()]).await;
    let mut config = config(&receiver);
    config.metrics.as_mut().unwrap().interval = Duration::from_millis(20);
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    report(&mut pipeline, 1);
    let telemetry = pipeline.telemetry().clone();
    ticking(&mut pipeline, "superseded", |_| telemetry.metrics.superseded.get() > 0).await;
    let summary = pipeline.drain(soon()).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary:?}");
    assert_eq!(server_points(receiver.received().last().unwrap())[0].count, 1);
}

#[tokio::test]
async fn an_ended_process_says_goodbye() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    let metrics = config.metrics.as_mut().unwrap();
    (metrics.interval, metrics.ttl) = (Duration::from_millis(20), Duration::from_millis(100));
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    report(&mut pipeline, 1);
    pipeline.process_ended(ProcessId(1));
    let flags =
        || receiver.received().iter().filter_map(|r| server_points(r).first().map(|p| p.flags)).collect::<Vec<_>>();
    ticking(&mut pipeline, "a point without value", |_| flags().last() == Some(&1)).await;
    let so_far = receiver.received().len();
    ticking(&mut pipeline, "more collections", |_| receiver.received().len() > so_far + 2).await;
    let flags = flags();
    assert_eq!(flags.iter().filter(|f| **f == 1).count(), 1, "once");
    assert_eq!(flags.first(), Some(&0), "its value was exported before");
    pipeline.drain(soon()).await;
}

#[tokio::test]
async fn scrape_and_admin() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    config.prometheus = Some(sample::prometheus());
    config.admin = Some(([127, 0, 0, 1], 0).into());
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    report(&mut pipeline, 4);
    let scrape = ([127, 0, 0, 1], pipeline.scrape_address().unwrap().port()).into();
    let admin = pipeline.admin_address().unwrap();

    let (status, body) = get(scrape, "/metrics").await;
    assert_eq!(status, 200);
    let count = body.lines().find(|l| l.starts_with("http_server_request_duration_seconds_count{")).unwrap();
    assert!(count.ends_with(" 4"), "{count}");
    assert_eq!(get(scrape, "/").await.0, 404);
    assert_eq!(
        exchange(scrape, "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc")
            .await
            .0,
        405
    );
    let huge = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(60_000));
    assert!(matches!(exchange(scrape, &huge).await.0, 414 | 431));

    assert_eq!(get(admin, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(admin, "/readyz").await.0, 503);
    pipeline.telemetry().agent.set_connected(true);
    assert_eq!(get(admin, "/readyz").await, (200, "ready\n".into()));
    let (_, body) = get(admin, "/metrics").await;
    assert!(body.contains("spantap_exchanges_total{side=\"server\"} 4\n"), "{body}");
    assert!(body.contains("spantap_prometheus_scrapes_total 1\n"), "{body}");

    config.admin = Some(admin);
    config.prometheus = None;
    let taken = Pipeline::new(&config, Arc::default()).err().unwrap().to_string();
    assert!(
        taken.starts_with(&format!("spantap.admin: cannot listen on {admin}: ")) && taken.contains("in use"),
        "{taken}"
    );
    pipeline.drain(soon()).await;
}

#[tokio::test]
async fn unusable_destinations_are_named() {
    let mut config = sample::config();
    config.metrics = Some(sample::otlp_metrics("localhost".into()));
    let error = Pipeline::new(&config, Arc::default()).err().unwrap().to_string();
    assert_eq!(error, "otel_metrics_export: \"localhost\" is not an http or https URL");
}

#[tokio::test]
async fn the_pipeline_can_live_in_any_task() {
    fn is_send<T: Send>(_: &T) {}
    let pipeline = Pipeline::new(&sample::config(), Arc::default()).unwrap();
    is_send(&pipeline);
    assert!(pipeline.next_tick() <= Instant::now() + Duration::from_secs(1));
    is_send(&pipeline.drain(soon()));
}
