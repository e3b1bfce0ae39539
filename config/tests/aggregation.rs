//! Temporality, kind of histograms, exemplars, and who may scrape.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{clean, error, load, warnings};
use spantap_config::{Aggregation, Config, ExemplarFilter, Histograms, Scrape, Temporality};

const OTLP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const FILTER: &str = "OTEL_METRICS_EXEMPLAR_FILTER";

fn aggregation(config: &Config) -> Aggregation {
    config.metrics.as_ref().unwrap().aggregation
}

fn scrape(yaml: &str, variables: &[(&str, &str)]) -> Scrape {
    let yaml = format!("prometheus_export: {{port: 9464}}\n{yaml}");
    load(&yaml, variables).config.prometheus.unwrap().scrape
}

#[test]
fn temporality() {
    let of = |yaml, variables: &[_]| aggregation(&clean(yaml, &[&[OTLP], variables].concat())).temporality;
    assert_eq!(of("", &[]), Temporality::Cumulative);
    assert_eq!(of("", &[(TEMPORALITY, "Delta")]), Temporality::Delta);
    assert_eq!(of("", &[(TEMPORALITY, "LowMemory")]), Temporality::LowMemory);
    assert_eq!(of("spantap: {metrics: {temporality: delta}}", &[]), Temporality::Delta);
    assert_eq!(of("spantap: {metrics: {temporality: delta}}", &[(TEMPORALITY, "cumulative")]), Temporality::Cumulative);
    // The specification's variables are not worth an end; the file's value counts then.
    let wrong = [OTLP, (TEMPORALITY, "monthly")];
    let loaded = load("spantap: {metrics: {temporality: delta}}", &wrong);
    assert_eq!(aggregation(&loaded.config).temporality, Temporality::Delta);
    let said = warnings("", &wrong);
    assert!(said.len() == 1 && said[0].contains(TEMPORALITY) && said[0].contains("monthly"), "{said:?}");
    let refused = error("spantap: {metrics: {temporality: dleta}}", &[]);
    assert!(refused.contains("spantap.metrics.temporality") && refused.contains("delta"), "{refused}");
    assert!(error("", &[("SPANTAP_METRICS_TEMPORALITY", "x")]).contains("SPANTAP_METRICS_TEMPORALITY"));
}

#[test]
fn kind_of_histograms() {
    let of = |yaml, variables: &[_]| aggregation(&clean(yaml, &[&[OTLP], variables].concat())).histograms;
    assert_eq!(of("", &[]), Histograms::Explicit);
    assert_eq!(
        of("otel_metrics_export: {histogram_aggregation: base2_exponential_bucket_histogram}", &[]),
        Histograms::Exponential { max_scale: 20, max_size: 160 }
    );
    assert_eq!(
        of(
            "otel_metrics_export: {exponential_histogram: {max_scale: 5, max_size: 40}}",
            &[("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "BASE2_EXPONENTIAL_BUCKET_HISTOGRAM")]
        ),
        Histograms::Exponential { max_scale: 5, max_size: 40 }
    );
    for (key, value) in [("max_scale", "21"), ("max_scale", "-11"), ("max_size", "1"), ("max_size", "1025")] {
        let refused = error(&format!("otel_metrics_export: {{exponential_histogram: {{{key}: {value}}}}}"), &[]);
        assert!(refused.contains(key) && refused.contains("from"), "{refused}");
    }
    assert!(error("otel_metrics_export: {histogram_aggregation: exponential}", &[]).contains("base2"));
}

#[test]
fn exemplars() {
    let of = |yaml, variables: &[_]| aggregation(&clean(yaml, &[&[OTLP], variables].concat())).exemplars;
    assert_eq!(of("", &[]), ExemplarFilter::TraceBased);
    assert_eq!(of("", &[(FILTER, "always_off")]), ExemplarFilter::AlwaysOff);
    assert_eq!(of("spantap: {metrics: {exemplar_filter: always_on}}", &[]), ExemplarFilter::AlwaysOn);
    // For Prometheus off, as with Beyla, unless somebody asks.
    let file = "prometheus_export: {port: 9464, exemplar_filter: trace_based}";
    assert_eq!(scrape("", &[]).exemplars, ExemplarFilter::AlwaysOff);
    assert_eq!(scrape("", &[(FILTER, "always_on")]).exemplars, ExemplarFilter::AlwaysOn);
    assert_eq!(clean(file, &[]).prometheus.unwrap().scrape.exemplars, ExemplarFilter::TraceBased);
    let beyla = clean(file, &[("BEYLA_PROMETHEUS_EXEMPLAR_FILTER", "always_on"), (FILTER, "always_off")]);
    assert_eq!(beyla.prometheus.unwrap().scrape.exemplars, ExemplarFilter::AlwaysOn);
    assert!(error("prometheus_export: {exemplar_filter: sometimes}", &[]).contains("trace_based"));
}

#[test]
fn protection_of_the_scrape_endpoint() {
    let both = "spantap: {prometheus: {basic_auth: {username: scraper, password: '${PW}'}}}";
    let of = scrape(both, &[("PW", "s3cret")]);
    let (username, password) = of.basic_auth.clone().unwrap();
    assert_eq!((username.as_str(), password.0.as_str()), ("scraper", "s3cret"));
    assert!(!format!("{of:?}").contains("s3cret"));
    let yaml = format!("prometheus_export: {{port: 9464}}\n{both}");
    let loaded = load(&yaml, &[("PW", "s3cret")]);
    let shown = loaded.config.render();
    assert!(shown.contains("username: scraper") && !shown.contains("s3cret"), "{shown}");
    assert!(loaded.warnings.iter().any(|w| w.to_string().contains("in clear")), "{:?}", loaded.warnings);

    // What is not set must not open the endpoint.
    for yaml in [
        both.to_owned(),
        both.replace("scraper", "'${USER_NAME}'"),
        both.replace("${PW}", ""),
        "spantap: {prometheus: {basic_auth: {username: u}}}".to_owned(),
        "spantap: {prometheus: {basic_auth: {password: hidden}}}".to_owned(),
        both.replace("scraper", "a:b").replace("${PW}", "hidden"),
        both.replace("${PW}", "hid\\0den").replace('\'', "\""),
    ] {
        let refused = error(&yaml, &[]);
        assert!(refused.contains("spantap.prometheus.basic_auth") && !refused.contains("hid"), "{refused}");
    }

    let tls = "spantap: {prometheus: {tls_certificate: /c.pem, tls_key: /k.pem}}";
    assert_eq!(scrape(tls, &[]).tls, Some(("/c.pem".into(), "/k.pem".into())));
    assert!(error("spantap: {prometheus: {tls_key: /k.pem}}", &[]).contains("tls_certificate"));
}

#[test]
fn other_keys_of_the_scrape_endpoint() {
    assert!(scrape("", &[]).build_info);
    assert!(!scrape("", &[("BEYLA_PROMETHEUS_DISABLE_BUILD_INFO", "true")]).build_info);
    clean("prometheus_export: {port: 9464, extra_resource_attributes: [deployment.environment]}", &[]);
    assert!(error("prometheus_export: {extra_resource_attributes: {a: b}}", &[]).contains("a list"));
}
