//! A destination that is away and comes back: the pipeline with its real spool, worker and HTTP client against a scripted
//! receiver. What was reported arrives, over stops, and the books add up in each run.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/drive.rs"]
mod drive;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use drive::{drain, ticking};
use receiver::{Receiver, Step, ok, until};
use spantap::{
    exchange::Side,
    loss::Reason,
    pipeline::{Pipeline, StartError},
};
use spantap_config::{Config, Spool};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(30);

fn config(receiver: &Receiver, folder: &Path) -> Config {
    let mut traces = sample::otlp_traces(receiver.url("/v1/traces"));
    (traces.queue_size, traces.batch_max_size) = (100, 10);
    let spool = Spool { path: folder.join("spool"), max_bytes: 64 << 20, max_age: Duration::from_secs(3600) };
    Config { traces: Some(traces), spool: Some(spool), ..sample::config() }
}

fn start(config: &Config) -> Pipeline {
    Pipeline::new(config, Arc::default()).unwrap()
}

/// Reports exchanges for `/prefix/N`.
fn report(pipeline: &mut Pipeline, prefix: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let mut exchange = sample::exchange(Side::Server);
        exchange.request.target = format!("/{prefix}/{n}").into();
        pipeline.exchange(&exchange, &sample::clock());
    }
}

/// Paths of all spans, request by request.
fn requests(receiver: &Receiver) -> Vec<Vec<String>> {
    let of = |received: &receiver::Received| -> Vec<String> {
        let spans = received.traces().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        let path = |span: opentelemetry_proto::tonic::trace::v1::Span| {
            let value =
                span.attributes.into_iter().find(|a| a.key == "url.path").unwrap().value.unwrap().value.unwrap();
            let opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(path) = value else { panic!() };
            path
        };
        spans.map(path).collect()
    };
    receiver.received().iter().map(of).collect()
}

fn arrived(receiver: &Receiver) -> HashSet<String> {
    requests(receiver).into_iter().flatten().collect()
}

/// Leaves `n` spans for `/old/N` in the spool, as a run does whose destination is away.
async fn leave(receiver: &Receiver, config: &Config, n: usize) {
    receiver.behave(vec![Step::Close]);
    let mut pipeline = start(config);
    report(&mut pipeline, "old", 0..n);
    let summary = drain(pipeline, LONG).await;
    assert_eq!((summary.traces.spooled, summary.losses.len()), (n as u64, 0), "{summary}");
}

#[tokio::test]
async fn nothing_is_missing_after_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let mut pipeline = start(&config(&receiver, folder.path()));
    // Ten times of what the queue holds, without a pause.
    report(&mut pipeline, "a", 0..1000);
    let books = pipeline.telemetry().traces.clone();
    ticking(&mut pipeline, "all but the one on its way in the spool", |_| books.spool_items.get() >= 900).await;
    // What comes while it is away goes there at once.
    ticking(&mut pipeline, "away", |_| books.spool_items.get() == 1000).await;
    report(&mut pipeline, "b", 0..5);
    ticking(&mut pipeline, "spooled at once", |_| books.spool_items.get() == 1005).await;
    assert_eq!((books.queued.get(), books.imbalance()), (0, 0));
    receiver.behave(vec![ok()]);
    ticking(&mut pipeline, "the spool is empty", |_| books.spool_items.get() == 0).await;
    let summary = drain(pipeline, LONG).await;
    assert_eq!((summary.traces.exported, summary.traces.spooled, summary.losses.len()), (1005, 0, 0), "{summary}");
    assert_eq!(arrived(&receiver).len(), 1005);
    assert!(std::fs::read_dir(folder.path().join("spool/traces")).unwrap().count() == 1, "the position alone is left");
}

#[tokio::test]
async fn a_stop_leaves_in_the_spool_and_the_next_start_sends() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let config = config(&receiver, folder.path());
    leave(&receiver, &config, 95).await;
    // A destination that does not even answer holds up no stop.
    receiver.behave(vec![Step::Hang]);
    let mut second = start(&config);
    assert_eq!(second.telemetry().traces.recovered.get(), 95);
    report(&mut second, "new", 0..7);
    let began = Instant::now();
    let summary = drain(second, Duration::from_secs(600)).await;
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!((summary.traces.recovered, summary.traces.spooled, summary.losses.len()), (95, 102, 0), "{summary}");
    receiver.behave(vec![ok()]);
    let before = requests(&receiver).len();
    let mut third = start(&config);
    let books = third.telemetry().traces.clone();
    ticking(&mut third, "all sent", |_| books.exported.get() == 102).await;
    let summary = drain(third, LONG).await;
    assert_eq!((summary.traces.accepted, summary.traces.recovered, summary.traces.spooled), (0, 102, 0), "{summary}");
    let expected: Vec<String> =
        (0..95).map(|n| format!("/old/{n}")).chain((0..7).map(|n| format!("/new/{n}"))).collect();
    assert_eq!(requests(&receiver).split_off(before).concat(), expected, "in order, each once");
}

#[tokio::test]
async fn fresh_data_waits_for_one_request_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let config = config(&receiver, folder.path());
    leave(&receiver, &config, 90).await;
    receiver.behave(vec![ok()]);
    let before = requests(&receiver).len();
    let mut pipeline = start(&config);
    report(&mut pipeline, "fresh", 0..30);
    let books = pipeline.telemetry().traces.clone();
    ticking(&mut pipeline, "all sent", |_| books.exported.get() == 120).await;
    let order = requests(&receiver).split_off(before);
    let places: Vec<usize> = (0..order.len()).filter(|at| order[*at][0].starts_with("/fresh")).collect();
    assert!(places.len() == 3 && places[2] <= 6, "{places:?} of {}", order.len());
    let old: Vec<&String> = order.iter().flatten().filter(|path| path.starts_with("/old")).collect();
    assert_eq!(old, (0..90).map(|n| format!("/old/{n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    drain(pipeline, LONG).await;
}

#[tokio::test]
async fn what_is_refused_is_lost_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let config = config(&receiver, folder.path());
    leave(&receiver, &config, 30).await;
    // ExportTraceServiceResponse{partial_success{rejected_spans: 2}}
    receiver.behave(vec![
        Step::Answer(400, "", vec![]),
        Step::Answer(503, "", vec![]),
        Step::Answer(200, "", b"\x0a\x02\x08\x02".to_vec()),
        ok(),
    ]);
    let mut pipeline = start(&config);
    let books = pipeline.telemetry().traces.clone();
    ticking(&mut pipeline, "the spool is empty", |_| books.spool_items.get() == 0).await;
    let summary = drain(pipeline, LONG).await;
    let lost = |reason| summary.losses.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n);
    assert_eq!((summary.traces.exported, lost(Reason::ExportRefused), lost(Reason::ExportPartial)), (18, 10, 2));
}

/// Neither destination waits for the other, whichever hangs, with the spool at work.
#[tokio::test]
async fn one_slow_destination_never_delays_the_other() {
    for traces_hang in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (Receiver::start(vec![ok()]).await, Receiver::start(vec![Step::Hang]).await);
        let (to_traces, to_metrics) = if traces_hang { (&bad, &good) } else { (&good, &bad) };
        let mut config = config(to_traces, folder.path());
        config.metrics = Some(sample::otlp_metrics(to_metrics.url("/v1/metrics")));
        config.metrics.as_mut().unwrap().interval = Duration::from_millis(20);
        let hanging = if traces_hang {
            &mut config.traces.as_mut().unwrap().otlp
        } else {
            &mut config.metrics.as_mut().unwrap().otlp
        };
        hanging.timeout = Duration::from_secs(60);
        let mut pipeline = start(&config);
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            report(&mut pipeline, "more", 0..100);
            let (before, since) = (good.received().len(), Instant::now());
            ticking(&mut pipeline, "another request", |_| good.received().len() > before).await;
            worst = worst.max(since.elapsed());
        }
        // Shorter than the one that hangs is waited for.
        assert!(worst < Duration::from_secs(30), "{worst:?}");
        let summary = drain(pipeline, Duration::from_secs(2)).await;
        assert!(summary.losses.is_empty(), "{summary}");
        assert_eq!(summary.traces.spooled > 0, traces_hang);
        assert_eq!(summary.metrics.spooled > 0, !traces_hang, "the last collection is kept");
    }
}

#[tokio::test]
async fn the_last_metrics_of_a_run_arrive_before_those_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let mut config = config(&receiver, folder.path());
    config.traces = None;
    config.metrics = Some(sample::otlp_metrics(receiver.url("/v1/metrics")));
    let mut pipeline = start(&config);
    report(&mut pipeline, "m", 0..3);
    let summary = drain(pipeline, LONG).await;
    assert!(summary.metrics.spooled > 0 && summary.losses.is_empty(), "{summary}");
    receiver.behave(vec![ok()]);
    let before = receiver.received().len();
    let pipeline = start(&config);
    let books = pipeline.telemetry().metrics.clone();
    until("sent", || books.spool_items.get() == 0).await;
    drain(pipeline, LONG).await;
    let times: Vec<u64> = receiver.received()[before..]
        .iter()
        .map(|request| {
            let text = format!("{:?}", request.metrics());
            let times = text.split(" time_unix_nano: ").skip(1);
            times.filter_map(|rest| rest.split([',', ' ']).next()?.parse::<u64>().ok()).max().unwrap()
        })
        .collect();
    assert!(times.len() == 2 && times[0] < times[1], "{times:?}");
}

#[tokio::test]
async fn a_disk_that_fails_leaves_it_to_memory() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Step::Close]).await;
    let mut pipeline = start(&config(&receiver, folder.path()));
    std::fs::remove_dir_all(folder.path().join("spool/traces")).unwrap();
    report(&mut pipeline, "m", 0..80);
    let books = pipeline.telemetry().traces.clone();
    ticking(&mut pipeline, "noticed", |_| books.spool_errors.get() > 0 && books.spooling.get() == 0).await;
    assert_eq!((books.waiting(), books.spool_items.get(), books.imbalance()), (80, 0, 0));
    // Memory has its bound as ever.
    report(&mut pipeline, "n", 0..100);
    pipeline.tick();
    receiver.behave(vec![ok()]);
    ticking(&mut pipeline, "sent from memory", |_| books.waiting() == 0).await;
    let summary = drain(pipeline, LONG).await;
    let lost: u64 = summary.losses.iter().map(|(_, n)| n).sum();
    assert_eq!(summary.traces.exported + lost, 180, "{summary}");
    assert!((0..80).all(|n| arrived(&receiver).contains(&format!("/m/{n}"))), "{summary}");
}

#[tokio::test]
async fn two_on_one_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![ok()]).await;
    let config = config(&receiver, folder.path());
    let first = start(&config);
    let Err(StartError::Spool(error)) = Pipeline::new(&config, Arc::default()) else { panic!("taken twice") };
    assert!(error.to_string().contains("another spantap keeps its spool in"), "{error}");
    drain(first, LONG).await;
    drain(start(&config), LONG).await;
}
