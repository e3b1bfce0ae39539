#![allow(clippy::unwrap_used, clippy::print_stderr)]
use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use spantap_config::{Attributes, Feature, Features};

use super::*;
use crate::prometheus::page::{Page, Shown};
use crate::{
    exchange::Side,
    metric::{
        plan::{Bounds, Plan},
        registry::ProcessKey,
    },
    model::Process,
    observation::{Observation, route::Routes},
    resource::ResourceBuilder,
    sample,
    telemetry::{Telemetry, snapshot},
};

fn filled() -> (Registry, Rules) {
    let rules = Rules { routes: Routes::new(&["/cart/{id}".into()]), ..Default::default() };
    let sizes = &sample::SIZE_BUCKETS;
    let bounds = Bounds { duration: &[0.001, 1.0], request_size: sizes, response_size: sizes };
    let features = Features::of(&Feature::ALL.map(|f| if f == Feature::Span { Feature::SpanOtel } else { f }));
    let plan = Arc::new(Plan::new(features, &Attributes::default(), bounds));
    let mut registry = Registry::new(plan, Duration::from_secs(60), Arc::new(Telemetry::new(Arc::default())));
    let builder = ResourceBuilder::new(&sample::config());
    for id in 1..=2 {
        let odd = ("OTEL_RESOURCE_ATTRIBUTES".to_owned(), "a.b=1,a-b=x%22y%5C%0Az,service.namespace=n".to_owned());
        let process = Process { environment: vec![odd], ..sample::process(id, "shop") };
        let resource = Arc::new(builder.process(&process));
        for side in [Side::Server, Side::Client] {
            let mut e = sample::exchange(side);
            e.request.headers.host = Some(Bytes::from_static(b"h:1"));
            let seen = Observation::new(&e, sample::clock(), &rules);
            registry.record(ProcessKey(id.into()), &resource, &seen, None);
        }
    }
    (registry, rules)
}

fn render(format: Format, registry: Registry, rules: Rules) -> String {
    let shown = Shown { exemplars: true, build_info: true };
    let mut page = Page::new(format, &std::sync::Mutex::new(registry), Arc::new(rules), shown);
    std::iter::from_fn(|| page.piece()).collect()
}

/// Checks the shape of each line; returns samples by name and labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = HashSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(comment.split(' ').next().unwrap().to_owned()), "family twice: {line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(families.iter().any(|f| name.starts_with(f.as_str())), "no family before {line}");
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "series twice: {line}");
        }
    }
    samples
}

fn find(samples: &BTreeMap<String, f64>, parts: &[&str]) -> Vec<f64> {
    samples.iter().filter(|(series, _)| parts.iter().all(|p| series.contains(p))).map(|(_, v)| *v).collect()
}

#[test]
fn series_of_two_processes() {
    let (registry, rules) = filled();
    let text = render(Format::Text, registry, rules);
    let mut samples = parse(&text);
    assert_eq!(find(&samples, &["traces_target_info{", "process_pid=\"1001\""]), [1.0]);
    samples.retain(|series, _| !series.starts_with("traces_"));
    assert_eq!(
        find(&samples, &["target_info{", "job=\"n/shop\"", "process_pid=\"1001\"", "a_b=\"x\\\"y\\\\\\nz;1\""]),
        [1.0]
    );
    assert_eq!(find(&samples, &["target_info{"]).len(), 2);
    let server = "http_server_request_duration_seconds";
    let bucket = format!("{server}_bucket{{");
    assert_eq!(find(&samples, &[&bucket, "le=\"0.001\""]), [0.0, 0.0]);
    assert_eq!(find(&samples, &[&bucket, "le=\"1\""]), [1.0, 1.0]);
    assert_eq!(
        find(&samples, &[&bucket, "le=\"+Inf\"", "http_route=\"/cart/{id}\"", "http_response_status_code=\"200\""]),
        [1.0, 1.0]
    );
    assert_eq!(find(&samples, &[&format!("{server}_sum{{")]), [0.003, 0.003]);
    assert_eq!(
        find(
            &samples,
            &[
                "http_client_request_duration_seconds_count{",
                "server_address=\"h\"",
                "server_port=\"1\"",
                "otel_scope_name=\"spantap\""
            ]
        ),
        [1.0, 1.0]
    );
}

#[test]
fn openmetrics_form() {
    let (registry, rules) = filled();
    let text = render(Format::OpenMetrics, registry, rules);
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE target info\n") && text.contains("\ntarget_info{"));
    assert!(text.contains("# UNIT http_server_request_duration_seconds seconds\n"));
    assert!(text.contains("le=\"1.0\"") && !text.contains("le=\"1\""));
    let own = render_own(Format::OpenMetrics, &snapshot::measures(&Telemetry::new(Arc::default())));
    assert!(own.contains("# TYPE spantap_exchanges counter\n") && own.contains("\nspantap_exchanges_total{"));
    parse(&own);
}

#[test]
fn promtool_finds_nothing_to_say() {
    let (registry, rules) = filled();
    let own = render_own(Format::Text, &snapshot::measures(&Telemetry::new(Arc::default())));
    for text in [render(Format::Text, registry, rules), own] {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: promtool is not installed; the format was checked by this test's own parser only");
            return;
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{text}");
    }
}
