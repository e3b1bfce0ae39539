#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use spantap_config::{Attributes, Feature, Features};

use super::*;
use crate::{
    exchange::Exchange,
    loss::Losses,
    metric::{plan::Bounds, point::Data},
    observation::{Observation, Rules},
    resource::ResourceBuilder,
    sample,
};

fn plan(features: &[Feature]) -> Plan {
    let sizes = &[0.0, 1024.0];
    let bounds = Bounds { duration: &[0.1, 1.0], request_size: sizes, response_size: sizes };
    Plan::new(Features::of(features), &Attributes::default(), bounds)
}

/// The series of one metric of a process.
fn metric<'a>(registry: &'a Registry, process: &'a ProcessSeries, name: &str) -> &'a MetricSeries {
    process.metrics(registry.plan()).find(|(active, _)| active.instrument.name == name).unwrap().1
}

fn count(data: &Data) -> u64 {
    match data {
        Data::Histogram(histogram) => histogram.count(),
        Data::Number(_) => panic!("not a histogram"),
    }
}

const SERVER: &str = "http.server.request.duration";
const CLIENT: &str = "http.client.request.duration";

struct Fixture {
    registry: Registry,
    resource: Arc<Resource>,
    telemetry: Arc<Telemetry>,
    rules: Rules,
}

impl Fixture {
    fn new() -> Self {
        let telemetry = Arc::new(Telemetry::new(Arc::new(Losses::default())));
        Self {
            registry: Registry::new(
                Arc::new(plan(&[Feature::Application])),
                Duration::from_secs(60),
                telemetry.clone(),
            ),
            resource: Arc::new(ResourceBuilder::new(&sample::config()).process(&sample::process(1, "shop"))),
            telemetry,
            rules: Rules::default(),
        }
    }

    fn record(&mut self, key: u64, exchange: &Exchange) {
        let seen = Observation::new(exchange, sample::clock(), &self.rules);
        self.registry.record(ProcessKey(key), &self.resource, &seen, None);
    }
}

fn to_host(host: String) -> Exchange {
    let mut e = sample::exchange(Side::Client);
    e.request.headers.host = Some(Bytes::from(host));
    e
}

#[test]
fn series_are_told_apart_by_their_attributes_alone() {
    let mut f = Fixture::new();
    let plain = sample::exchange(Side::Server);
    f.record(1, &plain);
    let mut same = plain.clone();
    same.request.target = Bytes::from_static(b"/elsewhere");
    same.request.headers.host = Some(Bytes::from_static(b"other"));
    f.record(1, &same);
    let mut other = plain.clone();
    other.response.as_mut().unwrap().status = 201;
    f.record(1, &other);
    f.record(1, &sample::exchange(Side::Client));
    let p = f.registry.processes().next().unwrap();
    let (server, client) = (metric(&f.registry, p, SERVER), metric(&f.registry, p, CLIENT));
    assert_eq!((server.len(), client.len()), (2, 1));
    assert_eq!(server.series.values().map(count).max(), Some(2));
}

#[test]
fn overflow_loses_nothing() {
    let mut f = Fixture::new();
    for n in 0..SERIES_LIMIT + 5 {
        f.record(1, &to_host(format!("h{n}")));
    }
    f.record(1, &to_host("h0".into()));
    let p = f.registry.processes().next().unwrap();
    let client = metric(&f.registry, p, CLIENT);
    assert_eq!(client.series.len(), SERIES_LIMIT);
    let overflow = count(client.overflow.as_ref().unwrap());
    let counted: u64 = client.series.values().map(count).sum();
    assert_eq!((overflow, counted), (5, SERIES_LIMIT as u64 + 1));
    assert_eq!(f.telemetry.metric_overflow.get(), 3 * 5, "each of the three metrics of clients");
}

#[test]
fn ended_processes_expire() {
    let mut f = Fixture::new();
    let start = Instant::now();
    f.record(1, &sample::exchange(Side::Server));
    f.record(2, &sample::exchange(Side::Server));
    f.registry.end(ProcessKey(1), start);
    f.registry.end(ProcessKey(1), start + Duration::from_secs(50));
    f.registry.end(ProcessKey(7), start);
    f.record(1, &sample::exchange(Side::Server));
    assert!(f.registry.take_expired(start + Duration::from_secs(59)).is_empty());
    let gone = f.registry.take_expired(start + Duration::from_secs(60));
    assert_eq!(gone.len(), 1);
    let gone = gone.first().unwrap();
    assert_eq!(metric(&f.registry, gone, SERVER).series.values().map(count).sum::<u64>(), 2);
    assert_eq!(f.registry.len(), 1);
}

#[test]
fn room_is_made_of_what_was_exported() {
    let mut f = Fixture::new();
    f.registry.held.limits.0 = 8;
    for key in 0..6 {
        f.record(key, &sample::exchange(Side::Server));
        f.registry.end(ProcessKey(key), Instant::now());
    }
    assert!(f.registry.is_crowded());
    f.registry.make_room();
    assert_eq!(f.registry.len(), 6, "nothing was exported yet");
    f.registry.processes_mut().for_each(|p| p.exported = true);
    f.registry.make_room();
    assert_eq!((f.registry.len(), f.telemetry.metric_evicted.get()), (2, 4));
    for key in 10..30 {
        f.record(key, &sample::exchange(Side::Server));
    }
    assert_eq!(f.registry.len(), 8, "bounded even if no process ends");
}

#[test]
fn room_is_bounded_by_what_is_known_of_processes_too() {
    let mut f = Fixture::new();
    f.registry.held.limits.1 = 8 * f.resource.bytes();
    for key in 0..30 {
        f.record(key, &sample::exchange(Side::Server));
        if key < 4 {
            f.registry.end(ProcessKey(key), Instant::now());
        }
    }
    assert_eq!((f.registry.len(), f.telemetry.metric_evicted.get()), (8, 22));
    f.registry.keys().into_iter().for_each(|key| f.registry.end(key, Instant::now()));
    f.registry.processes_mut().for_each(|p| p.exported = true);
    assert!(f.registry.is_crowded());
    f.registry.make_room();
    assert_eq!(f.registry.len(), 2);
    f.registry.take_expired(Instant::now() + Duration::from_secs(3600));
    f.record(99, &sample::exchange(Side::Server));
    assert!(!f.registry.is_crowded(), "what has gone takes no room");
}
