//! Delivery of spans to a destination that behaves in every way: the pipeline's real queue, worker and HTTP client against
//! a scripted receiver, and books that add up each time.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/drive.rs"]
mod drive;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use drive::{drain, report, ticking};
use prost::Message;
use receiver::{Receiver, Step, ok};
use spantap::{
    exchange::Side,
    loss::Reason,
    pipeline::Pipeline,
    telemetry::summary::{DestinationSummary, Summary},
};
use spantap_config::{Compression, Config, Secret};
use tokio::time::Instant;

fn config(receiver: &Receiver) -> Config {
    Config { traces: Some(sample::otlp_traces(receiver.url("/v1/traces"))), ..sample::config() }
}

fn pipeline(config: &Config) -> Pipeline {
    Pipeline::new(config, Arc::default()).unwrap()
}

fn lost(books: &DestinationSummary, reason: Reason) -> u64 {
    books.lost.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
}

const LONG: Duration = Duration::from_secs(30);

/// Reports five spans to a receiver with `script` and drains.
async fn five_spans(script: Vec<Step>) -> (Receiver, Summary) {
    let receiver = Receiver::start(script).await;
    let mut pipeline = pipeline(&config(&receiver));
    report(&mut pipeline, 5);
    let summary = drain(pipeline, LONG).await;
    assert_eq!(summary.server_exchanges, 5);
    (receiver, summary)
}

#[tokio::test]
async fn a_request_as_the_specification_wants_it() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    let otlp = &mut config.traces.as_mut().unwrap().otlp;
    otlp.headers = vec![("authorization".into(), Secret("Basic abc".into()))];
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 3);
    ticking(&mut pipeline, "the batch goes out by itself", |_| receiver.received().len() == 1).await;
    let request = &receiver.received()[0];
    assert_eq!(request.path, "/v1/traces");
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!(header("content-type"), Some("application/x-protobuf"));
    assert_eq!(header("authorization"), Some("Basic abc"));
    assert_eq!(header("user-agent"), Some(concat!("spantap-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header("content-encoding"), None);
    assert_eq!(request.traces().resource_spans.len(), 1, "one resource for one process");
    assert_eq!(request.span_count(), 3);
    let summary = drain(pipeline, LONG).await;
    assert_eq!((summary.traces.exported, receiver.received().len()), (3, 1), "nothing empty is sent at stop");
}

#[tokio::test]
async fn compression() {
    for spans in [1, 500] {
        let receiver = Receiver::start(vec![ok()]).await;
        let mut config = config(&receiver);
        config.traces.as_mut().unwrap().otlp.compression = Compression::Gzip;
        let mut pipeline = pipeline(&config);
        report(&mut pipeline, spans);
        assert_eq!(drain(pipeline, LONG).await.traces.exported, spans as u64);
        let request = &receiver.received()[0];
        assert_eq!(request.headers["content-encoding"], "gzip");
        assert_eq!(request.span_count(), spans);
    }
}

#[tokio::test]
async fn transient_failures_are_tried_again() {
    for step in [
        Step::Answer(503, "", vec![]),
        Step::Answer(429, "", vec![]),
        Step::Answer(502, "", vec![]),
        Step::Answer(504, "", vec![]),
        Step::Garbage,
        Step::Close,
    ] {
        let what = format!("{step:?}");
        let (receiver, summary) = five_spans(vec![step.clone(), step, ok()]).await;
        assert_eq!((summary.traces.exported, summary.losses.len()), (5, 0), "{what}");
        let requests = receiver.received();
        assert!(requests.len() == 3 && requests.iter().all(|r| r.body == requests[0].body), "{what}");
    }
}

#[tokio::test]
async fn the_pause_that_is_asked_for_is_kept() {
    let (receiver, summary) = five_spans(vec![Step::Answer(503, "retry-after: 1\r\n", vec![]), ok()]).await;
    assert_eq!(summary.traces.exported, 5);
    let requests = receiver.received();
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(950));
}

#[tokio::test]
async fn a_pause_beyond_the_stop_is_not_waited_for() {
    let receiver = Receiver::start(vec![Step::Answer(503, "retry-after: 3600\r\n", vec![])]).await;
    let mut config = config(&receiver);
    config.traces.as_mut().unwrap().backoff.max_elapsed = Duration::from_secs(7200);
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 5);
    let start = Instant::now();
    let summary = drain(pipeline, LONG).await;
    assert!(start.elapsed() < LONG / 2);
    assert_eq!(lost(&summary.traces, Reason::ExportAtStop), 5);
}

#[tokio::test]
async fn refusals_are_final_and_counted() {
    for status in [400, 401, 404, 413, 500] {
        let (receiver, summary) = five_spans(vec![Step::Answer(status, "", vec![])]).await;
        assert_eq!((receiver.received().len(), lost(&summary.traces, Reason::ExportRefused)), (1, 5), "{status}");
    }
}

#[tokio::test]
async fn refused_credentials_lose_nothing_once_they_are_mended() {
    for status in [401, 403] {
        let no = || Step::Answer(status, "", vec![]);
        let receiver = Receiver::start(vec![no(), no(), no(), ok()]).await;
        let mut pipeline = pipeline(&config(&receiver));
        report(&mut pipeline, 5);
        ticking(&mut pipeline, "refused", |p| p.telemetry().traces.refusal().is_some()).await;
        report(&mut pipeline, 2);
        ticking(&mut pipeline, "mended", |p| p.telemetry().traces.exported.get() == 7).await;
        let summary = drain(pipeline, LONG).await;
        assert_eq!((summary.traces.exported, summary.losses.len()), (7, 0));
        let spans: Vec<usize> = receiver.received().iter().map(|r| r.span_count()).collect();
        assert_eq!(spans, [5, 0, 0, 0, 5, 2], "asked for with empty requests");
    }
}

#[tokio::test]
async fn what_is_refused_for_its_content_does_not_hold_up_the_rest() {
    let no = || Step::Answer(403, "", vec![]);
    let receiver = Receiver::start(vec![no(), ok(), no(), ok()]).await;
    let mut pipeline = pipeline(&config(&receiver));
    report(&mut pipeline, 5);
    ticking(&mut pipeline, "given up", |p| p.telemetry().losses.get(Reason::ExportRefused) == 5).await;
    report(&mut pipeline, 2);
    assert_eq!(drain(pipeline, LONG).await.traces.exported, 2);
    assert_eq!(receiver.received().iter().map(|r| r.span_count()).collect::<Vec<_>>(), [5, 0, 5, 2]);
}

#[tokio::test]
async fn what_finds_no_room_meanwhile_is_counted() {
    let receiver = Receiver::start(vec![Step::Answer(401, "", vec![])]).await;
    let mut config = config(&receiver);
    let traces = config.traces.as_mut().unwrap();
    (traces.queue_size, traces.batch_max_size) = (100, 10);
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 1000);
    ticking(&mut pipeline, "refused", |p| p.telemetry().traces.refusal().is_some()).await;
    let summary = drain(pipeline, LONG).await;
    let books = &summary.traces;
    assert_eq!((lost(books, Reason::ExportQueueFull), lost(books, Reason::ExportRefused)), (900, 100));
}

#[tokio::test]
async fn redirects_stay_at_home() {
    let (receiver, summary) = five_spans(vec![Step::Answer(307, "location: /elsewhere\r\n", vec![]), ok()]).await;
    assert_eq!(summary.traces.exported, 5);
    assert_eq!(receiver.received()[1].path, "/elsewhere");
    let stranger = Receiver::start(vec![ok()]).await;
    let away: &'static str = Box::leak(format!("location: {}\r\n", stranger.url("/")).into_boxed_str());
    let (_, summary) = five_spans(vec![Step::Answer(307, away, vec![])]).await;
    assert_eq!((lost(&summary.traces, Reason::ExportRefused), stranger.received().len()), (5, 0));
    let (_, summary) = five_spans(vec![Step::Answer(302, "location: /elsewhere\r\n", vec![]), ok()]).await;
    assert_eq!(lost(&summary.traces, Reason::ExportRefused), 5, "a redirect that would lose the body");
}

#[tokio::test]
async fn partial_success_is_counted_and_not_repeated() {
    // ExportTraceServiceResponse{partial_success{rejected_spans: 2, error_message: "old"}}
    let body = b"\x0a\x07\x08\x02\x12\x03old".to_vec();
    let (receiver, summary) = five_spans(vec![Step::Answer(200, "", body)]).await;
    assert_eq!(
        (summary.traces.exported, lost(&summary.traces, Reason::ExportPartial), receiver.received().len()),
        (3, 2, 1)
    );
}

#[tokio::test]
async fn odd_answers() {
    let (_, summary) = five_spans(vec![Step::Answer(200, "", b"<html>".to_vec())]).await;
    assert_eq!(summary.traces.exported, 5, "the status says success");
    let (receiver, summary) = five_spans(vec![Step::Answer(503, "", vec![b'x'; 5 << 20]), ok()]).await;
    assert_eq!(
        (lost(&summary.traces, Reason::ExportRefused), receiver.received().len()),
        (5, 1),
        "too large to be retried"
    );
}

#[tokio::test]
async fn a_hanging_destination_times_out() {
    let receiver = Receiver::start(vec![Step::Hang, ok()]).await;
    let mut config = config(&receiver);
    config.traces.as_mut().unwrap().otlp.timeout = Duration::from_millis(200);
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 5);
    assert_eq!(drain(pipeline, LONG).await.traces.exported, 5);
    assert!(receiver.received().len() >= 2);
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_hanging_destination() {
    let receiver = Receiver::start(vec![Step::Hang]).await;
    let mut config = config(&receiver);
    config.traces.as_mut().unwrap().otlp.timeout = Duration::ZERO;
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 5);
    let summary = drain(pipeline, Duration::from_millis(100)).await;
    assert_eq!((lost(&summary.traces, Reason::ExportAtStop), summary.traces.queued), (5, 0));
    assert!(summary.to_string().contains("export_at_stop 5"), "{summary}");
}

#[tokio::test]
async fn a_dead_destination_fills_the_queue_and_no_more() {
    let receiver = Receiver::start(vec![Step::Close]).await;
    let mut config = config(&receiver);
    let traces = config.traces.as_mut().unwrap();
    (traces.queue_size, traces.batch_max_size) = (100, 10);
    traces.backoff.max_elapsed = Duration::from_secs(3600);
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 1000);
    let telemetry = pipeline.telemetry().clone();
    assert_eq!(telemetry.traces.queued.get(), 100);
    assert_eq!((telemetry.losses.get(Reason::ExportQueueFull), telemetry.traces.imbalance()), (900, 0));
    let summary = drain(pipeline, Duration::from_millis(50)).await;
    assert_eq!(lost(&summary.traces, Reason::ExportAtStop), 100);
}

#[tokio::test]
async fn old_batches_are_given_up() {
    let receiver = Receiver::start(vec![Step::Answer(503, "", vec![])]).await;
    let mut config = config(&receiver);
    config.traces.as_mut().unwrap().backoff.max_elapsed = Duration::from_millis(60);
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 5);
    ticking(&mut pipeline, "given up", |p| p.telemetry().losses.get(Reason::ExportGivenUp) == 5).await;
    assert!(receiver.received().len() > 1);
    assert_eq!(lost(&drain(pipeline, LONG).await.traces, Reason::ExportGivenUp), 5);
}

#[tokio::test]
async fn requests_are_split_by_number_and_size() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    config.traces.as_mut().unwrap().batch_max_size = 3;
    let mut by_number = pipeline(&config);
    report(&mut by_number, 7);
    assert_eq!(drain(by_number, LONG).await.traces.exported, 7);
    assert_eq!(receiver.received().iter().map(|r| r.span_count()).collect::<Vec<_>>(), [3, 3, 1]);

    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = self::config(&receiver);
    config.traces.as_mut().unwrap().batch_max_size = usize::MAX;
    let mut by_size = pipeline(&config);
    let mut large = sample::exchange(Side::Server);
    large.request.target = format!("/{}?{}", "p".repeat(2000), "q".repeat(2000)).into();
    for _ in 0..2000 {
        by_size.exchange(&large, &sample::clock());
    }
    assert_eq!(drain(by_size, LONG).await.traces.exported, 2000);
    let requests = receiver.received();
    assert!(requests.len() > 2 && requests.iter().all(|r| r.body.len() < 4 << 20));
}

#[tokio::test]
async fn processes_have_their_own_resource() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut pipeline = pipeline(&config(&receiver));
    for (id, name) in [(1, "a"), (2, "b"), (1, "a"), (1, "c")] {
        let mut e = sample::exchange(Side::Server);
        e.process = Arc::new(sample::process(id, name));
        pipeline.exchange(&e, &sample::clock());
    }
    assert_eq!(drain(pipeline, LONG).await.traces.exported, 4);
    let mut names = Vec::new();
    for request in receiver.received() {
        for r in request.traces().resource_spans {
            let name =
                r.resource.unwrap().attributes.into_iter().find(|a| a.key == "service.name").unwrap().value.unwrap();
            names.push((format!("{name:?}").contains("\"a\""), r.scope_spans[0].spans.len()));
        }
    }
    assert_eq!(names, [(true, 2), (false, 1), (false, 1)], "an id that names another program is another resource");
}

#[tokio::test]
async fn what_is_not_wanted_is_not_sent() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver);
    config.sampler = spantap_config::Sampler::AlwaysOff;
    let mut pipeline = pipeline(&config);
    report(&mut pipeline, 2);
    let mut unwanted = sample::exchange(Side::Client);
    unwanted.process = Arc::new(spantap::model::Process { export_traces: false, ..sample::process(3, "x") });
    pipeline.exchange(&unwanted, &sample::clock());
    let summary = drain(pipeline, LONG).await;
    assert_eq!((summary.unsampled, summary.unwanted, summary.traces.accepted), (2, 1, 0));
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn rejected_bodies_say_why() {
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    let body = Status { message: "no tenant".into() }.encode_to_vec();
    let no = || Step::Answer(401, "", body.clone());
    let receiver = Receiver::start(vec![no(), no(), no(), no(), ok()]).await;
    let mut pipeline = pipeline(&config(&receiver));
    report(&mut pipeline, 1);
    ticking(&mut pipeline, "refused", |p| p.telemetry().traces.refusal().is_some()).await;
    assert_eq!(pipeline.telemetry().traces.refusal().as_deref(), Some("status 401: no tenant"));
    assert!(pipeline.telemetry().not_ready().iter().any(|r| r.contains("no tenant")));
    report(&mut pipeline, 1);
    ticking(&mut pipeline, "taken again", |p| p.telemetry().traces.refusal().is_none()).await;
    drain(pipeline, LONG).await;
}
