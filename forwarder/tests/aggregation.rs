//! Metrics by OTLP as differences, as exponential histograms and with exemplars, through the whole pipeline.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric, exponential_histogram_data_point::Buckets, metric::Data,
};
use receiver::{Received, Receiver, Step, ok, until};
use spantap::{exchange::Side, pipeline::Pipeline};
use spantap_config::{Aggregation, Config, ExemplarFilter, Histograms, Temporality};
use tokio::time::Instant;

fn config(receiver: &Receiver, aggregation: Aggregation) -> Config {
    let mut metrics = sample::otlp_metrics(receiver.url("/v1/metrics"));
    (metrics.interval, metrics.aggregation) = (Duration::from_millis(20), aggregation);
    Config { metrics: Some(metrics), ..sample::config() }
}

fn report(pipeline: &mut Pipeline, n: usize) {
    for _ in 0..n {
        pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn metrics(request: &Received, name: &str) -> Vec<Metric> {
    let all = request.metrics().resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    all.filter(|m| m.name == name).collect()
}

fn durations(request: &Received) -> Vec<(AggregationTemporality, HistogramDataPoint)> {
    let all = metrics(request, "http.server.request.duration").into_iter().flat_map(|m| match m.data {
        Some(Data::Histogram(h)) => {
            let temporality = h.aggregation_temporality();
            h.data_points.into_iter().map(move |p| (temporality, p)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    });
    all.collect()
}

const DELTA: Aggregation = Aggregation {
    temporality: Temporality::Delta,
    histograms: Histograms::Explicit,
    exemplars: ExemplarFilter::TraceBased,
};

#[tokio::test]
async fn differences_add_up_though_exports_fail() {
    let unavailable = || Step::Answer(503, "", vec![]);
    let receiver = Receiver::start(vec![ok(), unavailable(), unavailable(), ok()]).await;
    let mut pipeline = Pipeline::new(&config(&receiver, DELTA), Arc::default()).unwrap();
    let mut reported = 0;
    for n in [3, 1, 4, 1, 5] {
        report(&mut pipeline, n);
        reported += n as u64;
        // Several collections, most of them without a change.
        let end = Instant::now() + Duration::from_millis(90);
        until("some collections", || {
            pipeline.tick();
            Instant::now() > end
        })
        .await;
    }
    let summary = pipeline.drain(soon()).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary:?}");
    assert_eq!(summary.metrics.superseded, 0, "each difference is told");

    let requests = receiver.received();
    // The refused ones came again: what was taken is what counts.
    let refused = requests.len() - 2;
    let mut bodies: Vec<&Received> = vec![&requests[0]];
    bodies.extend(requests.iter().skip(3));
    assert!(requests[1].body == requests[2].body && requests[2].body == requests[3].body && refused > 0);
    let points: Vec<_> = bodies.iter().flat_map(|r| durations(r)).collect();
    assert_eq!(points.iter().map(|(_, p)| p.count).sum::<u64>(), reported);
    assert_eq!(points.len(), 5, "none without a change");
    assert!(points.iter().all(|(t, _)| *t == AggregationTemporality::Delta));
    assert!(points.iter().all(|(_, p)| p.start_time_unix_nano < p.time_unix_nano));
    assert!(points.windows(2).all(|w| w[0].1.time_unix_nano <= w[1].1.start_time_unix_nano), "no overlap");

    // All collections join without a gap: those of the program itself are in each of them.
    let windows: Vec<(u64, u64)> = bodies
        .iter()
        .flat_map(|r| metrics(r, "spantap.agent.connected"))
        .flat_map(|m| match m.data {
            Some(Data::Gauge(g)) => g.data_points,
            other => panic!("{other:?}"),
        })
        .map(|p| (p.start_time_unix_nano, p.time_unix_nano))
        .collect();
    assert!(windows.len() > 5 && windows.windows(2).all(|w| w[0].1 == w[1].0), "{windows:?}");
    let exchanges: i64 = bodies
        .iter()
        .flat_map(|r| metrics(r, "spantap.exchanges"))
        .flat_map(|m| match m.data {
            Some(Data::Sum(s)) => s.data_points,
            other => panic!("{other:?}"),
        })
        .map(|p| match p.value {
            Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(n)) => n,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(exchanges, reported as i64);
}

#[tokio::test]
async fn low_memory_is_delta_for_histograms_and_cumulative_for_what_is_observed() {
    let receiver = Receiver::start(vec![ok()]).await;
    let how = Aggregation { temporality: Temporality::LowMemory, ..DELTA };
    let mut pipeline = Pipeline::new(&config(&receiver, how), Arc::default()).unwrap();
    report(&mut pipeline, 2);
    pipeline.drain(soon()).await;
    let requests = receiver.received();
    assert_eq!(durations(&requests[0])[0].0, AggregationTemporality::Delta);
    let Some(Data::Sum(own)) = &metrics(&requests[0], "spantap.exchanges")[0].data else { panic!() };
    assert_eq!(own.aggregation_temporality(), AggregationTemporality::Cumulative);
}

#[tokio::test]
async fn exponential_histograms() {
    let receiver = Receiver::start(vec![ok()]).await;
    let how =
        Aggregation { histograms: Histograms::Exponential { max_scale: 20, max_size: 160 }, ..Default::default() };
    let mut pipeline = Pipeline::new(&config(&receiver, how), Arc::default()).unwrap();
    report(&mut pipeline, 3);
    pipeline.drain(soon()).await;
    let requests = receiver.received();
    let of = metrics(requests.last().unwrap(), "http.server.request.duration");
    let Some(Data::ExponentialHistogram(histogram)) = &of[0].data else { panic!("{of:?}") };
    assert_eq!(histogram.aggregation_temporality(), AggregationTemporality::Cumulative);
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.scale, point.zero_count), (3, 20, 0));
    assert_eq!((point.min, point.max), (Some(0.003), Some(0.003)));
    assert!((point.sum.unwrap() - 0.009).abs() < 1e-12);
    let Some(Buckets { offset, bucket_counts }) = &point.positive else { panic!() };
    assert_eq!(bucket_counts, &[3]);
    let base = (2f64).powf((2f64).powi(-20));
    let (low, high) = (base.powi(*offset), base.powi(offset + 1));
    assert!(low < 0.003 * (1.0 + 1e-9) && 0.003 <= high * (1.0 + 1e-9), "{low} {high}");
    assert!(!point.attributes.is_empty() && point.start_time_unix_nano < point.time_unix_nano);
}

#[tokio::test]
async fn exemplars_name_spans_that_are_kept() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut config = config(&receiver, Aggregation::default());
    config.metrics.as_mut().unwrap().interval = Duration::from_secs(60);
    config.traces = Some(sample::otlp_traces(receiver.url("/v1/traces")));
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    report(&mut pipeline, 2);
    let mut unsampled = sample::exchange(Side::Server);
    unsampled.request.headers.traceparent = vec!["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()];
    pipeline.exchange(&unsampled, &sample::clock());
    pipeline.drain(soon()).await;
    let requests = receiver.received();
    let traces = requests.iter().find(|r| r.path == "/v1/traces").unwrap().traces();
    let spans = &traces.resource_spans[0].scope_spans[0].spans;
    let of = durations(requests.iter().find(|r| r.path == "/v1/metrics").unwrap());
    let point = &of[0].1;
    assert_eq!((point.count, spans.len(), point.exemplars.len()), (3, 2, 1), "the latest of its bucket");
    let (exemplar, span) = (&point.exemplars[0], &spans[1]);
    assert_eq!((&exemplar.trace_id, &exemplar.span_id), (&span.trace_id, &span.span_id));
    assert_eq!(exemplar.time_unix_nano, span.end_time_unix_nano);
    assert_eq!(format!("{:?}", exemplar.value), "Some(AsDouble(0.003))");

    // Without a destination of traces there is no span to name.
    for (filter, want) in
        [(ExemplarFilter::TraceBased, 0), (ExemplarFilter::AlwaysOn, 1), (ExemplarFilter::AlwaysOff, 0)]
    {
        let receiver = Receiver::start(vec![ok()]).await;
        let config = self::config(&receiver, Aggregation { exemplars: filter, ..Default::default() });
        let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
        report(&mut pipeline, 2);
        pipeline.drain(soon()).await;
        let exemplars = durations(&receiver.received()[0])[0].1.exemplars.clone();
        assert_eq!(exemplars.len(), want, "{filter:?}");
        assert!(exemplars.iter().all(|e| e.trace_id.is_empty() && e.span_id.is_empty()));
    }
}
