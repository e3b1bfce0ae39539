//! What is wrong is said with file, line, column, key, what was found and what was expected.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{clean, error, load, warnings};

#[test]
fn unknown_keys_name_the_nearest() {
    for (yaml, message) in [
        ("discovry: {}\n", "config.yml:1:1: discovry: unknown key; did you mean `discovery`?"),
        ("open_ports: 80\n", "config.yml:1:1: open_ports: unknown key; did you mean `open_port`?"),
        ("exe_path: x\n", "config.yml:1:1: exe_path: unknown key"),
        ("endpoint: http://c\n", "config.yml:1:1: endpoint: unknown key; did you mean `spantap.otlp.endpoint`?"),
        (
            "otel_traces_export:\n  endpiont: http://c\n",
            "config.yml:2:3: otel_traces_export.endpiont: unknown key; did you mean `endpoint`?",
        ),
        (
            "otel_traces_export:\n  timeout: 5s\n",
            "config.yml:2:3: otel_traces_export.timeout: unknown key; known here: backoff_initial_interval, ",
        ),
        (
            "prometheus_export:\n  endpoint: http://c\n",
            "config.yml:2:3: prometheus_export.endpoint: unknown key; known here: ",
        ),
        ("network:\n  enabel: true\n", "config.yml:2:3: network.enabel: unknown key; did you mean `enable`?"),
        (
            "spantap: {zzzzzzzz: 1}\n",
            "config.yml:1:11: spantap.zzzzzzzz: unknown key; known here: accept_wrong_fionread, admin, agent_queue_size,",
        ),
        (
            "discovery:\n  instrument:\n    - open_port: 80\n",
            "config.yml:3:7: discovery.instrument[0].open_port: unknown key; did you mean `open_ports`?",
        ),
        (
            "discovery:\n  instrument:\n    - exe_path_regexp: 80\n",
            "config.yml:3:7: discovery.instrument[0].exe_path_regexp: unknown key",
        ),
    ] {
        let text = error(yaml, &[]);
        assert!(text.starts_with(message), "{text}\nfrom {yaml}");
    }
}

#[test]
fn wrong_values_say_what_was_expected() {
    for (yaml, message) in [
        (
            "otel_traces_export:\n  batch_max_size: abc\n",
            "config.yml:2:19: otel_traces_export.batch_max_size: found \"abc\", expected a whole number from 1 to 65536",
        ),
        ("otel_traces_export: 5\n", "config.yml:1:21: otel_traces_export: found \"5\", expected a mapping"),
        ("- a\n", "config.yml:1:1: the file: found a list, expected a mapping"),
        (
            "shutdown_timeout: 10\n",
            "config.yml:1:19: shutdown_timeout: found \"10\", expected a duration with its unit, such as 500ms, 15s, 1m30s or 2h; a number without unit would be nanoseconds",
        ),
        ("shutdown_timeout: -1s\n", "config.yml:1:19: shutdown_timeout: found \"-1s\", expected a duration"),
        ("log_level: verbos\n", "config.yml:1:12: log_level: found \"verbos\", expected debug,"),
        (
            "log_level: wran\n",
            "config.yml:1:12: log_level: found \"wran\", expected debug, info, warn, warning, error or trace; did you mean warn?",
        ),
        ("log_level: [info]\n", "config.yml:1:12: log_level: found a list, expected a single value"),
        (
            "prometheus_export: {port: 70000}\n",
            "config.yml:1:27: prometheus_export.port: found \"70000\", expected a whole number from 0 to 65535",
        ),
        (
            "prometheus_export: {port: 9465}\n",
            "config.yml:1:27: prometheus_export.port: port 9465 is that of spantap.admin, too",
        ),
        (
            "otel_metrics_export:\n  buckets:\n    duration_histogram: [1, 1]\n",
            "config.yml:3:29: otel_metrics_export.buckets.duration_histogram[1]: found \"1\", expected numbers of seconds, each larger",
        ),
        ("otel_metrics_export:\n  buckets:\n    duration_histogram: [1, .inf]\n", "config.yml:3:29: "),
        (
            "otel_metrics_export: {ttl: 0s}\n",
            "config.yml:1:28: otel_metrics_export.ttl: found \"0s\", expected longer than 0",
        ),
        (
            "spantap: {ring_buffer_size: 3MiB}\n",
            "config.yml:1:29: spantap.ring_buffer_size: found \"3MiB\", expected a power of two",
        ),
        ("spantap: {head_size: 17000}\n", "config.yml:1:22: spantap.head_size: found \"17000\", expected 256 to 16384"),
        (
            "spantap: {socket: relative}\n",
            "config.yml:1:19: spantap.socket: found \"relative\", expected an absolute path",
        ),
        (
            "spantap: {admin: localhost}\n",
            "config.yml:1:18: spantap.admin: found \"localhost\", expected an address with port",
        ),
        (
            "spantap: {spool: {path: spool}}\n",
            "config.yml:1:25: spantap.spool.path: found \"spool\", expected the absolute path of a folder",
        ),
        (
            "spantap: {btf: kernel.btf}\n",
            "config.yml:1:16: spantap.btf: found \"kernel.btf\", expected the absolute path of a file with BTF, or of a folder",
        ),
        (
            "spantap: {spool: {max_size: 1MiB}}\n",
            "config.yml:1:29: spantap.spool.max_size: found \"1MiB\", expected 16MiB to 256GiB",
        ),
        (
            "spantap: {spool: {max_age: 0s}}\n",
            "config.yml:1:28: spantap.spool.max_age: found \"0s\", expected 1s or longer",
        ),
        ("spantap: {spool: /var/spool}\n", "config.yml:1:18: spantap.spool: found"),
        ("spantap: {forwarder_uids: []}\n", "config.yml:1:27: spantap.forwarder_uids: found a list, expected numeric"),
        (
            "routes: {patterns: [user]}\n",
            "config.yml:1:21: routes.patterns[0]: found \"user\", expected a path pattern",
        ),
        (
            "discovery: {instrument: [{exe_path: '[a'}]}\n",
            "config.yml:1:37: discovery.instrument[0].exe_path: found \"[a\", expected a glob (",
        ),
        (
            "discovery: {services: [{exe_path: '(a'}]}\n",
            "config.yml:1:35: discovery.services[0].exe_path: found \"(a\", expected a regular expression (",
        ),
        (
            "discovery: {instrument: [{languages: cobol}]}\n",
            "config.yml:1:38: discovery.instrument[0].languages: found \"cobol\", expected go, java,",
        ),
        (
            "discovery: {instrument: [{exports: [spans], open_ports: 1}]}\n",
            "config.yml:1:37: discovery.instrument[0].exports[0]: found \"spans\", expected metrics, traces or logs",
        ),
        (
            "discovery: {instrument: {open_ports: 1}}\n",
            "config.yml:1:25: discovery.instrument: found a mapping, expected a list of entries",
        ),
        (
            "otel_traces_export: {sampler: {name: jaeger_remote}}\n",
            "config.yml:1:38: otel_traces_export.sampler.name: found \"jaeger_remote\", expected always_on,",
        ),
        (
            "otel_traces_export: {sampler: {name: traceidratio, arg: '2'}}\n",
            "config.yml:1:57: otel_traces_export.sampler.arg: found \"2\", expected a share",
        ),
    ] {
        let text = error(yaml, &[]);
        assert!(text.starts_with(message), "{text}\nfrom {yaml}");
    }
    for (name, bad) in [
        ("BEYLA_PROMETHEUS_PORT", "x"),
        ("SPANTAP_ADMIN", "x"),
        ("BEYLA_OPEN_PORT", "x"),
        ("BEYLA_METRICS_INTERVAL", "60"),
    ] {
        let text = error("", &[(name, bad)]);
        assert!(
            text.starts_with(&format!("{name}: ")) && text.contains(&format!("found {bad:?}, expected ")),
            "{text}"
        );
    }
}

#[test]
fn a_criterion_is_never_left_out_in_silence() {
    for criterion in ["k8s_namespace: shop", "container_name: x", "k8s_pod_labels: {a: b}", "k8s_node_name: n"] {
        for list in ["instrument", "exclude_instrument", "services"] {
            let text = error(&format!("discovery:\n  {list}:\n    - open_ports: 80\n      {criterion}\n"), &[]);
            let key = criterion.split(':').next().unwrap();
            let at = 7 + key.len() + 2;
            assert!(
                text.starts_with(&format!(
                    "config.yml:4:{at}: discovery.{list}[0].{key}: this criterion is not supported yet"
                )),
                "{text}"
            );
        }
    }
    for empty in [
        "{}",
        "{name: x}",
        "{containers_only: false}",
        "{exe_path: ''}",
        "{exe_path: ~, open_ports: 1}",
        "{exe_path: '${UNSET}', open_ports: 1}",
        "{languages: ~, open_ports: 1}",
    ] {
        let text = error(&format!("discovery: {{instrument: [{empty}]}}"), &[]);
        assert!(text.contains("discovery.instrument[0]"), "{text}");
    }
    assert!(error("discovery: {survey: [{open_ports: 1}]}", &[]).contains("every process would be observed"));
    assert_eq!(warnings("discovery: {instrument: [{open_ports: 1}], survey: [{open_ports: 1}]}", &[]).len(), 1);
    assert_eq!(warnings("discovery: {instrument: []}", &[]).len(), 1);
}

#[test]
fn overrides_that_are_not_served_warn_and_exports_are_per_entry() {
    let yaml = "discovery:\n  instrument:\n    - {open_ports: 1, exports: []}\n    - {open_ports: 2, exports: [metrics]}\n    - {open_ports: 3, exports: ~}\n    - {open_ports: 4, metrics: {features: [application]}}\n";
    let loaded = load(yaml, &[]);
    let exports: Vec<_> =
        loaded.config.discovery.instrument.iter().map(|s| (s.exports.traces, s.exports.metrics)).collect();
    assert_eq!(exports, [(false, false), (false, true), (true, true), (true, true)]);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded.warnings[0].to_string().starts_with("config.yml:6:23: discovery.instrument[3].metrics: not served yet")
    );
}

#[test]
fn legacy_services_count_only_without_instrument() {
    let legacy = "discovery: {services: [{exe_path: 'ngi.x$'}], exclude_services: [{open_ports: 22}]}";
    let config = clean(legacy, &[]);
    assert!(config.discovery.instrument[0].exe_path.as_ref().unwrap().matches("/usr/sbin/nginx"));
    assert_eq!(config.discovery.exclude[0].open_ports[0].first, 22);
    let config = clean("discovery: {services: [{exe_path: a}], default_exclude_services: [{exe_path: ssh}]}", &[]);
    assert!(config.discovery.exclude.len() == 1 && config.discovery.exclude[0].exe_path.as_ref().unwrap().is_regex());
    let loaded = load(
        "discovery: {services: [{exe_path: a}], exclude_services: [{exe_path: b}], instrument: [{open_ports: 1}]}",
        &[],
    );
    assert_eq!((loaded.config.discovery.instrument.len(), loaded.warnings.len()), (1, 2));
    assert!(loaded.config.discovery.instrument[0].exe_path.is_none());
}

#[test]
fn the_rendered_configuration_holds_what_counts_and_no_secret() {
    let yaml = "open_port: '80,8000-8999'\notel_traces_export: {endpoint: 'https://c/v1/traces?token=hunter2'}\nspantap: {admin: off}\n";
    let text = clean(yaml, &[("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic hunter2")]).render();
    for line in [
        "    - open_ports: \"80,8000-8999\"",
        "  endpoint: https://c/v1/traces",
        "    authorization: [redacted]",
        "  batch_timeout: 1s",
        "otel_metrics_export: off",
        "sampler: parentbased_always_on",
        "  admin: off",
        "  spool: off",
        "shutdown_timeout: 10s",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}
