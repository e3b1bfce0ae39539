#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
//! Against the JSON reader of the `opentelemetry-proto` crate, and against the form of the published examples
//! (opentelemetry-proto, `examples/trace.json` and `examples/metrics.json`).

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, exponential_histogram_data_point::Buckets,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    exchange::Side,
    observation::{Observation, Rules},
    otlp::{request::append_resource, span::SpanEncoder},
    resource::ResourceBuilder,
    sample,
    trace::Tracer,
};

fn of(table: &'static Message, bytes: &[u8]) -> (String, Value) {
    let text = String::from_utf8(transcode(table, bytes).unwrap()).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (text, value)
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn string(key: &str, value: &str) -> KeyValue {
    attribute(key, Any::StringValue(value.into()))
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "my.library".into(),
        version: "1.0.0".into(),
        attributes: vec![string("my.scope.attribute", "some scope attribute")],
        ..Default::default()
    }
}

fn resource() -> Resource {
    Resource { attributes: vec![string("service.name", "my.service")], ..Default::default() }
}

const TRACE: [u8; 16] = [0x5b, 0x8e, 0xff, 0xf7, 0x98, 3, 0x81, 3, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c];
const SPAN: [u8; 8] = [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74];

#[test]
fn a_span_in_the_published_form() {
    let span = Span {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        parent_span_id: vec![0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x73],
        name: "I'm a server span".into(),
        start_time_unix_nano: 1_544_712_660_000_000_000,
        end_time_unix_nano: 1_544_712_661_000_000_000,
        kind: 2,
        attributes: vec![string("my.span.attr", "some value")],
        ..Default::default()
    };
    let scoped = ScopeSpans { scope: Some(scope()), spans: vec![span], ..Default::default() };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![scoped],
            ..Default::default()
        }],
    };
    let attributes = |key: &str, value: &str| json!([{ "key": key, "value": { "stringValue": value } }]);
    let published = json!({ "resourceSpans": [{
        "resource": { "attributes": attributes("service.name", "my.service") },
        "scopeSpans": [{
            "scope": {
                "name": "my.library",
                "version": "1.0.0",
                "attributes": attributes("my.scope.attribute", "some scope attribute"),
            },
            "spans": [{
                "traceId": "5b8efff798038103d269b633813fc60c",
                "spanId": "eee19b7ec3c1b174",
                "parentSpanId": "eee19b7ec3c1b173",
                "name": "I'm a server span",
                "startTimeUnixNano": "1544712660000000000",
                "endTimeUnixNano": "1544712661000000000",
                "kind": 2,
                "attributes": attributes("my.span.attr", "some value"),
            }],
        }],
    }] });
    assert_eq!(of(&TRACES_REQUEST, &request.encode_to_vec()).1, published);
    assert_eq!(of(&TRACES_REQUEST, b"").0, "{}", "an export of nothing");
}

#[test]
fn everything_that_a_span_may_hold_is_read_back_as_it_was() {
    let list = vec![Any::IntValue(i64::MIN), Any::BoolValue(false), Any::DoubleValue(-0.25)];
    let values = list.into_iter().map(|value| AnyValue { value: Some(value) }).collect();
    let attributes = vec![
        string("text", "quote \" back \\ line \n tab \t bell \u{7} é 🦀 \u{2028}"),
        attribute("number", Any::IntValue(-7)),
        attribute("list", Any::ArrayValue(ArrayValue { values })),
        attribute("map", Any::KvlistValue(KeyValueList { values: vec![string("a", "b")] })),
        attribute("bytes", Any::BytesValue(vec![0, 1, 2, 255])),
        attribute("large", Any::DoubleValue(1.5e300)),
    ];
    let span = Span {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        trace_state: "ot=th:8".into(),
        flags: 0x301,
        kind: 3,
        attributes: attributes.clone(),
        dropped_attributes_count: u32::MAX,
        events: vec![Event { time_unix_nano: u64::MAX, name: "e".into(), attributes, ..Default::default() }],
        links: vec![Link { trace_id: TRACE.to_vec(), span_id: SPAN.to_vec(), flags: 0x100, ..Default::default() }],
        status: Some(Status { message: "boom".into(), code: 2 }),
        ..Default::default()
    };
    let scoped = ScopeSpans { spans: vec![span], schema_url: "https://s".into(), ..Default::default() };
    let resource_spans = ResourceSpans { scope_spans: vec![scoped], ..Default::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans.clone(), resource_spans] };
    let (text, value) = of(&TRACES_REQUEST, &request.encode_to_vec());
    let span = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["attributes"][1]["value"], json!({ "intValue": "-7" }));
    assert_eq!(span["attributes"][4]["value"], json!({ "bytesValue": "AAEC/w==" }));
    assert_eq!((&span["flags"], &span["droppedAttributesCount"]), (&json!(0x301), &json!(u32::MAX)));
    assert_eq!(span["status"], json!({ "message": "boom", "code": 2 }));
    assert_eq!(span["events"][0]["timeUnixNano"], json!("18446744073709551615"));
    assert_eq!(serde_json::from_str::<ExportTraceServiceRequest>(&text).unwrap(), request);
}

#[test]
fn all_kinds_of_series_are_read_back_as_they_were() {
    let exemplar = Exemplar {
        filtered_attributes: vec![string("k", "v")],
        time_unix_nano: 9,
        span_id: SPAN.to_vec(),
        trace_id: TRACE.to_vec(),
        value: Some(exemplar::Value::AsDouble(0.9)),
    };
    let number = |value| NumberDataPoint {
        attributes: vec![string("k", "v")],
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        flags: 1,
        value: Some(value),
        ..Default::default()
    };
    let histogram = HistogramDataPoint {
        time_unix_nano: 2,
        count: 3,
        sum: Some(2.5),
        bucket_counts: vec![0, 1, u64::MAX],
        explicit_bounds: vec![0.005, 1.0],
        exemplars: vec![exemplar.clone()],
        min: Some(0.0),
        max: Some(1e-9),
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: 2,
        count: 3,
        scale: -3,
        zero_count: 1,
        positive: Some(Buckets { offset: -5, bucket_counts: vec![1, 300, 0] }),
        exemplars: vec![exemplar],
        zero_threshold: 1e-300,
        ..Default::default()
    };
    let data = [
        Data::Gauge(Gauge { data_points: vec![number(number_data_point::Value::AsDouble(1.0))] }),
        Data::Sum(Sum {
            data_points: vec![
                number(number_data_point::Value::AsInt(i64::MIN)),
                number(number_data_point::Value::AsInt(0)),
            ],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
        Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![exponential], aggregation_temporality: 2 }),
    ];
    let metric = |data| Metric { name: "m".into(), unit: "s".into(), data: Some(data), ..Default::default() };
    let metrics = data.into_iter().map(metric).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { resource: Some(resource()), scope_metrics, ..Default::default() }];
    let request = ExportMetricsServiceRequest { resource_metrics };
    let (text, value) = of(&METRICS_REQUEST, &request.encode_to_vec());
    let metrics = &value["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    assert_eq!(metrics[1]["sum"]["dataPoints"][1]["asInt"], json!("0"), "of a choice, zero is said");
    let point = &metrics[2]["histogram"]["dataPoints"][0];
    assert_eq!((&point["bucketCounts"], &point["count"]), (&json!(["0", "1", "18446744073709551615"]), &json!("3")));
    assert_eq!(point["explicitBounds"], json!([0.005, 1]));
    assert_eq!(point["exemplars"][0]["traceId"], json!("5b8efff798038103d269b633813fc60c"));
    let point = &metrics[3]["exponentialHistogram"]["dataPoints"][0];
    assert_eq!(point["positive"], json!({ "offset": -5, "bucketCounts": ["1", "300", "0"] }));
    assert_eq!(serde_json::from_str::<ExportMetricsServiceRequest>(&text).unwrap(), request);
}

#[test]
fn doubles_that_json_has_no_number_for() {
    for (value, text) in [
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"Infinity\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
        (-0.0, "-0"),
        (5e-324, "5e-324"),
        (1e17, "1e17"),
        (0.1, "0.1"),
    ] {
        let mut out = Vec::new();
        scalar::double(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn lists_whose_elements_stand_apart_and_what_is_unknown() {
    // Resource attributes 1, 2, a field 200 that nobody knows, then attribute 3.
    let key = |name: &[u8]| [&[0x0a, 3, 0x0a, 1], name].concat();
    let bytes = [key(b"a"), vec![0x10, 7], vec![0xc0, 0x0c, 1], key(b"b")].concat();
    let wrapped = [&[0x0a, bytes.len() as u8 + 2, 0x0a, bytes.len() as u8], bytes.as_slice()].concat();
    let (_, value) = of(&TRACES_REQUEST, &wrapped);
    let resource = &value["resourceSpans"][0]["resource"];
    assert_eq!(*resource, json!({ "attributes": [{ "key": "a" }, { "key": "b" }], "droppedAttributesCount": 7 }));
}

#[test]
fn what_is_no_message_is_refused() {
    for bad in [
        &b"\x0a\x05"[..],
        b"\x0a",
        b"\x0d\x01",
        b"\x09\x01",
        b"\x0b",
        b"\x08\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert_eq!(transcode(&TRACES_REQUEST, bad), Err(NotProtobuf), "{bad:?}");
    }
    let mut deep = AnyValue { value: Some(Any::IntValue(1)) };
    for _ in 0..MOST_DEPTH {
        deep = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![deep] })) };
    }
    let attributes = vec![attribute("deep", deep.value.unwrap())];
    let resource = Some(Resource { attributes, ..Default::default() });
    let resource_spans = vec![ResourceSpans { resource, ..Default::default() }];
    let request = ExportTraceServiceRequest { resource_spans };
    assert_eq!(transcode(&TRACES_REQUEST, &request.encode_to_vec()), Err(NotProtobuf));
}

#[test]
fn what_this_program_encodes_is_read_back_as_it_was() {
    let (mut tracer, mut encoder) = (Tracer::new(spantap_config::Sampler::AlwaysOn), SpanEncoder::default());
    let (rules, mut spans) = (Rules::default(), Vec::new());
    for side in [Side::Server, Side::Client] {
        let exchange = sample::exchange(side);
        let seen = Observation::new(&exchange, sample::clock(), &rules);
        let id = tracer.start(exchange.side, &exchange.request.headers).unwrap();
        encoder.append(&mut spans, &seen, &id, &rules);
    }
    let resource = ResourceBuilder::new(&sample::config()).process(&sample::process(1, "shop"));
    let mut body = Vec::new();
    append_resource(&mut body, &resource.encoded, &spans);
    let expected = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let (text, _) = of(&TRACES_REQUEST, &body);
    assert_eq!(serde_json::from_str::<ExportTraceServiceRequest>(&text).unwrap(), expected);
    assert_eq!(expected.resource_spans[0].scope_spans[0].spans.len(), 2);
}
