#![allow(clippy::unwrap_used)]
use bytes::Bytes;

use super::*;
use crate::{
    exchange::Exchange,
    loss::Losses,
    observation::{Observation, Rules},
    resource::ResourceBuilder,
    sample,
};

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
            registry: Registry::new(&[0.1, 1.0], Duration::from_secs(60), telemetry.clone()),
            resource: Arc::new(ResourceBuilder::new(&sample::config()).process(&sample::process(1, "shop"))),
            telemetry,
            rules: Rules::default(),
        }
    }

    fn record(&mut self, key: u64, exchange: &Exchange) {
        let seen = Observation::new(exchange, sample::clock(), &self.rules);
        self.registry.record(
            ProcessKey(key),
            &self.resource,
            SeriesRef::of(&seen),
            seen.start,
            seen.duration().as_secs_f64(),
        );
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
    assert_eq!((p.server.len(), p.client.len()), (2, 1));
    assert_eq!(p.server.series.values().map(Histogram::count).max(), Some(2));
}

#[test]
fn overflow_loses_nothing() {
    let mut f = Fixture::new();
    for n in 0..SERIES_LIMIT + 5 {
        f.record(1, &to_host(format!("h{n}")));
    }
    f.record(1, &to_host("h0".into()));
    let p = f.registry.processes().next().unwrap();
    assert_eq!(p.client.series.len(), SERIES_LIMIT);
    let overflow = p.client.overflow.as_ref().unwrap().count();
    let counted: u64 = p.client.series.values().map(Histogram::count).sum();
    assert_eq!((overflow, counted), (5, SERIES_LIMIT as u64 + 1));
    assert_eq!(f.telemetry.metric_overflow.get(), 5);
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
    assert_eq!(gone.first().map(|p| p.server.series.values().map(Histogram::count).sum()), Some(2));
    assert_eq!(f.registry.len(), 1);
}

#[test]
fn room_is_made_of_what_was_exported() {
    let mut f = Fixture::new();
    f.registry.limit = 8;
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
