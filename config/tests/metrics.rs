//! Which metrics, with which attributes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{clean, error, load, warnings};
use spantap_config::Feature::{self, *};

fn features(list: &str) -> Vec<Feature> {
    let config = load(&format!("otel_metrics_export: {{endpoint: 'http://c', features: {list}}}"), &[]).config;
    config.metrics.map(|metrics| metrics.features.iter().collect()).unwrap_or_default()
}

#[test]
fn features_as_in_beyla() {
    let config = clean("otel_metrics_export: {endpoint: 'http://c'}\nprometheus_export: {port: 9400}", &[]);
    assert_eq!(config.metrics.unwrap().features.iter().collect::<Vec<_>>(), [Application]);
    assert_eq!(config.prometheus.unwrap().features.iter().collect::<Vec<_>>(), [Application]);
    assert_eq!(features("[application, application_span]"), [Application, Span]);
    assert_eq!(features("'application_service_graph,application_process'"), [ServiceGraph, Process]);
    assert_eq!(features("[all]"), [Application, SpanOtel, SpanSizes, ServiceGraph, Host, Process]);
    assert_eq!(features("[network]"), []);
    let config = clean("prometheus_export: {port: 9400}", &[("BEYLA_PROMETHEUS_FEATURES", "application_host")]);
    assert_eq!(config.prometheus.unwrap().features.iter().collect::<Vec<_>>(), [Host]);
}

#[test]
fn features_that_are_not_there() {
    let of = |list: &str| format!("otel_metrics_export: {{endpoint: 'http://c', features: {list}}}");
    let said = warnings(&of("[application, network, stats]"), &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("network, stats not served yet"), "{said:?}");
    assert_eq!(warnings(&of("['*']"), &[]).len(), 1);
    assert!(error(&of("[aplication_span]"), &[]).contains("did you mean application_span?"));
    assert!(error(&of("[application_span, application_span_otel]"), &[]).contains("keep one of them"));
}

#[test]
fn usage_is_read_only_where_somebody_asks_for_it() {
    let interval = |yaml: &str, variables: &[(&str, &str)]| clean(yaml, variables).agent.usage_interval;
    assert_eq!(interval("processes: {interval: 2s}", &[]), None);
    // An agent with a configuration of its own has no exporter in it.
    assert_eq!(interval("metrics: {features: [application_process]}", &[]), Some(Duration::from_secs(5)));
    let yaml = "processes: {interval: 2s}\nprometheus_export: {features: [application, application_process]}";
    assert_eq!(interval(yaml, &[]), Some(Duration::from_secs(2)));
    let variables = [("BEYLA_PROMETHEUS_FEATURES", "application_process"), ("BEYLA_PROCESSES_INTERVAL", "1m")];
    assert_eq!(interval("", &variables), Some(Duration::from_secs(60)));
    for wrong in ["0s", "10ms", "2h", "soon"] {
        assert!(error(&format!("processes: {{interval: {wrong}}}"), &[]).contains("processes.interval"), "{wrong}");
    }
}

#[test]
fn attributes_are_read_and_shown() {
    let yaml = "attributes:\n  select:\n    http_client_*: {include: [server.*]}\n    '*': {exclude: [url.scheme]}\n    \
                traces: {exclude: [url.query]}\n  extra_group_attributes: {k8s_app_meta: [k8s.pod.name]}\n";
    let config = clean(yaml, &[]);
    let attributes = &config.attributes;
    assert_eq!(attributes.select.iter().map(|s| s.metric.pattern.as_str()).collect::<Vec<_>>(), ["*", "http_client_*"]);
    assert!(attributes.drop_query && attributes.extra == ["k8s.pod.name"]);
    let shown = config.render();
    for part in ["exclude: [url_scheme]", "include: [\"server_*\"]", "exclude: [url_query]", "[k8s.pod.name]"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!clean("attributes: {select: {traces: {include: [url.query]}}}", &[]).attributes.drop_query);
    assert!(
        clean("attributes: {select: {http_server_request_duration_seconds_bucket: }}", &[]).attributes.select.len()
            == 1
    );
}

#[test]
fn attributes_of_what_is_not_there() {
    let select = |yaml: &str| format!("attributes: {{select: {{{yaml}}}}}");
    for (yaml, part) in [
        ("rpc.server.duration: {include: ['*']}", "not served yet"),
        ("'db.*': {include: ['*']}", "not served yet"),
        ("traces_spanmetrics_latency: {include: ['*']}", "fixed"),
        ("traces: {include: [url.query, db.query.text]}", "db_query_text has no effect"),
    ] {
        let said = warnings(&select(yaml), &[]);
        assert!(said.len() == 1 && said[0].contains(part), "{yaml} {said:?}");
    }
    for (yaml, part) in [
        ("http.server.request.duraton: {include: ['*']}", "did you mean `http.server.request.duration`?"),
        ("something: {include: ['*']}", "metrics are called http.server.request.duration"),
        ("'*': {inclde: [a]}", "did you mean `include`?"),
        ("'*': {include: ['[a']}", "a pattern"),
        ("'*': [a]", "a mapping"),
        ("'*': {include: {a: b}}", "a list"),
        ("'[': {include: [a]}", "attributes.select"),
    ] {
        let said = error(&select(yaml), &[]);
        assert!(said.contains(part), "{yaml} {said}");
    }
    assert!(
        error("attributes: {extra_group_attributes: {k8s_meta: [a]}}", &[])
            .contains("the only group is `k8s_app_meta`")
    );
    assert!(error("prometheus_export: {buckets: {request_size_histogram: [2, 1]}}", &[]).contains("numbers of bytes"));
}
