//! Where telemetry goes: the rules of the OTLP exporter specification, with Beyla's precedence.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{path::PathBuf, time::Duration};

use common::{clean, error, load, warnings};
use spantap_config::{Compression, Config, Console, Otlp, OtlpProtocol};

const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";

fn traces(config: &Config) -> &Otlp {
    &config.traces.as_ref().unwrap().otlp
}

fn metrics(config: &Config) -> &Otlp {
    &config.metrics.as_ref().unwrap().otlp
}

#[test]
fn a_base_endpoint_gets_the_paths_of_both_signals() {
    for (base, url) in [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("http://c:4318/mycollector/", "http://c:4318/mycollector/v1/traces"),
        ("http://c:4318/mycollector", "http://c:4318/mycollector/v1/traces"),
        ("https://c", "https://c/v1/traces"),
        ("HTTPS://C.example/a", "https://C.example/a/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://c/x?key=1", "https://c/x/v1/traces?key=1"),
    ] {
        let config = clean("", &[(GENERAL, base)]);
        assert_eq!(traces(&config).endpoint, url, "{base}");
        assert_eq!(metrics(&config).endpoint, url.replace("traces", "metrics"), "{base}");
    }
}

#[test]
fn an_endpoint_of_one_signal_is_used_as_it_is_but_for_a_missing_path() {
    for (given, url, quiet) in [
        ("http://c:4318", "http://c:4318/v1/traces", true),
        ("http://c:4318/", "http://c:4318/v1/traces", true),
        ("http://c:4318/v1/traces", "http://c:4318/v1/traces", true),
        ("http://c:4318/v1/traces/", "http://c:4318/v1/traces/", true),
        ("http://c:4318/otlp/v1/traces", "http://c:4318/otlp/v1/traces", true),
        ("http://c:4318/custom", "http://c:4318/custom", false),
    ] {
        for loaded in [load("", &[(TRACES, given)]), load(&format!("otel_traces_export: {{endpoint: '{given}'}}"), &[])]
        {
            assert_eq!(traces(&loaded.config).endpoint, url, "{given}");
            // Beyla would append to a path of the user's own: that is said.
            assert_eq!(loaded.warnings.is_empty(), quiet, "{given}: {:?}", loaded.warnings);
        }
    }
    assert_eq!(metrics(&clean("", &[(METRICS, "https://m/custom")])).endpoint, "https://m/custom");
}

#[test]
fn the_nearest_endpoint_wins() {
    let yaml = "otel_traces_export: {endpoint: 'http://file:1'}";
    assert_eq!(traces(&clean(yaml, &[])).endpoint, "http://file:1/v1/traces");
    // The general variable does not override the file's endpoint of one signal, but serves the other signal.
    let config = clean(yaml, &[(GENERAL, "http://general:2")]);
    assert_eq!(traces(&config).endpoint, "http://file:1/v1/traces");
    assert_eq!(metrics(&config).endpoint, "http://general:2/v1/metrics");
    assert_eq!(
        traces(&clean(yaml, &[(TRACES, "http://own:3"), (GENERAL, "http://x")])).endpoint,
        "http://own:3/v1/traces"
    );
    // Empty is unset.
    assert_eq!(traces(&clean(yaml, &[(TRACES, "")])).endpoint, "http://file:1/v1/traces");
}

#[test]
fn what_is_no_endpoint_is_an_error_with_its_place() {
    for bad in [
        "localhost:4318",
        "collector",
        "ftp://c/",
        "http://",
        "/v1/traces",
        "http://c:99999",
        "http://c:0",
        "http://c:x",
    ] {
        let text = error("", &[(TRACES, bad)]);
        assert!(
            text.starts_with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: otel_traces_export.endpoint: found"),
            "{bad}: {text}"
        );
        let text = error(&format!("otel_metrics_export:\n  endpoint: '{bad}'\n"), &[]);
        assert!(text.starts_with("config.yml:2:13: otel_metrics_export.endpoint: found"), "{bad}: {text}");
    }
    let text = error("", &[(GENERAL, "user:hunter2@c:4318")]);
    assert!(!text.contains("hunter2"), "{text}");
    let loaded = load("", &[(GENERAL, "http://user:hunter2@c:4318")]);
    assert_eq!(traces(&loaded.config).endpoint, "http://c:4318/v1/traces");
    assert!(
        loaded.warnings.iter().all(|warning| !warning.to_string().contains("hunter2")) && !loaded.warnings.is_empty()
    );
}

#[test]
fn the_protocol_is_that_of_the_signal_then_the_general_one_then_the_ports() {
    use OtlpProtocol::{Grpc, HttpJson, HttpProtobuf};
    let endpoint = (GENERAL, "http://c:4318");
    let both = |yaml: &str, variables: &[(&str, &str)]| {
        let config = clean(yaml, variables);
        (traces(&config).protocol, metrics(&config).protocol)
    };
    assert_eq!(both("", &[endpoint]), (HttpProtobuf, HttpProtobuf));
    assert_eq!(both("", &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC")]), (Grpc, Grpc));
    let own = [endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")];
    assert_eq!(both("", &own), (HttpJson, Grpc));
    let yaml =
        "otel_traces_export: {protocol: http/json}\nspantap: {otlp: {endpoint: 'http://c:4318', protocol: grpc}}\n";
    assert_eq!(both(yaml, &[]), (HttpJson, Grpc));
    // The environment beats the file, key by key.
    assert_eq!(both(yaml, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]), (HttpJson, HttpProtobuf));
    // Without a word the port tells, as in Beyla.
    assert_eq!(both("", &[(GENERAL, "http://c:4317")]), (Grpc, Grpc));
    assert_eq!(both("", &[(GENERAL, "https://c:14317")]), (Grpc, Grpc));
    let config = clean("otel_traces_export: {endpoint: 'http://c:4317', protocol: http/protobuf}", &[]);
    assert_eq!(traces(&config).endpoint, "http://c:4317/v1/traces");
    // An unknown word in a variable is ignored, in the file it is an error.
    let unknown = warnings("", &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http")]);
    assert!(matches!(&unknown[..], [one] if one.contains("expected http/protobuf")), "{unknown:?}");
    assert!(error("otel_traces_export: {protocol: http}", &[]).contains("expected http/protobuf, http/json or grpc"));
    assert!(error("otel_traces_export: {protocol: debug}", &[]).contains("trace_printer"));
    // The port of the default follows the protocol.
    let config = clean("", &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert_eq!(traces(&config).shown_endpoint(), "http://localhost:4317");
    let config = clean("", &[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")]);
    let fallback = config.fallback.unwrap();
    assert_eq!(fallback.ports(), [4317, 4318]);
    assert_eq!(clean("", &[]).fallback.unwrap().ports(), [4318]);
}

#[test]
fn headers_are_parsed_and_never_shown() {
    let headers = |text: &str| {
        let loaded = load("", &[(GENERAL, "https://c"), ("OTEL_EXPORTER_OTLP_HEADERS", text)]);
        let shown = format!("{:?}{}{:?}", loaded.config, loaded.config.render(), loaded.warnings);
        assert!(!shown.contains("hunter"), "{shown}");
        let headers: Vec<_> = traces(&loaded.config).headers.iter().map(|(n, v)| format!("{n}: {}", v.0)).collect();
        (headers, loaded.warnings.len())
    };
    for (text, expected, flaws) in [
        ("a=hunter1", vec!["a: hunter1"], 0),
        (
            "Authorization=Bearer hunter,X-Scope= t%20hunter ",
            vec!["authorization: Bearer hunter", "x-scope: t hunter"],
            0,
        ),
        ("a=c2VjcmV0==", vec!["a: c2VjcmV0=="], 0),
        ("a=1,A=2,,b=", vec!["a: 2", "b: "], 0),
        ("hunter,b=2", vec!["b: 2"], 1),
        ("a b=hunter,c=1", vec!["c: 1"], 1),
        // As HTTP writes it, with the sign that ends base64.
        ("Authorization: Basic hunter=,c=1", vec!["c: 1"], 1),
        ("a=hunter%0d%0ab,c=1", vec!["c: 1"], 1),
        ("a=%C3%A4", vec!["a: ä"], 0),
        ("a=%zz", vec!["a: %zz"], 0),
        ("content-length=hunter", vec![], 1),
    ] {
        assert_eq!(headers(text), (expected.into_iter().map(str::to_owned).collect(), flaws), "{text}");
    }
    let config = clean(
        "",
        &[
            (GENERAL, "https://c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "c=3"),
        ],
    );
    let names = |otlp: &Otlp| otlp.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!((names(traces(&config)), names(metrics(&config))), (vec!["c".into()], vec!["a".into(), "b".into()]));
    for header in ["api-key=1", "Authorization=1", "X-Secret=1", "cookie=1"] {
        assert_eq!(
            warnings("", &[(GENERAL, "http://far"), ("OTEL_EXPORTER_OTLP_HEADERS", header)]).len(),
            1,
            "{header}"
        );
    }
    assert!(warnings("", &[(GENERAL, "http://far"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=1")]).is_empty());
    assert_eq!(
        warnings("", &[(GENERAL, "http://localhost:4318"), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=1")]).len(),
        0
    );
}

#[test]
fn transport_options_are_general_or_of_one_signal() {
    let config = clean(
        "",
        &[
            (GENERAL, "https://c"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/own.pem"),
        ],
    );
    assert_eq!((traces(&config).timeout, metrics(&config).timeout), (Duration::from_millis(2500), Duration::ZERO));
    assert_eq!((traces(&config).compression, metrics(&config).compression), (Compression::Gzip, Compression::None));
    assert_eq!(traces(&config).certificate, Some(PathBuf::from("/ca.pem")));
    assert_eq!(traces(&config).client_identity, Some(("/own.pem".into(), "/cert.pem".into())));
    let text = error("", &[(GENERAL, "https://c"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem")]);
    assert!(text.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY: ") && text.contains("CLIENT_CERTIFICATE"), "{text}");
    // What the specification's variables hold wrongly is reported and ignored.
    for (name, bad) in [("TIMEOUT", "-1"), ("TIMEOUT", "10s"), ("COMPRESSION", "zstd")] {
        let name = format!("OTEL_EXPORTER_OTLP_{name}");
        let loaded = load("", &[(GENERAL, "https://c"), (&name, bad)]);
        assert_eq!(loaded.warnings.len(), 1, "{name}={bad}: {:?}", loaded.warnings);
        assert_eq!(traces(&loaded.config).timeout, Duration::from_secs(10));
    }
    assert_eq!(warnings("", &[(GENERAL, "https://c"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")]).len(), 1);
}

#[test]
fn exporters_are_chosen_by_the_variables_of_the_specification() {
    let config = clean("", &[("OTEL_TRACES_EXPORTER", "otlp")]);
    assert_eq!(traces(&config).endpoint, "http://localhost:4318/v1/traces");
    assert!(config.metrics.is_none() && config.fallback.is_none());
    let config = clean("", &[("OTEL_TRACES_EXPORTER", "none")]);
    assert!(config.fallback.as_ref().is_some_and(|f| f.traces.is_none() && f.metrics.is_some()));
    let config = clean("", &[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")]);
    assert!(config.fallback.is_none() && !config.has_exporter());
    let config = clean("", &[(GENERAL, "http://c"), ("OTEL_METRICS_EXPORTER", "none")]);
    assert!(config.traces.is_some() && config.metrics.is_none());
    let config = clean("", &[("OTEL_TRACES_EXPORTER", "console")]);
    assert!(config.console == Console::Text && config.traces.is_none() && config.fallback.is_none());
    let config = clean("trace_printer: json", &[("OTEL_TRACES_EXPORTER", "otlp,console")]);
    assert!(config.console == Console::Json && config.traces.is_some());
    let loaded = load("", &[(GENERAL, "http://c"), ("OTEL_TRACES_EXPORTER", "zipkin")]);
    assert!(loaded.warnings.len() == 1 && loaded.config.traces.is_some());
    let loaded = load(
        "prometheus_export: {port: 9400}\ntrace_printer: text",
        &[(GENERAL, "http://c"), ("OTEL_SDK_DISABLED", "TRUE")],
    );
    assert!(loaded.warnings.len() == 1 && !loaded.config.has_exporter() && loaded.config.fallback.is_none());
    let loaded = load("", &[(GENERAL, "http://c"), ("OTEL_SDK_DISABLED", "1")]);
    assert!(loaded.warnings.len() == 1 && loaded.config.has_exporter());
}

#[test]
fn a_list_without_http_or_application_exports_nothing_and_says_so() {
    let loaded = load("otel_traces_export: {endpoint: 'http://c', instrumentations: [sql]}", &[]);
    assert!(loaded.config.traces.is_none() && loaded.config.fallback.is_none() && loaded.warnings.len() == 2);
    let defaults = "[http, grpc, sql, redis, kafka, mongo]";
    let config = clean(&format!("otel_traces_export: {{endpoint: 'http://c', instrumentations: {defaults}}}"), &[]);
    assert!(config.traces.is_some());
    let loaded = load("otel_metrics_export: {endpoint: 'http://c'}\nmetrics: {features: [network]}", &[]);
    assert!(loaded.config.metrics.is_none() && loaded.warnings.len() == 2);
    assert!(error("otel_traces_export: {instrumentations: [htp]}", &[]).contains("did you mean http?"));
}

#[test]
fn grafana_cloud_is_a_destination() {
    let yaml =
        "grafana:\n  otlp:\n    cloud_zone: prod-eu-west-0\n    cloud_instance_id: '1234'\n    cloud_api_key: ${KEY}\n";
    let config = clean(yaml, &[("KEY", "glc_abc")]);
    assert_eq!(traces(&config).endpoint, "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp/v1/traces");
    // printf '1234:glc_abc' | base64
    assert_eq!(traces(&config).headers[0].1.0, "Basic MTIzNDpnbGNfYWJj");
    assert!(config.metrics.is_none() && !config.render().contains("MTIz"));
    let both = [("KEY", "glc_abc"), ("GRAFANA_CLOUD_SUBMIT", "traces, metrics")];
    assert_eq!(
        metrics(&clean(yaml, &both)).endpoint,
        "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp/v1/metrics"
    );
    // Headers of the user win over the authorization that was made.
    let config = clean(yaml, &[("KEY", "k"), ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic own")]);
    assert_eq!(traces(&config).headers.len(), 1);
    assert_eq!(traces(&config).headers[0].1.0, "Basic own");
    // Other endpoints beat the zone; the zone must be one; without one there must be another endpoint.
    assert_eq!(traces(&clean(yaml, &[("KEY", "k"), (GENERAL, "https://c")])).endpoint, "https://c/v1/traces");
    assert!(error(&yaml.replace("prod-eu-west-0", "evil.example/"), &[("KEY", "k")]).contains("cloud_zone"));
    assert!(error(&yaml.replace("    cloud_zone: prod-eu-west-0\n", ""), &[("KEY", "k")]).contains("cloud_zone"));
    assert_eq!(warnings("", &[("GRAFANA_CLOUD_ZONE", "z"), ("GRAFANA_CLOUD_INSTANCE_ID", "1")]).len(), 1);
}

#[test]
fn batches_fit_into_the_queue() {
    let sizes = |yaml: &str, variables: &[(&str, &str)]| {
        let yaml = format!("otel_traces_export:\n  endpoint: http://c\n{yaml}");
        let config = load(&yaml, variables).config.traces.unwrap();
        (config.batch_max_size, config.queue_size, config.batch_timeout)
    };
    let second = Duration::from_secs(1);
    assert_eq!(sizes("", &[]), (4096, 16384, second));
    assert_eq!(sizes("  batch_max_size: 10000\n", &[]), (10000, 40000, second));
    assert_eq!(sizes("  batch_max_size: 100\n  queue_size: 0\n", &[]), (100, 400, second));
    assert_eq!(sizes("  queue_size: 100\n", &[]), (50, 100, second));
    assert_eq!(sizes("  batch_timeout: 3s\n", &[("OTEL_BSP_SCHEDULE_DELAY", "200")]).2, Duration::from_millis(200));
    assert_eq!(
        sizes("", &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512"), ("OTEL_BSP_MAX_QUEUE_SIZE", "600")]),
        (512, 1024, second)
    );
    assert_eq!(sizes("  batch_max_size: 7\n", &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many")]), (7, 16384, second));
    let text = error("otel_traces_export: {batch_max_size: 100, queue_size: 150}", &[]);
    assert!(text.contains("queue_size: found \"150\", expected 0 or at least 200"), "{text}");
}

#[test]
fn the_interval_of_metrics_follows_beylas_order() {
    let interval = |yaml: &str, variables: &[(&str, &str)]| {
        let yaml = format!("otel_metrics_export:\n  endpoint: http://c\n{yaml}");
        load(&yaml, variables).config.metrics.unwrap().interval
    };
    assert_eq!(interval("", &[]), Duration::from_secs(60));
    assert_eq!(interval("", &[("OTEL_METRIC_EXPORT_INTERVAL", "5000")]), Duration::from_secs(5));
    assert_eq!(interval("  interval: 2s\n", &[("OTEL_METRIC_EXPORT_INTERVAL", "5000")]), Duration::from_secs(2));
    assert_eq!(interval("  interval: 2s\n", &[("BEYLA_METRICS_INTERVAL", "3s")]), Duration::from_secs(3));
    assert_eq!(interval("  interval: 0s\n", &[]), Duration::from_secs(60));
}
