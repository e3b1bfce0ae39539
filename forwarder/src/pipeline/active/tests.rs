#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use spantap_config::{Config, ExcludeInstrumented, Feature, Features, Glob, Prometheus, Selection};

use super::*;
use crate::{
    exchange::{Exchange, Outcome},
    model::{ClockAnchor, ProcessRef},
    sample,
};

const METRIC: &str = "http.server.active_requests";

fn config() -> Config {
    Config { prometheus: Some(sample::prometheus()), ..sample::config() }
}

/// Of a pipeline that is scraped.
struct Fixture {
    pipeline: Pipeline,
    config: Config,
    process: ProcessRef,
    serial: u64,
}

impl Fixture {
    fn new(config: Config) -> Self {
        let pipeline = Pipeline::new(&config, Arc::default()).unwrap();
        Self { pipeline, config, process: Arc::new(sample::process(1, "shop")), serial: 0 }
    }

    fn exchange(&self, side: Side, method: &'static str, host: &str) -> Exchange {
        let mut exchange = sample::exchange(side);
        exchange.process = self.process.clone();
        exchange.request.method = Bytes::from_static(method.as_bytes());
        exchange.request.headers.host = Some(Bytes::copy_from_slice(host.as_bytes()));
        exchange
    }

    fn open_as(&mut self, side: Side, method: &'static str, host: &str) -> u64 {
        self.serial += 1;
        let Exchange { process, connection, tls, request, thread, start, .. } = self.exchange(side, method, host);
        self.pipeline.opened(&Opened {
            serial: self.serial,
            side,
            process: &process,
            connection: &connection,
            tls,
            thread,
            blocking: false,
            began: start,
            time: start,
            offset: 0,
            opposite: 0,
            request: &request,
        });
        self.serial
    }

    fn open(&mut self, method: &'static str) -> u64 {
        self.open_as(Side::Server, method, "shop.example:8080")
    }

    fn end(&mut self, serial: u64) {
        let exchange = Exchange { serial, outcome: Outcome::Complete, ..self.exchange(Side::Server, "GET", "h") };
        self.pipeline.ended(exchange, &ClockAnchor::default());
    }

    /// What the registries hold once they have been told at `now`, added up over processes.
    fn told_at(&mut self, now: Instant) -> BTreeMap<String, u64> {
        self.pipeline.tell_active(now);
        let mut out = BTreeMap::new();
        let Self { pipeline, .. } = self;
        let registry = lock(pipeline.registries.first().unwrap());
        for process in registry.processes() {
            for (active, of) in process.metrics(registry.plan()).filter(|(active, _)| active.instrument.name == METRIC)
            {
                for (key, data) in of.iter() {
                    let attributes = active.attributes(key, &pipeline.rules, &process.resource);
                    let text = |(_, value): &(&str, crate::value::Value<'_>)| value.to_string();
                    let crate::metric::point::Data::Number(number) = data else { panic!("{data:?}") };
                    let crate::metric::point::Amount::Int(value) = number.amount else { panic!("{number:?}") };
                    *out.entry(attributes.iter().map(text).collect::<Vec<_>>().join(" ")).or_default() += value;
                }
            }
        }
        out
    }

    fn told(&mut self) -> BTreeMap<String, u64> {
        self.told_at(Instant::now())
    }
}

fn numbers<const N: usize>(of: [(&str, u64); N]) -> BTreeMap<String, u64> {
    of.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[tokio::test]
async fn counts_what_is_open_and_nothing_else() {
    let mut of = Fixture::new(config());
    assert_eq!(of.told(), numbers([]));
    let serials: Vec<u64> = ["GET", "GET", "POST", "BREW"].map(|method| of.open(method)).into();
    of.open_as(Side::Client, "GET", "elsewhere");
    assert_eq!(of.told(), numbers([("GET http", 2), ("POST http", 1), ("_OTHER http", 1)]));
    let [first, second, third, fourth] = serials.try_into().unwrap();
    of.end(first);
    of.pipeline.abandoned(third);
    of.pipeline.doubted(fourth);
    assert_eq!(of.told(), numbers([("GET http", 1), ("POST http", 0), ("_OTHER http", 0)]));
    // Ends that are told twice, or of what was never counted.
    [first, third, fourth, 0, 999].into_iter().for_each(|serial| of.end(serial));
    of.end(second);
    assert_eq!(of.told(), numbers([("GET http", 0), ("POST http", 0), ("_OTHER http", 0)]));
    // One that was over before it was told is a series all the same: it says 0.
    let short = of.open("PUT");
    of.end(short);
    assert_eq!(of.told().get("PUT http"), Some(&0));
}

#[tokio::test]
async fn ends_with_the_process_and_with_the_agent() {
    let mut of = Fixture::new(config());
    let (first, id) = (of.open("GET"), of.process.id);
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.pipeline.process_ended(id);
    assert_eq!(of.told(), numbers([("GET http", 0)]));
    // Told late, of a process that is over.
    of.open("GET");
    of.end(first);
    assert_eq!(of.told(), numbers([("GET http", 0)]));

    of.process = Arc::new(sample::process(2, "cart"));
    of.open("GET");
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.pipeline.agent_restarted();
    assert_eq!(of.told(), numbers([("GET http", 0)]));
    // The same number may name another process from now on.
    of.process = Arc::new(sample::process(2, "other"));
    of.open("GET");
    assert_eq!(of.told(), numbers([("GET http", 1)]));
}

#[tokio::test]
async fn what_may_have_ended_unseen_counts_for_a_minute() {
    let mut of = Fixture::new(config());
    let (old, now) = (of.open("GET"), Instant::now());
    of.pipeline.events_lost();
    let kept = of.open("GET");
    assert_eq!(of.told_at(now + GRACE / 2), numbers([("GET http", 2)]));
    assert_eq!(of.told_at(now + GRACE + GRACE / 10), numbers([("GET http", 1)]), "what began after it is sure");
    of.end(old);
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.end(kept);
    assert_eq!(of.told(), numbers([("GET http", 0)]));
    // What comes soon after may have been recorded before.
    of.pipeline.events_lost();
    of.open("GET");
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    assert_eq!(of.told_at(Instant::now() + GRACE + LATE), numbers([("GET http", 0)]));

    of.open("GET");
    of.pipeline.agent_away();
    of.pipeline.agent_back();
    assert_eq!(of.told_at(now + GRACE * 3), numbers([("GET http", 1)]), "it came back: nothing was lost");
    of.pipeline.agent_away();
    assert_eq!(of.told_at(now + GRACE * 3), numbers([("GET http", 0)]));
    // However often something is lost, few times are kept.
    (0..10_000).for_each(|_| of.pipeline.events_lost());
    assert!(of.pipeline.active.doubts.len() < 100, "{}", of.pipeline.active.doubts.len());
}

#[tokio::test]
async fn hosts_are_told_apart_if_asked_for_and_as_many_as_there_is_room_for() {
    let mut config = config();
    config.attributes.select = vec![Selection {
        metric: Glob::new("http_server_active_requests").unwrap(),
        include: vec![Glob::new("*").unwrap()],
        exclude: vec![],
    }];
    let mut of = Fixture::new(config);
    of.open_as(Side::Server, "GET", "a.example");
    let second = of.open_as(Side::Server, "GET", "b.example:81");
    assert_eq!(of.told(), numbers([("GET http a.example 80", 1), ("GET http b.example 81", 1)]));
    of.end(second);
    assert_eq!(of.told().values().sum::<u64>(), 1);

    let many: Vec<u64> = (0..20_000).map(|n| of.open_as(Side::Server, "GET", &format!("{n}.example"))).collect();
    let told = of.told();
    assert_eq!(told.values().sum::<u64>(), 20_001, "none is lost");
    assert!(told.get("true").is_some_and(|overflow| *overflow > 17_000), "{:?}", told.get("true"));
    assert!(told.len() <= crate::metric::registry::SERIES_LIMIT + 1);
    many.into_iter().for_each(|serial| of.end(serial));
    assert_eq!(of.told().values().sum::<u64>(), 1);
    assert_eq!(of.pipeline.active.open.kinds(), 1, "what is over takes no room");
}

#[tokio::test]
async fn what_is_not_measured_is_not_counted() {
    let off = Prometheus { features: Features::of(&[Feature::SpanOtel]), ..sample::prometheus() };
    let mut of = Fixture::new(Config { prometheus: Some(off), ..sample::config() });
    of.open("GET");
    assert_eq!((of.told(), of.pipeline.active.open.newest()), (numbers([]), 0));

    let mut of = Fixture::new(config());
    of.process = Arc::new(crate::model::Process { export_metrics: false, ..sample::process(1, "shop") });
    of.open("GET");
    assert_eq!(of.told(), numbers([]));

    let mut ignoring = config();
    ignoring.routes.ignored = vec!["/cart/*".into()];
    let mut of = Fixture::new(ignoring);
    of.open("GET");
    assert_eq!(of.told(), numbers([]));

    let excluding = ExcludeInstrumented { spans: true, metrics: true };
    let mut of = Fixture::new(Config { exclude_instrumented: excluding, ..config() });
    let mut export = of.exchange(Side::Client, "POST", "collector:4318");
    export.request.target = Bytes::from_static(b"/v1/metrics");
    of.pipeline.exchange(&export, &ClockAnchor::default());
    of.open("GET");
    assert_eq!(of.told(), numbers([]), "it exports metrics itself");
}

#[tokio::test]
async fn another_configuration_goes_on_from_what_is_open() {
    let mut of = Fixture::new(config());
    let serial = of.open("GET");
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    let mut new = config();
    // Other bounds: another registry, which knows nothing yet.
    new.prometheus.as_mut().unwrap().duration_buckets = vec![0.5];
    of.pipeline.reload(&of.config, &new).unwrap();
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.end(serial);
    assert_eq!(of.told(), numbers([("GET http", 0)]));
    // Other facts of the process: other series, and the old ones are over.
    let serial = of.open("GET");
    let named =
        Config { resource_attributes: vec![("deployment.environment.name".into(), "test".into())], ..new.clone() };
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.pipeline.reload(&new, &named).unwrap();
    assert_eq!(of.told(), numbers([("GET http", 1)]));
    of.end(serial);
    assert_eq!(of.told(), numbers([("GET http", 0)]));
}

#[tokio::test]
async fn whatever_comes_the_number_is_that_of_what_is_open() {
    let mut of = Fixture::new(config());
    let (mut open, mut seed) = (Vec::new(), 0x9e37_79b9_7f4a_7c15_u64);
    for step in 0..5000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = seed >> 33;
        if chance % 5 < 3 {
            open.push(of.open(if chance % 2 == 0 { "GET" } else { "POST" }));
        } else if !open.is_empty() {
            let serial = open.swap_remove((chance as usize / 7) % open.len());
            match chance % 3 {
                0 => of.end(serial),
                1 => of.pipeline.abandoned(serial),
                _ => of.pipeline.doubted(serial),
            }
        }
        if step % 37 == 0 {
            assert_eq!(of.told().values().sum::<u64>(), open.len() as u64, "step {step}");
        }
    }
    open.into_iter().for_each(|serial| of.end(serial));
    assert_eq!(of.told().values().sum::<u64>(), 0);
}
