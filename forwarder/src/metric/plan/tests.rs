#![allow(clippy::unwrap_used)]
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use spantap_config::{Config, Environment, Feature};

use super::*;
use crate::{
    exchange::{ClosedBy, Exchange, Outcome},
    metric::{
        point::Data,
        registry::{ProcessKey, Registry},
    },
    observation::{Observation, route::Routes},
    resource::ResourceBuilder,
    sample,
    telemetry::Telemetry,
};

const BOUNDS: Bounds<'_> =
    Bounds { duration: &[0.001, 1.0], request_size: &[0.0, 100.0], response_size: &[0.0, 1000.0] };

/// What `yaml` says below `attributes:`.
fn attributes(yaml: &str) -> Attributes {
    let text = format!("attributes:\n{yaml}\n");
    Config::parse(std::path::Path::new("c.yml"), &text, &Environment::of::<&str, &str>([])).unwrap().config.attributes
}

fn rules() -> Rules {
    Rules { routes: Routes::new(&["/cart/{id}".into()]), ..Default::default() }
}

fn registry(features: &[Feature], attributes: &Attributes) -> Registry {
    let plan = Plan::new(Features::of(features), attributes, BOUNDS);
    Registry::new(Arc::new(plan), Duration::from_secs(60), Arc::new(Telemetry::new(Arc::default())))
}

fn resource() -> Arc<Resource> {
    let variables =
        vec![("OTEL_RESOURCE_ATTRIBUTES".to_owned(), "k8s.pod.name=pod-1,service.namespace=shops".to_owned())];
    let process = crate::model::Process { environment: variables, ..sample::process(1, "shop") };
    Arc::new(ResourceBuilder::new(&sample::config()).process(&process))
}

fn record(registry: &mut Registry, exchange: &Exchange) {
    registry.record(ProcessKey(1), &resource(), &Observation::new(exchange, sample::clock(), &rules()), None);
}

/// Attributes of each series of the metric, as text, ordered.
fn shown(registry: &Registry, name: &str) -> Vec<String> {
    let (rules, mut out) = (rules(), Vec::new());
    for process in registry.processes() {
        for (active, metric) in process.metrics(registry.plan()).filter(|(active, _)| active.instrument.name == name) {
            for (key, _) in metric.iter() {
                let attributes = active.attributes(key, &rules, &process.resource);
                out.push(attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
            }
        }
    }
    out.sort();
    out
}

fn server_of(yaml: &str) -> String {
    let mut registry = registry(&[Feature::Application], &attributes(yaml));
    record(&mut registry, &sample::exchange(Side::Server));
    let [one] = &shown(&registry, "http.server.request.duration")[..] else { panic!("not one series") };
    one.clone()
}

#[test]
fn attributes_are_chosen_as_in_beyla() {
    const ALL: &str = "http.request.method=GET url.scheme=http http.response.status_code=200 http.route=/cart/{id} network.protocol.version=1.1";
    for (yaml, want) in [
        ("  select: {}", ALL.to_owned()),
        ("  select: {'*': {exclude: ['*']}}", String::new()),
        (
            "  select: {http_server_request_duration_seconds: {include: [http_route, url_path]}}",
            "http.route=/cart/{id} url.path=/cart/7".into(),
        ),
        ("  select: {http.server.*: {exclude: [http.*, url.scheme]}}", "network.protocol.version=1.1".into()),
        ("  select: {http.client.*: {exclude: ['*']}}", ALL.to_owned()),
        // The broader pattern first, then more by the narrower.
        (
            "  select: {http.server.request.duration: {include: [client.address]}, '*': {include: [http.request.method]}}",
            "http.request.method=GET client.address=10.0.0.2".into(),
        ),
        ("  select: {'*': {include: ['*'], exclude: [client.*, server.*, url.*, http.*, network*]}}", String::new()),
        (
            "  select: {'*': {include: [http.request.method, k8s.*, service_namespace]}}",
            "http.request.method=GET k8s.pod.name=pod-1 service.namespace=shops".into(),
        ),
        ("  extra_group_attributes: {k8s_app_meta: [k8s.pod.name, not.there]}", format!("{ALL} k8s.pod.name=pod-1")),
        (
            "  extra_group_attributes: {k8s_app_meta: [k8s.pod.name]}\n  select: {'*': {exclude: [k8s.*]}}",
            ALL.to_owned(),
        ),
    ] {
        assert_eq!(server_of(yaml), want, "{yaml}");
    }
}

#[test]
fn span_metrics_and_edges_have_the_names_that_dashboards_ask_for() {
    let features = [Feature::Span, Feature::SpanSizes, Feature::ServiceGraph, Feature::Host];
    // What is chosen does not change them.
    let mut registry = registry(&features, &attributes("  select: {'*': {exclude: ['*']}}"));
    let mut failed = sample::exchange(Side::Client);
    failed.response.as_mut().unwrap().status = 503;
    record(&mut registry, &failed);
    record(&mut registry, &sample::exchange(Side::Server));
    let own = "service.name=shop service.namespace=shops telemetry.sdk.language=go";
    let client = format!("span.name=GET span.kind=SPAN_KIND_CLIENT status.code=STATUS_CODE_ERROR source=spantap {own}");
    let server = format!(
        "span.name=GET /cart/{{id}} span.kind=SPAN_KIND_SERVER status.code=STATUS_CODE_UNSET source=spantap {own}"
    );
    for name in ["traces_spanmetrics_latency", "traces_spanmetrics_calls_total", "traces_spanmetrics_size_total"] {
        assert_eq!(shown(&registry, name), [server.clone(), client.clone()], "{name}");
    }
    let to = "client=shop client_service_namespace=shops server=shop.example server_service_namespace= source=spantap";
    let from = "client=incoming client_service_namespace= server=shop server_service_namespace=shops source=spantap";
    assert_eq!(shown(&registry, "traces_service_graph_request_client"), [to]);
    assert_eq!(shown(&registry, "traces_service_graph_request_server"), [from]);
    assert_eq!(shown(&registry, "traces_service_graph_request_total"), [from, to]);
    assert_eq!(shown(&registry, "traces_service_graph_request_failed_total"), [to]);
    assert_eq!(shown(&registry, "traces_host_info").len(), 1);
    assert_eq!(shown(&registry, "http.server.request.duration").len(), 0, "off");
}

#[test]
fn instruments_that_keep_the_same_attributes_share_a_key() {
    let plan = Plan::new(Features::of(&[Feature::Application]), &Attributes::default(), BOUNDS);
    assert_eq!((plan.server.len(), plan.client.len()), (1, 1));
    assert_eq!(plan.server.first().unwrap().members.len(), 3);
    let none = Plan::new(Features::default(), &Attributes::default(), BOUNDS);
    assert!(none.active.is_empty() && none.server.is_empty() && !none.wants_usage());
}

/// Sum and number of everything in a metric, the overflow included.
fn totals(registry: &Registry, name: &str) -> (f64, u64) {
    let metrics = registry.processes().flat_map(|process| process.metrics(registry.plan()));
    let of = metrics.filter(|(active, _)| active.instrument.name == name).flat_map(|(_, metric)| metric.iter());
    of.fold((0.0, 0), |(sum, count), (_, data)| match data {
        Data::Histogram(h) => (sum + h.sum, count + h.count()),
        Data::Number(n) => (sum + n.amount.as_f64(), count),
    })
}

prop_compose! {
    fn any_exchange()(
        server: bool,
        method in prop::sample::select(vec!["GET", "POST", "BREW"]),
        // More hosts than there is room for series.
        host in 0..1_000_000_u32,
        path in 0..4_u8,
        status in prop::option::of(100..600_u16),
        request in prop::option::of(0..10_000_u64),
        response in prop::option::of(0..10_000_u64),
        milliseconds in 0..5000_u64,
    ) -> Exchange {
        let mut e = sample::exchange(if server { Side::Server } else { Side::Client });
        e.request.method = Bytes::from_static(method.as_bytes());
        e.request.headers.host = Some(Bytes::from(format!("h{host}")));
        e.request.target = Bytes::from(format!("/p{path}"));
        e.request.body_size = request;
        match (status, &mut e.response) {
            (Some(status), Some(of)) => (of.status, of.body_size) = (status, response),
            _ => (e.response, e.outcome) = (None, Outcome::NoResponse(ClosedBy::Reset)),
        }
        e.end.0 = e.start.0 + milliseconds * 1_000_000;
        e
    }
}

fn any_selection() -> impl Strategy<Value = String> {
    const NAMES: [&str; 7] = ["'*'", "http.*", "url.*", "server.*", "http.route", "client.address", "error.type"];
    let list = || prop::sample::subsequence(&NAMES[..], 0..4).prop_map(|names| names.join(", "));
    (list(), list(), list()).prop_map(|(broad, narrow, out)| {
        format!("  select: {{'*': {{include: [{broad}], exclude: [{out}]}}, http.client.*: {{include: [{narrow}]}}}}")
    })
}

#[test]
fn whose_attributes_can_be_chosen_the_configuration_knows() {
    for instrument in INSTRUMENTS.iter().filter(|instrument| instrument.style == Style::Chosen) {
        let name = instrument.name;
        let yaml = format!("attributes: {{select: {{{name}: {{include: [url.scheme]}}}}}}");
        let none = Environment::of(std::iter::empty::<(&str, &str)>());
        let loaded = Config::parse(std::path::Path::new("config.yml"), &yaml, &none).unwrap();
        assert_eq!((loaded.config.attributes.select.len(), loaded.warnings.len()), (1, 0), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_is_chosen_all_that_was_observed_is_in_the_sums(
        selection in any_selection(),
        exchanges in prop::collection::vec(any_exchange(), 0..6000),
    ) {
        let features = [Feature::Application, Feature::SpanOtel, Feature::SpanSizes, Feature::ServiceGraph];
        let mut registry = registry(&features, &attributes(&selection));
        let (resource, rules) = (resource(), rules());
        for exchange in &exchanges {
            registry.record(ProcessKey(1), &resource, &Observation::new(exchange, sample::clock(), &rules), None);
        }
        let duration = |e: &Exchange| Some(e.end.0 - e.start.0).map(|ns| ns as f64 / 1e9);
        let request = |e: &Exchange| e.request.body_size.map(|n| n as f64);
        let response = |e: &Exchange| e.response.as_ref()?.body_size.map(|n| n as f64);
        let want = |side: Option<Side>, value: &dyn Fn(&Exchange) -> Option<f64>| {
            let of: Vec<f64> = exchanges.iter().filter(|e| side.is_none_or(|s| s == e.side)).filter_map(value).collect();
            (of.iter().sum::<f64>(), of.len() as u64)
        };
        let (server, client) = (Some(Side::Server), Some(Side::Client));
        for (name, want) in [
            ("http.server.request.duration", want(server, &duration)),
            ("http.client.request.duration", want(client, &duration)),
            ("http.server.request.body.size", want(server, &request)),
            ("http.server.response.body.size", want(server, &response)),
            ("http.client.request.body.size", want(client, &request)),
            ("http.client.response.body.size", want(client, &response)),
            ("traces.span.metrics.duration", want(None, &duration)),
            ("traces_service_graph_request_client", want(client, &duration)),
            ("traces_service_graph_request_server", want(server, &duration)),
        ] {
            let got = totals(&registry, name);
            prop_assert_eq!(got.1, want.1, "{}", name);
            prop_assert!((got.0 - want.0).abs() < 1e-6 * (1.0 + want.0), "{} {:?} {:?}", name, got, want);
        }
        for (name, want) in [
            ("traces.span.metrics.calls", exchanges.len() as f64),
            ("traces_service_graph_request_total", exchanges.len() as f64),
            ("traces_spanmetrics_size_total", want(None, &request).0),
            ("traces_spanmetrics_response_size_total", want(None, &response).0),
        ] {
            prop_assert_eq!(totals(&registry, name).0, want, "{}", name);
        }
    }
}
