//! Every name that Spantap sends is one of the OpenTelemetry semantic conventions of the version that its schema URL names, with
//! their unit and instrument; or it is of a namespace of its own and documented; or Beyla and the Collector's connectors gave it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Metric, metric::Data},
};
use receiver::{Receiver, ok};
use spantap::{
    exchange::{Outcome, Side},
    metric::instrument::{INSTRUMENTS, Kind},
    pipeline::Pipeline,
    semconv,
};
use spantap_config::{Config, Feature, Features};
use tokio::time::Instant;

const TABLE: &str = include_str!("conventions.txt");
const SOURCE: &str = include_str!("../src/semconv.rs");
const REFERENCE: &str = include_str!("../../docs/telemetry.md");

/// Keys of span metrics and service graphs, which are Beyla's and those of the Collector's connectors.
const CONNECTORS: [&str; 9] = [
    "client",
    "client_service_namespace",
    "server",
    "server_service_namespace",
    "grafana.host.id",
    "source",
    "span.kind",
    "span.name",
    "status.code",
];
/// Of the specification of the SDK: it marks the series that takes what exceeds the limit.
const SPECIFICATION: &str = "otel.metric.overflow";
/// In the conventions, but not for what Spantap knows: the number that a runtime gives to a thread, not the system's.
const OF_RUNTIMES: [&str; 2] = ["thread.id", "thread.name"];

/// What the conventions say of a name: stability; of metrics also instrument and unit.
fn table(kind: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    lines.filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name, rest.split(' ').collect())).collect()
}

/// Why a key must not be sent; `None` if it may.
fn objection(key: &str) -> Option<String> {
    let documented = |name: &str| REFERENCE.contains(&format!("`{name}`"));
    if key.starts_with("spantap.") {
        return (!documented(key)).then(|| format!("{key} is not documented"));
    }
    if CONNECTORS.contains(&key) || key == SPECIFICATION {
        return None;
    }
    // A template: the name of a field follows.
    let key = ["http.request.header", "http.response.header"]
        .into_iter()
        .find(|template| key.strip_prefix(template).is_some_and(|rest| rest.starts_with('.')))
        .unwrap_or(key);
    match table("attribute").get(key).map(Vec::as_slice) {
        None => Some(format!("{key} is not in the conventions")),
        Some(["deprecated"]) => Some(format!("{key} is deprecated")),
        Some(_) if OF_RUNTIMES.contains(&key) => Some(format!("{key} is not for threads of the system")),
        Some(_) => None,
    }
}

#[test]
fn the_table_is_of_the_version_that_is_claimed() {
    let version = semconv::SCHEMA_URL.rsplit('/').next().unwrap();
    assert!(TABLE.starts_with(&format!("# OpenTelemetry semantic conventions {version}: ")), "tools/conventions.py");
    assert!(table("attribute").len() > 100 && table("metric").len() > 20);
    assert!(
        ["http.method", "thread.id", "http.request.methods", "spantap.unknown"].iter().all(|k| objection(k).is_some())
    );
}

#[test]
fn keys() {
    let keys: Vec<&str> = SOURCE
        .split("pub const ")
        .filter_map(|rest| rest.split_once(": &str = \"")?.1.split('"').next())
        .filter(|text| !text.contains('/') && *text != semconv::SCOPE_NAME)
        .collect();
    assert!(keys.len() > 50, "{keys:?}");
    let objections: Vec<String> = keys.into_iter().filter_map(objection).collect();
    assert!(objections.is_empty(), "{objections:#?}");
}

#[test]
fn instruments() {
    let table = table("metric");
    for instrument in &INSTRUMENTS {
        let name = instrument.name;
        assert!(REFERENCE.contains(&format!("`{name}`")), "{name} is not documented");
        if name.starts_with("traces") {
            continue;
        }
        let kind = match instrument.kind {
            Kind::Histogram => "histogram",
            Kind::Counter => "counter",
            Kind::UpDownCounter => "updowncounter",
            Kind::Gauge => "gauge",
        };
        let row = table.get(name).unwrap_or_else(|| panic!("{name} is not in the conventions"));
        assert_ne!(row[0], "deprecated", "{name}");
        assert_eq!(row[1..], [kind, instrument.unit], "{name}");
    }
}

/// Keys of everything that one run sends, with all groups of metrics on.
#[tokio::test]
async fn what_is_sent() {
    let receiver = Receiver::start(vec![ok()]).await;
    let mut metrics = sample::otlp_metrics(receiver.url("/v1/metrics"));
    metrics.features = Features::of(&Feature::ALL.map(|f| if f == Feature::Span { Feature::Application } else { f }));
    let config = Config {
        traces: Some(sample::otlp_traces(receiver.url("/v1/traces"))),
        metrics: Some(metrics),
        ..sample::config()
    };
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    for (side, outcome, status) in [
        (Side::Server, Outcome::Complete, 200),
        (Side::Server, Outcome::Complete, 500),
        (Side::Client, Outcome::Complete, 404),
        (Side::Client, Outcome::Complete, 200),
    ] {
        let mut exchange = sample::exchange(side);
        exchange.outcome = outcome;
        exchange.request.method = if status == 500 { "PURGE".into() } else { exchange.request.method };
        exchange.response.as_mut().unwrap().status = status;
        pipeline.exchange(&exchange, &sample::clock());
    }
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(30)).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary}");
    let (mut keys, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut note = |attributes: &[KeyValue]| keys.extend(attributes.iter().map(|a| a.key.clone()));
    for request in receiver.received() {
        if request.path == "/v1/traces" {
            for group in request.traces().resource_spans {
                assert_eq!(group.schema_url, semconv::SCHEMA_URL);
                note(&group.resource.unwrap().attributes);
                group.scope_spans.iter().flat_map(|scope| &scope.spans).for_each(|span| note(&span.attributes));
            }
            continue;
        }
        for group in request.metrics().resource_metrics {
            assert_eq!(group.schema_url, semconv::SCHEMA_URL);
            note(&group.resource.unwrap().attributes);
            for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                names.insert(metric.name.clone());
                let own = metric.name.starts_with("spantap.");
                for key in point_keys(metric) {
                    let documented = REFERENCE.contains(&format!("`{key}`"));
                    let objection =
                        if own { (!documented).then(|| format!("{key} is unknown")) } else { objection(&key) };
                    assert_eq!(objection, None, "{}", metric.name);
                }
            }
        }
    }
    let objections: Vec<String> = keys.iter().filter_map(|key| objection(key)).collect();
    assert!(objections.is_empty(), "{objections:#?}");
    assert!(keys.len() > 25 && keys.contains("http.request.method_original"), "{keys:?}");
    assert!(names.len() > 20 && names.contains("traces.span.metrics.duration"), "{names:?}");
}

fn point_keys(metric: &Metric) -> Vec<String> {
    let keys = |attributes: &[KeyValue]| attributes.iter().map(|a| a.key.clone()).collect::<Vec<_>>();
    match metric.data.as_ref().unwrap() {
        Data::Histogram(data) => data.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::ExponentialHistogram(data) => data.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::Sum(data) => data.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::Gauge(data) => data.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::Summary(_) => panic!("{} is a summary", metric.name),
    }
}
