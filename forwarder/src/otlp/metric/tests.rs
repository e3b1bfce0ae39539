#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::any_value::Value as Any,
    metrics::v1::{AggregationTemporality, Metric, metric::Data},
};
use prost::Message;
use spantap_config::{Attributes, Feature, Features};

use super::*;
use crate::{
    exchange::{Exchange, Side},
    loss::{Losses, Reason},
    metric::{
        plan::Bounds,
        registry::{ProcessKey, Registry},
    },
    observation::{Observation, route::Routes},
    resource::ResourceBuilder,
    sample,
    telemetry::Telemetry,
};

const NOW: UnixNs = UnixNs(sample::EPOCH + 9_000_000_000);
const WINDOW: Window = Window { since: UnixNs(sample::EPOCH), time: NOW, exemplars: true };

fn plan() -> Plan {
    let sizes = &sample::SIZE_BUCKETS;
    let bounds = Bounds { duration: &sample::BUCKETS, request_size: sizes, response_size: sizes };
    Plan::new(Features::of(&[Feature::Application]), &Attributes::default(), bounds)
}

fn registry(exchanges: &[Exchange], rules: &Rules) -> Registry {
    let mut registry =
        Registry::new(Arc::new(plan()), Duration::from_secs(60), Arc::new(Telemetry::new(Arc::default())));
    let resource = Arc::new(ResourceBuilder::new(&sample::config()).process(&sample::process(1, "shop")));
    for e in exchanges {
        let seen = Observation::new(e, sample::clock(), rules);
        registry.record(ProcessKey(1), &resource, &seen, None);
    }
    registry
}

fn decode(requests: &[(Bytes, u64)]) -> Vec<Metric> {
    let [(body, points)] = requests else { panic!("{} requests", requests.len()) };
    let request = ExportMetricsServiceRequest::decode(body.clone()).unwrap();
    let metrics: Vec<_> =
        request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics).collect();
    let found: usize = metrics
        .iter()
        .map(|m| match m.data.as_ref().unwrap() {
            Data::Histogram(h) => h.data_points.len(),
            Data::Sum(s) => s.data_points.len(),
            Data::Gauge(g) => g.data_points.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(found as u64, *points);
    metrics
}

#[test]
fn histograms_of_both_sides() {
    let rules = Rules { routes: Routes::new(&["/cart/{id}".into()]), ..Default::default() };
    let registry = registry(
        &[sample::exchange(Side::Server), sample::exchange(Side::Server), sample::exchange(Side::Client)],
        &rules,
    );
    let mut encoder = MetricsEncoder::new(&rules, registry.plan(), WINDOW);
    encoder.process(registry.processes().next().unwrap(), false);
    let metrics = decode(&encoder.finish());
    assert_eq!(
        metrics.iter().map(|m| (m.name.as_str(), m.unit.as_str())).collect::<Vec<_>>(),
        [
            ("http.server.request.duration", "s"),
            ("http.client.request.duration", "s"),
            ("http.server.request.body.size", "By"),
            ("http.server.response.body.size", "By"),
            ("http.client.request.body.size", "By"),
            ("http.client.response.body.size", "By"),
        ]
    );
    assert!(metrics.iter().all(|m| !m.description.is_empty()));
    let Some(Data::Histogram(responses)) = &metrics[3].data else { panic!() };
    let point = &responses.data_points[0];
    assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (2, Some(2468.0), &[0, 0, 2, 0][..]));
    assert_eq!(point.explicit_bounds, sample::SIZE_BUCKETS);
    let Some(Data::Histogram(server)) = &metrics[0].data else { panic!() };
    assert_eq!(server.aggregation_temporality(), AggregationTemporality::Cumulative);
    let point = &server.data_points[0];
    assert_eq!((point.count, point.sum), (2, Some(0.006)));
    assert_eq!(point.explicit_bounds, sample::BUCKETS);
    assert_eq!(point.bucket_counts, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (sample::EPOCH + 1_000_000, NOW.0));
    let text = |metric: &Metric| {
        let Some(Data::Histogram(h)) = &metric.data else { panic!() };
        h.data_points[0]
            .attributes
            .iter()
            .map(|a| format!("{}={:?}", a.key, a.value.as_ref().unwrap().value.as_ref().unwrap()))
            .collect::<Vec<_>>()
    };
    let string = |k: &str, v: &str| format!("{k}={:?}", Any::StringValue(v.into()));
    let int = |k: &str, v| format!("{k}={:?}", Any::IntValue(v));
    let common =
        [string("http.request.method", "GET"), string("url.scheme", "http"), int("http.response.status_code", 200)];
    let mut want = common.to_vec();
    want.extend([string("http.route", "/cart/{id}"), string("network.protocol.version", "1.1")]);
    assert_eq!(text(&metrics[0]), want);
    let mut want = common.to_vec();
    want.extend([
        string("network.protocol.version", "1.1"),
        string("server.address", "shop.example"),
        int("server.port", 8080),
    ]);
    assert_eq!(text(&metrics[1]), want);
}

#[test]
fn ended_series_have_no_value() {
    let rules = Rules::default();
    let registry = registry(&[sample::exchange(Side::Server)], &rules);
    let mut encoder = MetricsEncoder::new(&rules, registry.plan(), WINDOW);
    encoder.process(registry.processes().next().unwrap(), true);
    let metrics = decode(&encoder.finish());
    let Some(Data::Histogram(h)) = &metrics[0].data else { panic!() };
    let point = &h.data_points[0];
    assert_eq!((point.flags, point.count, point.sum, point.bucket_counts.len()), (1, 0, None, 0));
}

#[test]
fn the_start_is_before_the_time() {
    let rules = Rules::default();
    let registry = registry(&[sample::exchange(Side::Server)], &rules);
    let mut encoder =
        MetricsEncoder::new(&rules, registry.plan(), Window { time: UnixNs(sample::EPOCH - 5), ..WINDOW });
    encoder.process(registry.processes().next().unwrap(), false);
    let Some(Data::Histogram(h)) = &decode(&encoder.finish())[0].data else { panic!() };
    assert_eq!(h.data_points[0].start_time_unix_nano, sample::EPOCH - 6);
}

#[test]
fn own_metrics() {
    let telemetry = Telemetry::new(Arc::new(Losses::default()));
    telemetry.losses.count(Reason::ParseError, 3);
    telemetry.exchange(Side::Server);
    let rules = Rules::default();
    let plan = Plan::default();
    let mut encoder = MetricsEncoder::new(&rules, &plan, WINDOW);
    let resource = ResourceBuilder::new(&sample::config()).own();
    encoder.own(&resource, &crate::telemetry::snapshot::measures(&telemetry), UnixNs(sample::EPOCH), false);
    let metrics = decode(&encoder.finish());
    let find = |name: &str| metrics.iter().find(|m| m.name == name).unwrap().data.clone().unwrap();
    let Data::Sum(losses) = find("spantap.losses") else { panic!() };
    assert!(losses.is_monotonic && losses.data_points.len() == Reason::ALL.len());
    let parse = losses.data_points.iter().find(|p| format!("{:?}", p.attributes).contains("parse_error")).unwrap();
    assert_eq!(format!("{:?}", parse.value), "Some(AsInt(3))");
    assert!(matches!(find("spantap.agent.connected"), Data::Gauge(_)));
}

#[test]
fn nothing_makes_no_request() {
    let rules = Rules::default();
    assert!(MetricsEncoder::new(&rules, &Plan::default(), WINDOW).finish().is_empty());
}
