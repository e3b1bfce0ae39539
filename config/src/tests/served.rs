//! Every served key changes the configuration, from the file and from each of its variables alike.

use std::{collections::BTreeSet, path::Path};

use crate::{Config, ConfigError, Environment, environment::family, keys};

/// What must be there for a key to have an effect.
const BASE: &str = "\
otel_traces_export:
  endpoint: http://collector:4318
  sampler:
    name: traceidratio
otel_metrics_export:
  endpoint: http://collector:4318
prometheus_export:
  port: 9400
spantap:
  spool:
    path: /var/spool/base
";

/// Keys, a value in the file, the same value in a variable.
#[rustfmt::skip]
const SAMPLES: &[(&str, &str, &str)] = &[
    ("AutoTargetExe", "'*/java'", "*/java"),
    ("AutoTargetLanguage", "'{go,java}'", "{go,java}"),
    ("attributes.extra_group_attributes", "{k8s_app_meta: [k8s.pod.name]}", ""),
    ("attributes.host_id.override", "abc", "abc"),
    ("attributes.instance_id.override_hostname", "web-1", "web-1"),
    ("attributes.select", "{http.*: {exclude: [url.scheme]}}", ""),
    ("attributes.sensitive_query_params.add", "[mine, yours]", "mine,yours"),
    ("attributes.sensitive_query_params.remove", "[token]", "token"),
    ("discovery.instrument", "[{open_ports: 80}]", ""),
    ("discovery.exclude_instrument", "[{exe_path: '*/nginx'}]", ""),
    ("discovery.default_exclude_instrument", "[]", ""),
    ("discovery.services", "[{exe_path: nginx}]", ""),
    ("discovery.exclude_services", "[{open_ports: 22}]", ""),
    ("discovery.poll_interval", "3s", "3s"),
    ("discovery.exclude_otel_instrumented_services", "false", "false"),
    ("executable_name", "nginx", "nginx"),
    ("executable_path", "nginx", "nginx"),
    ("log_format", "json", "json"),
    ("log_level", "debug", "DEBUG"),
    ("open_port", "'80,443'", "80,443"),
    ("service_name", "shop", "shop"),
    ("service_namespace", "shops", "shops"),
    ("shutdown_timeout", "1m30s", "1m30s"),
    ("target_pids", "[1, 2]", "1,2"),
    ("trace_printer", "json_indent", "json_indent"),
    ("metrics.features", "[network]", "network"),
    ("otel_metrics_export.features", "[network]", ""),
    ("otel_metrics_export.buckets.request_size_histogram", "[0, 10]", ""),
    ("otel_metrics_export.buckets.response_size_histogram", "[0, 10]", ""),
    ("otel_metrics_export.buckets.duration_histogram", "[0, 0.5, 1]", ""),
    ("otel_metrics_export.endpoint", "https://other", "https://other"),
    ("otel_metrics_export.histogram_aggregation", "base2_exponential_bucket_histogram", "base2_exponential_bucket_histogram"),
    ("otel_metrics_export.insecure_skip_verify", "true", "true"),
    ("otel_metrics_export.instrumentations", "[sql]", "sql"),
    ("otel_metrics_export.interval", "5s", "5s"),
    ("otel_metrics_export.ttl", "1h", "1h"),
    ("otel_traces_export.backoff_initial_interval", "2s", "2s"),
    ("otel_traces_export.backoff_max_elapsed_time", "1h", "1h"),
    ("otel_traces_export.backoff_max_interval", "2m", "2m"),
    ("otel_traces_export.batch_max_size", "100", "100"),
    ("otel_traces_export.batch_timeout", "250ms", "250ms"),
    ("otel_traces_export.endpoint", "https://other/x", "https://other/x"),
    ("otel_traces_export.insecure_skip_verify", "true", "true"),
    ("otel_traces_export.instrumentations", "[sql]", "sql"),
    ("otel_traces_export.queue_size", "100000", "100000"),
    ("otel_traces_export.sampler.arg", "'0.25'", "0.25"),
    ("otel_traces_export.sampler.name", "always_off", "always_off"),
    ("prometheus_export.buckets.request_size_histogram", "[0, 10]", ""),
    ("prometheus_export.buckets.response_size_histogram", "[0, 10]", ""),
    ("prometheus_export.buckets.duration_histogram", "[1]", ""),
    ("prometheus_export.disable_build_info", "true", "true"),
    ("prometheus_export.exemplar_filter", "always_on", "always_on"),
    ("prometheus_export.features", "[network]", "network"),
    ("prometheus_export.instrumentations", "[sql]", "sql"),
    ("prometheus_export.path", "/m", "/m"),
    ("prometheus_export.port", "9500", "9500"),
    ("prometheus_export.ttl", "1m", "1m"),
    ("routes.patterns", "['/user/{id}']", ""),
    ("routes.ignored_patterns", "['/health']", ""),
    ("routes.ignore_mode", "traces", ""),
    ("routes.unmatched", "unset", ""),
    ("routes.wildcard_char", "'#'", ""),
    ("routes.max_path_segment_cardinality", "20", ""),
    ("spantap.headers.request", "[X-Request-Id]", "x-request-id"),
    ("spantap.headers.response", "[x-cache, etag]", "x-cache,etag"),
    ("spantap.sampler.keep_errors", "true", "true"),
    ("spantap.sampler.keep_slower_than", "1s", "1s"),
    ("spantap.sampler.keep_slowest", "5", "5"),
    ("spantap.metrics.temporality", "delta", "delta"),
    ("spantap.socket", "/tmp/s.sock", "/tmp/s.sock"),
    ("spantap.admin", "off", "off"),
    ("spantap.console", "text", "text"),
    ("spantap.ring_buffer_size", "16MiB", "16MiB"),
    ("spantap.agent_queue_size", "1048576", "1048576"),
    ("spantap.head_size", "16KiB", "16KiB"),
    ("spantap.hooks", "tracepoint", "tracepoint"),
    ("spantap.btf", "/boot/kernel.btf", "/boot/kernel.btf"),
    ("spantap.tls", "off", "off"),
    ("spantap.links", "off", "off"),
    ("spantap.links_experimental", "[tokio]", "tokio"),
    ("ebpf.context_propagation", "headers", "headers"),
    ("spantap.accept_wrong_fionread", "true", "true"),
    ("spantap.exclude_instrumented_metrics", "true", "true"),
    ("spantap.forwarder_uids", "[1000, 1001]", "1000,1001"),
    ("spantap.agent_uids", "[1000, 1001]", "1000,1001"),
    ("spantap.user", "otel", "otel"),
    ("spantap.spool.path", "/var/lib/spantap/spool", "/var/lib/spantap/spool"),
    ("spantap.spool.max_size", "1GiB", "1073741824"),
    ("spantap.spool.max_age", "90m", "1h30m"),
    ("spantap.otlp.headers", "{a: b}", "a=b"),
    ("spantap.otlp.timeout", "3s", "3000"),
    ("spantap.otlp.compression", "gzip", "gzip"),
    ("spantap.otlp.certificate", "/ca.pem", "/ca.pem"),
    ("spantap.otlp.traces.headers", "{a: b}", "a=b"),
    ("spantap.otlp.traces.timeout", "3s", "3000"),
    ("spantap.otlp.traces.compression", "gzip", "gzip"),
    ("spantap.otlp.traces.certificate", "/ca.pem", "/ca.pem"),
    ("spantap.otlp.metrics.headers", "{a: b}", "a=b"),
    ("spantap.otlp.metrics.timeout", "3s", "3000"),
    ("spantap.otlp.metrics.compression", "gzip", "gzip"),
    ("spantap.otlp.metrics.certificate", "/ca.pem", "/ca.pem"),
];

/// Keys whose effect is an error, a warning, or depends on others; each has a test of its own.
const ELSEWHERE: &[&str] = &[
    "discovery.survey",
    "discovery.default_exclude_services",
    "grafana.otlp.cloud_api_key",
    "grafana.otlp.cloud_instance_id",
    "grafana.otlp.cloud_submit",
    "grafana.otlp.cloud_zone",
    "otel_metrics_export.exponential_histogram.max_scale",
    "otel_metrics_export.exponential_histogram.max_size",
    "otel_metrics_export.protocol",
    "otel_traces_export.protocol",
    "spantap.headers.allow_sensitive",
    "spantap.otlp.endpoint",
    "spantap.otlp.protocol",
    "spantap.otlp.headers_file",
    "spantap.otlp.client_key",
    "spantap.otlp.client_certificate",
    "spantap.otlp.insecure",
    "spantap.otlp.traces.headers_file",
    "spantap.otlp.traces.client_key",
    "spantap.otlp.traces.client_certificate",
    "spantap.otlp.traces.insecure",
    "spantap.otlp.metrics.headers_file",
    "spantap.otlp.metrics.client_key",
    "spantap.otlp.metrics.client_certificate",
    "spantap.otlp.metrics.insecure",
    "prometheus_export.extra_resource_attributes",
    "processes.interval",
    "spantap.metrics.exemplar_filter",
    "spantap.prometheus.basic_auth.password",
    "spantap.prometheus.basic_auth.username",
    "spantap.prometheus.tls_certificate",
    "spantap.prometheus.tls_key",
];

fn parse(yaml: &str, variable: Option<(&str, &str)>) -> Result<Config, ConfigError> {
    let variable = variable.unwrap_or(("HOME", "/root"));
    Config::parse(Path::new("c.yml"), yaml, &Environment::of([variable])).map(|loaded| loaded.config)
}

/// `BASE` with one more value, put into its section.
fn with(path: &str, value: &str) -> String {
    let mut lines: Vec<String> = BASE.lines().map(str::to_owned).collect();
    let names: Vec<&str> = path.split('.').collect();
    let mut position = 0;
    for (depth, name) in names.iter().enumerate() {
        let head = format!("{:indent$}{name}:", "", indent = depth * 2);
        let last = depth + 1 == names.len();
        let found = lines.iter().skip(position).position(|line| line.starts_with(&head));
        match (found, last) {
            (Some(offset), true) => lines[position + offset] = format!("{head} {value}"),
            (None, true) => lines.insert(position, format!("{head} {value}")),
            (Some(offset), false) => position += offset + 1,
            (None, false) => {
                lines.insert(position, head);
                position += 1;
            }
        }
    }
    lines.join("\n")
}

#[test]
fn every_served_key_has_an_effect() {
    let base = parse(BASE, None).unwrap();
    for (path, in_file, in_variable) in SAMPLES {
        let yaml = with(path, in_file);
        let changed = parse(&yaml, None).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_ne!(base, changed, "{path} has no effect:\n{yaml}");
        for name in keys::find(path).unwrap().variables.split_whitespace().flat_map(family) {
            let mut by_variable = parse(BASE, Some((&name, in_variable))).unwrap_or_else(|error| panic!("{error}"));
            // One variable stands for this key of both signals; and features for Prometheus, too.
            if path.ends_with("insecure_skip_verify") {
                let (traces, metrics) = (by_variable.traces.as_mut().unwrap(), by_variable.metrics.as_mut().unwrap());
                assert!(traces.otlp.insecure_skip_verify && metrics.otlp.insecure_skip_verify);
                let other = if path.contains("traces") { &mut metrics.otlp } else { &mut traces.otlp };
                other.insecure_skip_verify = false;
            }
            assert_eq!(by_variable, changed, "{name} differs from {path}");
        }
    }
}

#[test]
fn every_served_key_has_a_sample() {
    let samples: BTreeSet<&str> = SAMPLES.iter().map(|(path, _, _)| *path).chain(ELSEWHERE.iter().copied()).collect();
    let served: BTreeSet<&str> = keys::all().filter(|key| key.served).map(|key| key.path).collect();
    assert_eq!(samples, served);
}
