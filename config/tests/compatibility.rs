//! What Beyla's documentation shows loads as it stands, and means what it means there.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{clean, error, load, warnings};
use spantap_config::{Console, Environment, PortRange};
use std::path::{Path, PathBuf};

/// The whole configuration of the page about export modes.
const PAGE: &str = "\
discovery:
  instrument:
    - open_ports: 443
otel_metrics_export:
  endpoint: http://localhost:4318
otel_traces_export:
  endpoint: http://localhost:4318
";

#[test]
fn the_page_of_beyla_loads_without_a_warning() {
    let config = clean(PAGE, &[]);
    assert_eq!(config.discovery.instrument.len(), 1);
    assert_eq!(config.discovery.instrument[0].open_ports, [PortRange { first: 443, last: 443 }]);
    assert_eq!(config.traces.as_ref().unwrap().otlp.endpoint, "http://localhost:4318/v1/traces");
    assert_eq!(config.metrics.as_ref().unwrap().otlp.endpoint, "http://localhost:4318/v1/metrics");
    assert!(config.has_exporter());
    assert!(config.fallback.is_none());
}

#[test]
fn either_export_section_may_be_missing() {
    let config = clean("otel_traces_export:\n  endpoint: http://localhost:4318\n", &[]);
    assert!(config.traces.is_some() && config.metrics.is_none() && config.fallback.is_none());
}

#[test]
fn nothing_at_all_is_fine() {
    let config = clean("", &[]);
    assert!(config.discovery.instrument.is_empty());
    assert!(!config.has_exporter());
    let fallback = config.fallback.unwrap();
    assert_eq!(fallback.traces.unwrap().otlp.endpoint, "http://localhost:4318/v1/traces");
    assert_eq!(fallback.metrics.unwrap().otlp.endpoint, "http://localhost:4318/v1/metrics");
    assert_eq!(config.console, Console::Off);
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9465");
    assert_eq!(config.socket, PathBuf::from("/run/spantap/ingest.sock"));
    for exe in
        ["/usr/bin/spantap", "/opt/x/spantap-agent", "/usr/bin/beyla", "/bin/otelcol", "/otelcol-contrib", "/x/obi"]
    {
        assert!(config.discovery.exclude.iter().any(|s| s.exe_path.as_ref().unwrap().matches(exe)), "{exe}");
    }
    for exe in ["/usr/sbin/nginx", "/usr/bin/python3", "/otelcol-contrib/run"] {
        assert!(!config.discovery.exclude.iter().any(|s| s.exe_path.as_ref().unwrap().matches(exe)), "{exe}");
    }
}

#[test]
fn open_ports_takes_all_three_forms() {
    for (form, ports) in [
        ("443", vec![(443, 443)]),
        ("\"80,443,8000-8999\"", vec![(80, 80), (443, 443), (8000, 8999)]),
        ("80, 8000 - 8999", vec![(80, 80), (8000, 8999)]),
        ("[80, 443]", vec![(80, 80), (443, 443)]),
    ] {
        let config = clean(&format!("discovery: {{instrument: [{{open_ports: {}}}]}}", quote(form)), &[]);
        let found: Vec<_> = config.discovery.instrument[0].open_ports.iter().map(|r| (r.first, r.last)).collect();
        assert_eq!(found, ports, "{form}");
    }
    for bad in ["0", "65536", "80-", "90-80", "http", "-80", "[]", "[a]", "\"\"", "~", "80,,443", "+80"] {
        let text = error(&format!("discovery: {{instrument: [{{open_ports: {bad}}}]}}", bad = quote(bad)), &[]);
        assert!(text.contains("discovery.instrument[0].open_ports"), "{bad}: {text}");
    }
}

/// A comma in a plain scalar would end it inside of a flow mapping.
fn quote(form: &str) -> String {
    if form.contains(',') && !form.starts_with(['[', '"']) { format!("'{form}'") } else { form.to_owned() }
}

#[test]
fn shortcuts_become_one_selector() {
    let config = clean("open_port: 8080\nservice_name: shop\n", &[("BEYLA_AUTO_TARGET_EXE", "*/java")]);
    let [selector] = config.discovery.instrument.as_slice() else { panic!("{:?}", config.discovery.instrument) };
    assert_eq!(selector.open_ports, [PortRange { first: 8080, last: 8080 }]);
    assert!(selector.exe_path.as_ref().unwrap().matches("/usr/bin/java"));
    assert_eq!(config.service_name.as_deref(), Some("shop"));
    // Regular expressions match anywhere, globs as a whole.
    let config = clean("executable_name: ja[v]a$\n", &[]);
    let exe = config.discovery.instrument[0].exe_path.clone().unwrap();
    assert!(exe.matches("/usr/bin/java") && !exe.matches("/usr/bin/javac") && exe.is_regex());
    // Process ids decide alone.
    let loaded = load("target_pids: [1234, 5678]\ndiscovery: {instrument: [{open_ports: 1}]}\n", &[]);
    assert_eq!(loaded.config.discovery.instrument.len(), 1);
    assert_eq!(loaded.config.discovery.instrument[0].target_pids.len(), 2);
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn families_of_variables_have_an_order() {
    let all = [("BEYLA_OPEN_PORT", "1"), ("OTEL_EBPF_OPEN_PORT", "2"), ("SPANTAP_OPEN_PORT", "3")];
    for (variables, port) in [(&all[..1], 1), (&all[..2], 2), (&all[..3], 3)] {
        let config = clean("open_port: 9", variables);
        assert_eq!(config.discovery.instrument[0].open_ports[0].first, port);
    }
    // Beyla drops an OTEL_ after its prefix.
    let loaded = load("", &[("BEYLA_OTEL_INSECURE_SKIP_VERIFY", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")]);
    assert!(loaded.config.traces.unwrap().otlp.insecure_skip_verify);
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn the_file_is_found_as_in_beyla() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, port: u16| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("open_port: {port}\n")).unwrap();
        path
    };
    let (flag, spantap, beyla, obi) = (path("flag", 1), path("spantap", 2), path("beyla", 3), path("obi", 4));
    let port = |flag: Option<&Path>, variables: &[(&str, &PathBuf)]| {
        let env = Environment::of(variables.iter().map(|(name, path)| (*name, path.to_str().unwrap())));
        let loaded = spantap_config::Config::load(flag, &env).unwrap();
        assert_eq!(loaded.warnings, []);
        (loaded.config.discovery.instrument.first().map(|s| s.open_ports[0].first), loaded.source)
    };
    let named = [("OTEL_EBPF_CONFIG_PATH", &obi), ("BEYLA_CONFIG_PATH", &beyla), ("SPANTAP_CONFIG_PATH", &spantap)];
    assert_eq!(port(None, &[]), (None, None));
    assert_eq!(port(Some(&flag), &[]), (Some(1), Some(flag.clone())));
    assert_eq!(port(Some(&flag), &named[..1]).0, Some(4));
    assert_eq!(port(Some(&flag), &named[..2]).0, Some(3));
    assert_eq!(port(Some(&flag), &named[..3]), (Some(2), Some(spantap.clone())));
    let missing = spantap_config::Config::load(Some(Path::new("/nowhere/x.yml")), &Environment::of([("A", "b")]));
    assert!(missing.unwrap_err().to_string().contains("/nowhere/x.yml"));
}

#[test]
fn a_key_of_beyla_that_is_not_served_warns_once_unless_it_has_its_default() {
    assert_eq!(
        warnings("ebpf: {wakeup_len: 500, batch_timeout: 1000ms, context_propagation: disabled}\n", &[]),
        [""; 0]
    );
    let all = warnings(
        "ebpf: {wakeup_len: 5, context_propagation: headers}\nrouting: ~\n".replace("routing: ~\n", "").as_str(),
        &[],
    );
    assert_eq!(all, ["config.yml:1:8: ebpf.wakeup_len: not served yet, no effect"]);
    let all = warnings("attributes:\n  host_id: {override: a}\n  metric_span_names_limit: 7\n", &[]);
    assert_eq!(all, ["config.yml:3:3: attributes.metric_span_names_limit: not served yet, no effect"]);
    let all =
        warnings("", &[("BEYLA_BPF_WAKEUP_LEN", "7"), ("BEYLA_NETWORK_METRICS", "false"), ("BEYLA_PORT_80_TCP", "x")]);
    assert_eq!(all, ["BEYLA_BPF_WAKEUP_LEN: ebpf.wakeup_len is not served yet, no effect"]);
    assert_eq!(
        warnings("", &[("SPANTAP_SOKET", "x")]),
        ["SPANTAP_SOKET: unknown variable; did you mean SPANTAP_SOCKET?"]
    );
    // Of the standard's variables those of OTLP exporters; other signals are not ours, and other families other programs'.
    assert_eq!(
        warnings(
            "",
            &[("OTEL_EXPORTER_OTLP_HEADER", "x"), ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x"), ("OTEL_JAVA_X", "x")]
        ),
        ["OTEL_EXPORTER_OTLP_HEADER: unknown variable; did you mean OTEL_EXPORTER_OTLP_HEADERS?"]
    );
}
