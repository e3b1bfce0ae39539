//! Requests on their way at once: one that is not answered holds up no other, trouble is met one at a time, and a spool keeps its
//! order.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/drive.rs"]
mod drive;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use drive::{report, ticking};
use receiver::{Receiver, Step, ok};
use spantap::{loss::Reason, pipeline::Pipeline, telemetry::destination::Destination};
use spantap_config::{Config, OtlpTraces};
use tokio::time::Instant;

/// Requests of ten spans; an answer is waited for longer than any test takes.
fn traces(receiver: &Receiver) -> OtlpTraces {
    let mut traces = sample::otlp_traces(receiver.url("/v1/traces"));
    (traces.queue_size, traces.batch_max_size) = (200, 10);
    traces.otlp.timeout = Duration::from_secs(120);
    traces
}

fn start(traces: OtlpTraces) -> Pipeline {
    Pipeline::new(&Config { traces: Some(traces), ..sample::config() }, Arc::default()).unwrap()
}

/// Has told ten exchanges to a destination that answers well, so that more than one request may be on its way.
async fn well(receiver: &Receiver) -> (Pipeline, Arc<Destination>) {
    let mut pipeline = start(traces(receiver));
    let books = pipeline.telemetry().traces.clone();
    report(&mut pipeline, 10);
    ticking(&mut pipeline, "the destination is well", |_| books.exported.get() == 10).await;
    (pipeline, books)
}

#[tokio::test]
async fn one_without_an_answer_holds_up_no_other() {
    let receiver = Receiver::start(vec![ok(), Step::Hang, ok()]).await;
    let (mut pipeline, books) = well(&receiver).await;
    report(&mut pipeline, 100);
    ticking(&mut pipeline, "all others", |_| books.exported.get() == 100).await;
    assert_eq!((books.queued.get(), books.imbalance()), (10, 0), "one is on its way");
    // A stop waits for it as long as it may, and counts it.
    let summary = pipeline.drain(Instant::now() + Duration::from_millis(300)).await;
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.losses, [(Reason::ExportAtStop, 10)], "{summary}");
}

#[tokio::test]
async fn all_without_an_answer_are_counted_at_a_stop() {
    let receiver = Receiver::start(vec![ok(), Step::Hang]).await;
    let (mut pipeline, books) = well(&receiver).await;
    report(&mut pipeline, 100);
    ticking(&mut pipeline, "four on their way", |_| receiver.received().len() == 5).await;
    assert_eq!((books.queued.get(), books.imbalance()), (100, 0));
    let summary = pipeline.drain(Instant::now() + Duration::from_millis(300)).await;
    assert!(summary.adds_up() && receiver.received().len() == 5, "{summary}");
    assert_eq!(summary.losses, [(Reason::ExportAtStop, 100)], "{summary}");
}

/// The room of the queue counts what is on its way, in lanes or not.
#[tokio::test]
async fn lanes_make_no_more_room() {
    let receiver = Receiver::start(vec![ok(), Step::Hang]).await;
    let (mut pipeline, _) = well(&receiver).await;
    report(&mut pipeline, 100);
    ticking(&mut pipeline, "four on their way", |_| receiver.received().len() == 5).await;
    report(&mut pipeline, 150);
    pipeline.tick();
    let summary = pipeline.drain(Instant::now() + Duration::from_millis(300)).await;
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.losses, [(Reason::ExportQueueFull, 50), (Reason::ExportAtStop, 200)], "{summary}");
}

#[tokio::test]
async fn trouble_is_met_one_at_a_time() {
    let receiver = Receiver::start(vec![ok()]).await;
    let (mut pipeline, books) = well(&receiver).await;
    let busy = || Step::Answer(503, "", vec![]);
    receiver.behave([vec![Step::Close, busy(), busy(), busy(), busy(), busy(), Step::Garbage], vec![ok()]].concat());
    report(&mut pipeline, 100);
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(30)).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary}");
    assert_eq!((summary.traces.exported, books.queued.get()), (110, 0));
    let spans: usize = receiver.received().iter().map(receiver::Received::span_count).sum();
    // Those that were answered with an error were sent again, each once.
    assert_eq!(spans, 110 + 7 * 10);
}

#[tokio::test]
async fn what_a_lane_is_refused_is_lost_once() {
    let receiver = Receiver::start(vec![ok()]).await;
    let (mut pipeline, _) = well(&receiver).await;
    receiver.behave(vec![Step::Answer(400, "", vec![]); 3].into_iter().chain([ok()]).collect());
    report(&mut pipeline, 100);
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(30)).await;
    assert!(summary.adds_up(), "{summary}");
    assert_eq!((summary.traces.exported, receiver.received().len()), (80, 11), "nothing is sent again: {summary}");
    assert_eq!(summary.losses, [(Reason::ExportRefused, 30)], "{summary}");
}
