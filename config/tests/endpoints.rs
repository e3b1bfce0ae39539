//! Endpoints and headers, rule by rule: OpenTelemetry Protocol Exporter specification, sections "Configuration Options", "Endpoint
//! URLs for OTLP/HTTP" and "Specifying headers via environment variables"; gRPC naming; Spantap's exception for endpoints of one
//! signal.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{fs, path::PathBuf};

use common::{clean, error, load, warnings};
use spantap_config::{Config, Environment, Otlp, OtlpProtocol, Secret};

const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const INSECURE: &str = "OTEL_EXPORTER_OTLP_INSECURE";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACE_METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS_METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

fn traces(config: &Config) -> &Otlp {
    &config.traces.as_ref().unwrap().otlp
}

fn metrics(config: &Config) -> &Otlp {
    &config.metrics.as_ref().unwrap().otlp
}

/// Variables, URL of traces, URL of metrics (empty: none), number of warnings.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, usize);

#[test]
fn endpoints_by_the_table() {
    let json = (PROTOCOL, "http/json");
    let grpc = (PROTOCOL, "grpc");
    #[rustfmt::skip]
    let rows: &[Row<'_>] = &[
        // The base gets the signal's path, with exactly one slash.
        (&[(GENERAL, "http://c:4318")], "http://c:4318/v1/traces", "http://c:4318/v1/metrics", 0),
        (&[(GENERAL, "http://c:4318/")], "http://c:4318/v1/traces", "http://c:4318/v1/metrics", 0),
        (&[(GENERAL, "http://c:4318/mycollector/")], "http://c:4318/mycollector/v1/traces", "http://c:4318/mycollector/v1/metrics", 0),
        (&[(GENERAL, "http://c:4318"), json], "http://c:4318/v1/traces", "http://c:4318/v1/metrics", 0),
        // No port is put in: 80 and 443 are the scheme's.
        (&[(GENERAL, "https://c")], "https://c/v1/traces", "https://c/v1/metrics", 0),
        // An endpoint of one signal is used as it is; the other signal has the general one.
        (&[(GENERAL, "http://c:4318"), (TRACES, "http://t:1/x")], "http://t:1/x", "http://c:4318/v1/metrics", 1),
        (&[(GENERAL, "http://c:4318"), (TRACES, "http://t:1/v1/traces/")], "http://t:1/v1/traces/", "http://c:4318/v1/metrics", 0),
        (&[(TRACES, "http://t:1")], "http://t:1/v1/traces", "", 0),
        // gRPC: scheme, host and port; the scheme beats INSECURE.
        (&[(GENERAL, "http://c:4317"), grpc], "http://c:4317T", "http://c:4317M", 0),
        (&[(GENERAL, "https://c"), grpc], "https://cT", "https://cM", 0),
        (&[(GENERAL, "http://c:4317"), grpc, (INSECURE, "false")], "http://c:4317T", "http://c:4317M", 0),
        (&[(GENERAL, "https://c:4317"), grpc, (INSECURE, "true")], "https://c:4317T", "https://c:4317M", 1),
        (&[(GENERAL, "http://c:4317/base"), grpc], "http://c:4317T", "http://c:4317M", 1),
        // … or without a scheme: TLS unless INSECURE is true.
        (&[(GENERAL, "c:4317"), grpc, (INSECURE, "true")], "http://c:4317T", "http://c:4317M", 0),
        (&[(GENERAL, "c:4317"), grpc, (INSECURE, "TRUE")], "http://c:4317T", "http://c:4317M", 0),
        (&[(GENERAL, "c:4317"), grpc, (INSECURE, "false")], "https://c:4317T", "https://c:4317M", 0),
        // Not a truth value of the specification: reported, and false.
        (&[(GENERAL, "c:4317"), grpc, (INSECURE, "1")], "https://c:4317T", "https://c:4317M", 1),
        (&[(GENERAL, "c:4317"), grpc], "https://c:4317T", "https://c:4317M", 1),
        (&[(GENERAL, "c:4317")], "https://c:4317T", "https://c:4317M", 1),
        (&[(GENERAL, "[::1]:4317"), grpc, (INSECURE, "true")], "http://[::1]:4317T", "http://[::1]:4317M", 0),
        (&[(GENERAL, "c:4317"), grpc, ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"), (INSECURE, "false")], "http://c:4317T", "https://c:4317M", 0),
        // One protocol for each signal.
        (&[(GENERAL, "http://c:4318"), (TRACES, "http://c:4317"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")], "http://c:4317T", "http://c:4318/v1/metrics", 0),
        // Sockets.
        (&[(GENERAL, "unix:/run/c.sock"), grpc], "unix:/run/c.sock", "unix:/run/c.sock", 0),
        (&[(GENERAL, "unix:///run/c.sock")], "unix:/run/c.sock", "unix:/run/c.sock", 0),
    ];
    for (variables, of_traces, of_metrics, count) in rows {
        let loaded = load("", variables);
        assert_eq!(loaded.warnings.len(), *count, "{variables:?}: {:?}", loaded.warnings);
        let url = |otlp: &Otlp| match &otlp.socket {
            Some(_) => otlp.shown_endpoint().into_owned(),
            None => otlp.endpoint.replace(TRACE_METHOD, "T").replace(METRICS_METHOD, "M"),
        };
        assert_eq!(url(traces(&loaded.config)), *of_traces, "{variables:?}");
        let found = loaded.config.metrics.as_ref().map(|of| url(&of.otlp)).unwrap_or_default();
        assert_eq!(found, *of_metrics, "{variables:?}");
    }
}

#[test]
fn what_is_no_endpoint_of_its_protocol_is_refused() {
    for (protocol, bad) in [
        ("http/json", "c:4318"),
        ("http/protobuf", "localhost"),
        ("grpc", "ftp://c:1"),
        ("grpc", ":4317"),
        ("grpc", "c:0"),
        ("grpc", "unix:relative"),
        ("grpc", "unix://host/path"),
        ("http/json", "unix:"),
        ("http/json", "unix:/"),
    ] {
        let text = error("", &[(PROTOCOL, protocol), (GENERAL, bad)]);
        assert!(text.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: spantap.otlp.endpoint: found"), "{bad}: {text}");
    }
    let long = format!("unix:/{}", "x".repeat(107));
    assert!(error("", &[(GENERAL, &long)]).contains("107 bytes"));
    let socket = clean("", &[(GENERAL, "unix:/run/c.sock")]);
    assert_eq!(traces(&socket).socket, Some(PathBuf::from("/run/c.sock")));
    assert_eq!(traces(&socket).endpoint, "http://localhost/v1/traces");
}

#[test]
fn options_of_a_signal_override_general_ones_and_are_not_merged() {
    let yaml = "
spantap:
  otlp:
    endpoint: https://c
    headers: {x-general: g}
    timeout: 3s
    compression: gzip
    certificate: /ca.pem
    traces: {headers: {X-Own: 'a=b%20'}, timeout: 5s}
    metrics: {client_key: /k.pem, client_certificate: /c.pem}
";
    let config = clean(yaml, &[]);
    let headers = |otlp: &Otlp| otlp.headers.clone();
    // Values in a file are taken as they are.
    assert_eq!(headers(traces(&config)), [("x-own".to_owned(), Secret("a=b%20".into()))]);
    assert_eq!(headers(metrics(&config)), [("x-general".to_owned(), Secret("g".into()))]);
    assert_eq!((traces(&config).timeout.as_secs(), metrics(&config).timeout.as_secs()), (5, 3));
    assert!(traces(&config).client_identity.is_none() && metrics(&config).client_identity.is_some());
    // What is said of one signal is nearer than what is said of all, wherever it is said; else the environment is stronger.
    let config = clean(yaml, &[(HEADERS, "e=1"), ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "7000")]);
    assert_eq!((headers(traces(&config))[0].0.as_str(), headers(metrics(&config))[0].0.as_str()), ("x-own", "e"));
    assert_eq!(metrics(&config).timeout.as_secs(), 7);
    for (bad, says) in [
        ("timeout: 3", "nanoseconds"),
        ("compression: zstd", "none"),
        ("headers: [a]", "a mapping of header names"),
        ("headers: {content-type: text/plain}", "the exporter's own"),
        ("headers: {grpc-timeout: 1S}", "the exporter's own"),
        ("headers: {'a b': hunter}", "no header name"),
        ("headers: {a: \"hunter\\n2\"}", "control characters"),
        ("header: {a: b}", "did you mean"),
        ("client_key: /k.pem", "CLIENT_CERTIFICATE"),
        ("headers_file: relative", "begin with a slash"),
        ("headers_file: /no/such/file", "cannot read /no/such/file"),
    ] {
        let text = error(&format!("spantap:\n  otlp:\n    endpoint: https://c\n    {bad}\n"), &[]);
        assert!(text.contains(says) && !text.contains("hunter"), "{bad}: {text}");
        assert!(text.starts_with("config.yml:4:"), "{text}");
    }
}

#[test]
fn credentials_in_clear_and_certificates_unseen_are_told() {
    let far = |endpoint: &str, protocol: &str| {
        warnings("", &[(TRACES, endpoint), (PROTOCOL, protocol), (HEADERS, "Authorization=Basic abc")]).len()
    };
    assert_eq!(far("http://far:4318", "http/json"), 1);
    assert_eq!(far("http://far:4317", "grpc"), 1);
    assert_eq!(far("https://far:4317", "grpc"), 0);
    assert_eq!(far("http://127.0.0.1:4317", "grpc"), 0);
    assert_eq!(far("unix:/run/c.sock", "grpc"), 0);
    let unseen = warnings("otel_traces_export: {endpoint: 'https://c', insecure_skip_verify: true}", &[]);
    assert!(unseen.len() == 1 && unseen[0].contains("NOT verified"), "{unseen:?}");
    assert!(warnings("otel_traces_export: {endpoint: 'http://c', insecure_skip_verify: true}", &[]).is_empty());
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn secrets_come_from_files_and_are_read_again() {
    let files = Files::new();
    let token = files.write("token", "first-hunter\n");
    let yaml = format!(
        "spantap: {{otlp: {{endpoint: 'https://c', headers: {{authorization: 'Bearer ${{file:{token}}}'}}}}}}\n"
    );
    let loaded = load(&yaml, &[]);
    assert!(loaded.warnings.is_empty());
    let otlp = traces(&loaded.config);
    assert_eq!(otlp.headers[0].1.0, "Bearer first-hunter");
    let source = otlp.header_source.as_ref().unwrap();
    assert_eq!(source.files(), [PathBuf::from(&token)]);
    let shown = format!("{:?}{}", loaded.config, loaded.config.render());
    assert!(!shown.contains("hunter") && shown.contains(&token), "{shown}");
    files.write("token", "second");
    assert_eq!(source.read().unwrap(), [("authorization".to_owned(), Secret("Bearer second".into()))]);
    fs::remove_file(&token).unwrap();
    let error = source.read().unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains(&token), "{error}");
}

#[test]
fn a_file_of_headers_is_added_to_the_others() {
    let files = Files::new();
    let path = files.write("headers", "# for the tenant\nAuthorization: Basic YTpi\n\nX-Scope-OrgID:  7\r\n");
    let variables = [
        (GENERAL, "https://c"),
        (HEADERS, "authorization=old,a=1"),
        ("SPANTAP_OTLP_TRACES_HEADERS_FILE", path.as_str()),
    ];
    let config = clean("", &variables);
    let headers: Vec<_> =
        traces(&config).headers.iter().map(|(name, value)| (name.as_str(), value.0.as_str())).collect();
    assert_eq!(headers, [("a", "1"), ("authorization", "Basic YTpi"), ("x-scope-orgid", "7")]);
    assert!(metrics(&config).headers.len() == 2 && metrics(&config).header_source.is_none());
    files.write("headers", "Authorization: Basic bmV3\n");
    let source = traces(&config).header_source.clone().unwrap();
    assert_eq!(source.read().unwrap()[1].1.0, "Basic bmV3");
    files.write("headers", "hunter2\n");
    let error = source.read().unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("hunter"), "{error}");
}

#[test]
fn what_is_in_a_file_is_never_shown() {
    let files = Files::new();
    let secret = files.write("s", "hunter2");
    for yaml in [
        format!("otel_traces_export: {{endpoint: '${{file:{secret}}}'}}"),
        format!("otel_traces_export: {{endpoint: 'https://c', protocol: '${{file:{secret}}}'}}"),
        format!("otel_traces_export: {{endpoint: 'https://c', batch_timeout: '${{file:{secret}}}'}}"),
        format!("otel_traces_export: {{endpoint: 'https://c', instrumentations: '${{file:{secret}}},http'}}"),
        format!("otel_traces_export: '${{file:{secret}}}'"),
    ] {
        let text = error(&yaml, &[]);
        assert!(!text.contains("hunter"), "{text}");
    }
    for (bad, says) in
        [("${file:relative}", "slash"), ("${file:/dev/zero}", "no regular file"), ("${file:/no/such}", "cannot read")]
    {
        let text = error(&format!("service_name: '{bad}'"), &[]);
        assert!(text.starts_with("config.yml:1:15: ") && text.contains(says), "{text}");
    }
    // The agent has no use for what is in there, and need not be able to read it.
    let env = Environment::default().without_files();
    let yaml = "otel_traces_export: {endpoint: 'https://c'}\nspantap: {otlp: {headers: {a: '${file:/no/such}'}, headers_file: /no/such}}";
    let config = Config::parse("config.yml".as_ref(), yaml, &env).unwrap().config;
    assert!(traces(&config).header_source.is_none() && traces(&config).protocol == OtlpProtocol::HttpProtobuf);
}
