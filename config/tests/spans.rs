//! Routes, samplers and captured header fields: what may stand there, and what is refused.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use spantap_config::{Config, Environment, IgnoreMode, KeepSpans, Sampler, Unmatched};

fn read(yaml: &str) -> Result<Config, String> {
    let env = Environment::of([("HOME", "/root")]);
    Config::parse(Path::new("c.yml"), yaml, &env).map(|loaded| loaded.config).map_err(|error| error.to_string())
}

#[test]
fn without_a_section_paths_become_routes_by_the_heuristic() {
    let config = read("open_port: 80\n").unwrap();
    assert_eq!((config.routes.unmatched, config.routes.wildcard), (Unmatched::Heuristic, '*'));
    let config = read("routes: {patterns: ['/a'], unmatched: low-cardinality, ignore_mode: Traces}\n").unwrap();
    assert_eq!((config.routes.unmatched, config.routes.ignore_mode), (Unmatched::LowCardinality, IgnoreMode::Traces));
    assert_eq!(config.routes.max_segments, 10);
}

#[test]
fn entries_bring_their_own() {
    let config = read(
        "discovery:\n  instrument:\n    - open_ports: 80\n      sampler: {name: traceidratio, arg: '0.25'}\n      \
         routes: {incoming: ['/a/{b}'], outgoing: ['/c/*']}\n    - open_ports: 81\n      sampler:\n      routes:\n",
    )
    .unwrap();
    let [first, second] = &config.discovery.instrument[..] else { panic!() };
    assert_eq!(first.sampler, Some(Sampler::TraceIdRatio(0.25)));
    assert_eq!(
        (first.routes.incoming.as_slice(), first.routes.outgoing.as_slice()),
        (&["/a/{b}".into()][..], &["/c/*".into()][..])
    );
    assert_eq!((second.sampler, second.routes.incoming.len()), (None, 0));
    let shown = config.render();
    assert!(shown.contains("sampler: traceidratio 0.25") && shown.contains("routes.outgoing: [\"/c/*\"]"), "{shown}");
}

#[test]
fn what_is_kept_is_read() {
    let keep = |yaml| read(yaml).unwrap().keep;
    assert_eq!(keep("open_port: 80\n"), KeepSpans::default());
    assert_eq!(
        keep("spantap: {sampler: {keep_errors: true, keep_slower_than: 500ms, keep_slowest: 3}}\n"),
        KeepSpans { errors: true, slower_than: Some(Duration::from_millis(500)), slowest: 3 }
    );
    assert_eq!(keep("spantap: {sampler: {keep_slower_than: 0}}\n").slower_than, None);
}

#[test]
fn header_fields_are_named_and_credentials_twice() {
    let config = read("spantap: {headers: {request: [X-Request-Id, x-request-id, Accept]}}\n").unwrap();
    assert_eq!(config.headers.request, ["x-request-id", "accept"]);
    let refused = read("spantap:\n  headers:\n    response: [Set-Cookie]\n").unwrap_err();
    assert!(
        refused.starts_with("c.yml:3:16: spantap.headers.response[0]: set-cookie carries credentials"),
        "{refused}"
    );
    let both = "spantap: {headers: {request: [Authorization], allow_sensitive: [authorization]}}\n";
    assert_eq!(read(both).unwrap().headers.request, ["authorization"]);
    assert!(read("spantap: {headers: {allow_sensitive: [authorization]}}\n").unwrap().headers.request.is_empty());
}

#[test]
fn nonsense_is_refused_by_file_line_and_key() {
    for (yaml, said) in [
        ("routes:\n  unmatched: heuristics\n", "c.yml:2:14: routes.unmatched: found \"heuristics\", expected"),
        ("routes:\n  ignore_mode: none\n", "c.yml:2:16: routes.ignore_mode"),
        ("routes:\n  patterns: [user]\n", "c.yml:2:14: routes.patterns[0]"),
        ("routes:\n  ignored_patterns: /health\n", "c.yml:2:21: routes.ignored_patterns"),
        ("routes:\n  wildcard_char: '**'\n", "c.yml:2:18: routes.wildcard_char"),
        ("routes:\n  wildcard_char: /\n", "c.yml:2:18: routes.wildcard_char"),
        ("routes:\n  max_path_segment_cardinality: 0\n", "c.yml:2:33: routes.max_path_segment_cardinality"),
        ("spantap:\n  sampler:\n    keep_slower_than: 5\n", "c.yml:3:23: spantap.sampler.keep_slower_than"),
        ("spantap:\n  sampler:\n    keep_slowest: -1\n", "c.yml:3:19: spantap.sampler.keep_slowest"),
        ("spantap:\n  sampler:\n    keep_error: true\n", "did you mean `keep_errors`?"),
        ("spantap:\n  headers:\n    request: ['x-*y ']\n", "c.yml:3:15: spantap.headers.request[0]"),
        ("discovery:\n  instrument:\n  - open_ports: 1\n    sampler: {name: ratio}\n", "sampler.name: found \"ratio\""),
        (
            "discovery:\n  instrument:\n  - open_ports: 1\n    sampler: {name: traceidratio, arg: 2}\n",
            "a share from 0 to 1",
        ),
        ("discovery:\n  instrument:\n  - open_ports: 1\n    routes: {in: []}\n", "routes.in: unknown key"),
        ("discovery:\n  instrument:\n  - sampler: {name: always_on}\n", "an entry without a criterion"),
    ] {
        let error = read(yaml).unwrap_err();
        assert!(error.contains(said), "{yaml}\nsays {error}\nnot {said}");
    }
}
