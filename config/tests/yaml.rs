//! YAML: what is taken, what is refused, what is replaced.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{clean, error, load};

#[test]
fn yaml_is_bounded_and_its_flaws_have_lines() {
    for (yaml, message) in [
        ("a: b\n c: d\n", "config.yml:2:"),
        ("log_level: info\nlog_level: warn\n", "config.yml:2:1: key `log_level` a second time"),
        ("log_level: info\n---\nlog_level: warn\n", "config.yml:2:1: a second document"),
        ("? [a]\n: b\n", "config.yml:1:3: a key that is a collection"),
        ("a: *b\n", "config.yml:1:4"),
        ("log_level: ${\n", "config.yml:1:12: `${` without `}`"),
        ("log_level: ${A:?x}\n", "config.yml:1:12: \"${A:?x}\" is no reference"),
    ] {
        let text = error(yaml, &[]);
        assert!(text.starts_with(message), "{text}\nfrom {yaml}");
    }
    let deep = |depth| format!("ebpf: {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(error(&deep(70), &[]).contains("nested deeper than 64"));
    assert!(error(&deep(5000), &[]).starts_with("config.yml:1:"));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
    }
    assert!(error(&laughs, &[]).contains("more than 100000 values"));
    assert!(error(&" ".repeat(2 << 20), &[]).contains("longer than"));
    // Aliases and merges are put in place.
    let yaml = "otel_metrics_export: &o\n  endpoint: http://c\notel_traces_export:\n  <<: *o\n  batch_max_size: 7\n";
    let config = clean(yaml, &[]);
    let traces = config.traces.unwrap();
    assert_eq!((traces.otlp.endpoint.as_str(), traces.batch_max_size), ("http://c/v1/traces", 7));
}

#[test]
fn references_are_replaced_in_values_only() {
    let value = |text: &str| {
        let loaded = load(
            &format!("service_name: {text}\n"),
            &[("SHOP", "shop"), ("N", "1"), ("YAML", "a: b\n- c"), ("REF", "${SHOP}")],
        );
        (loaded.config.service_name, loaded.warnings.len())
    };
    let some = |text: &str, warnings| (Some(text.to_owned()), warnings);
    for (text, expected) in [
        ("${SHOP}", some("shop", 0)),
        ("${env:SHOP}-${N}", some("shop-1", 0)),
        ("${UNSET:-other}", some("other", 0)),
        ("${SHOP:-other}", some("shop", 0)),
        ("${UNSET:-}", (None, 0)),
        ("${UNSET}", (None, 1)),
        ("'x${UNSET}'", some("x", 1)),
        ("$SHOP", some("$SHOP", 0)),
        ("$${SHOP}", some("${SHOP}", 0)),
        ("$$$${SHOP}", some("$${SHOP}", 0)),
        ("$$${SHOP}", some("$shop", 0)),
        ("a$", some("a$", 0)),
        // What a variable holds is text: neither YAML nor another reference.
        ("${YAML}", some("a: b\n- c", 0)),
        ("${REF}", some("${SHOP}", 0)),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
    // A plain scalar gets its type afterwards.
    let config = clean("prometheus_export: {port: '${P}'}\nopen_port: ${P}\n", &[("P", "9000")]);
    assert_eq!((config.prometheus.unwrap().port, config.discovery.instrument[0].open_ports[0].first), (9000, 9000));
    assert!(error("${SHOP}: 1\n", &[("SHOP", "log_level")]).contains("${SHOP}: unknown key"));
}
