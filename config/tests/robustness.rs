//! No text and no variable makes loading panic.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::try_load;
use proptest::prelude::*;

/// Pieces that configurations are made of, so that random texts get past the first character.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "discovery",
        "instrument",
        "open_ports",
        "exe_path",
        "otel_traces_export",
        "endpoint",
        "routes",
        "patterns",
        "spantap",
        "socket",
        ": ",
        ":\n  ",
        "\n",
        "\n    - ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "'",
        "\"",
        "|\n ",
        ">-\n ",
        "? ",
        "!!str ",
        "#",
        "%",
        "---\n",
        "...\n",
        "${A}",
        "${",
        "}",
        "$$",
        "${B:-x}",
        "443",
        "80-90",
        "http://c:4318",
        "1m30s",
        "~",
        "true",
        "\t",
        "\u{feff}",
        "é",
        "\0",
        "buckets",
        "duration_histogram",
        "sampler",
        "languages",
        "{a,b",
        "[!a]",
        "**",
        "\\",
    ];
    prop_oneof![4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_loading_panic(pieces in proptest::collection::vec(piece(), 0..40), a in any::<String>()) {
        match try_load(&pieces.concat(), &[("A", &a)]) {
            Ok(loaded) => prop_assert!(!loaded.config.render().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_value_makes_loading_panic(
        key in proptest::sample::select(vec![
            "open_port", "target_pids", "shutdown_timeout", "AutoTargetExe", "AutoTargetLanguage", "executable_name", "log_level",
            "trace_printer",
        ]),
        name in proptest::sample::select(vec![
            "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER_ARG",
            "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "SPANTAP_ADMIN", "SPANTAP_RING_BUFFER_SIZE", "GRAFANA_CLOUD_ZONE",
        ]),
        value in prop_oneof![any::<String>(), "[0-9a-zµ.,%=:/@\\[\\]{}*-]{0,30}"],
        other in any::<String>(),
    ) {
        let yaml = format!("{key}: ${{V}}\notel_traces_export: {{endpoint: 'http://c'}}\n");
        let _ = try_load(&yaml, &[("V", &other), (name, &value)]);
        let _ = try_load(&yaml, &[("V", &value), (name, &other)]);
    }
}
