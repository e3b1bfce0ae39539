//! What a Collector received, as plain values: spans, and the last value of each metric series.
//!
//! In: lines of the Collector's file exporter (OTLP/JSON). Out: [`Telemetry`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// SpanKind of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// SPAN_KIND_SERVER
    Server,
    /// SPAN_KIND_CLIENT
    Client,
    /// Anything else: never right here.
    Other,
}

/// Attributes by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes(BTreeMap<String, Value>);

impl Attributes {
    /// Text of a string attribute.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.get("stringValue")?.as_str()
    }

    /// Number of an integer attribute (OTLP/JSON writes it as a string).
    pub fn number(&self, key: &str) -> Option<i64> {
        let value = self.0.get(key)?.get("intValue")?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    /// Value of a floating point attribute.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.get("doubleValue")?.as_f64()
    }

    /// Whether the attribute is there.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn read(list: Option<&Value>) -> Self {
        let entries = list.and_then(Value::as_array).into_iter().flatten();
        Self(entries.filter_map(|e| Some((e.get("key")?.as_str()?.to_owned(), e.get("value")?.clone()))).collect())
    }
}

/// A span with its resource.
#[derive(Debug, Clone)]
pub struct Span {
    /// Resource attributes; shared by the spans of a batch.
    pub resource: Arc<Attributes>,
    /// Name of the instrumentation scope.
    pub scope: String,
    /// Span name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits, or empty for a root.
    pub parent_span_id: String,
    /// Start, nanoseconds since the Unix epoch.
    pub start: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end: u64,
    /// Span attributes.
    pub attributes: Attributes,
    /// Status code of OTLP: 0 unset, 1 ok, 2 error.
    pub status: u64,
}

impl Span {
    /// `service.name` of the resource, or empty.
    pub fn service(&self) -> &str {
        self.resource.text("service.name").unwrap_or_default()
    }

    /// Path of the request: `url.path`, or the path of `url.full`, without a query.
    pub fn path(&self) -> &str {
        if let Some(path) = self.attributes.text("url.path") {
            return path;
        }
        let full = self.attributes.text("url.full").unwrap_or_default();
        let rest = full.split_once("://").map_or(full, |(_, rest)| rest);
        let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        path.split(['?', '#']).next().unwrap_or_default()
    }

    /// `http.response.status_code`.
    pub fn status_code(&self) -> Option<i64> {
        self.attributes.number("http.response.status_code")
    }

    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e9
    }
}

/// One series of a metric, its last value.
#[derive(Debug, Clone)]
pub struct Point {
    /// Resource attributes.
    pub resource: Attributes,
    /// Name of the metric.
    pub metric: String,
    /// Unit of the metric.
    pub unit: String,
    /// Attributes of the data point.
    pub attributes: Attributes,
    /// Count of a histogram; value of a sum or gauge, rounded.
    pub count: u64,
    /// Sum of a histogram.
    pub sum: f64,
    /// Bounds of a histogram.
    pub bounds: Vec<f64>,
    /// Counts of a histogram's buckets; of an exponential one those above zero.
    pub buckets: Vec<u64>,
    /// Count of what an exponential histogram holds as zero.
    pub zeros: u64,
    /// Scale of an exponential histogram, and no other. It is of the last point, as its buckets are.
    pub scale: Option<i64>,
    /// How many points of the series have arrived.
    pub told: u64,
}

impl Point {
    /// Takes the next point of the series.
    fn follow(&mut self, next: Self, delta: bool) {
        let before = std::mem::replace(self, next);
        self.told += before.told;
        if delta {
            self.count += before.count;
            self.sum += before.sum;
            // Those of exponential histograms lie elsewhere each time.
            if self.scale.is_none() {
                self.buckets.iter_mut().zip(before.buckets).for_each(|(now, then)| *now += then);
            }
        }
    }

    /// `service.name` of the resource, or empty.
    pub fn service(&self) -> &str {
        self.resource.text("service.name").unwrap_or_default()
    }
}

/// Everything that was received so far.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// All spans in the order of arrival.
    pub spans: Vec<Arc<Span>>,
    points: HashMap<String, Point>,
}

impl Telemetry {
    /// Spans of one service, by `service.name`.
    pub fn spans_of(&self, service: &str) -> Vec<Arc<Span>> {
        self.spans.iter().filter(|s| s.service() == service).cloned().collect()
    }

    /// Last values of all series of a metric, sums of those that are told by differences.
    pub fn points<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a Point> {
        self.points.values().filter(move |p| p.metric == metric)
    }

    /// Sum of the counts of all series of a metric of one service.
    pub fn count(&self, metric: &str, service: &str) -> u64 {
        self.points(metric).filter(|p| p.service() == service).map(|p| p.count).sum()
    }

    /// Takes one line of the file exporter's traces.
    ///
    /// # Errors
    /// When it is no OTLP/JSON.
    pub fn add_traces(&mut self, line: &str) -> Result<()> {
        let document: Value = serde_json::from_str(line).context("a line of traces is no JSON")?;
        for group in list(&document, "resourceSpans") {
            let resource = Arc::new(Attributes::read(group.pointer("/resource/attributes")));
            for scope in list(group, "scopeSpans") {
                let scope_name = text(scope.pointer("/scope/name"));
                for span in list(scope, "spans") {
                    self.spans.push(Arc::new(Span {
                        resource: Arc::clone(&resource),
                        scope: scope_name.clone(),
                        name: text(span.get("name")),
                        kind: match span.get("kind").and_then(Value::as_u64) {
                            Some(2) => Kind::Server,
                            Some(3) => Kind::Client,
                            _ => Kind::Other,
                        },
                        trace_id: text(span.get("traceId")),
                        span_id: text(span.get("spanId")),
                        parent_span_id: text(span.get("parentSpanId")),
                        start: integer(span.get("startTimeUnixNano")),
                        end: integer(span.get("endTimeUnixNano")),
                        attributes: Attributes::read(span.get("attributes")),
                        status: integer(span.pointer("/status/code")),
                    }));
                }
            }
        }
        Ok(())
    }

    /// Takes one line of the file exporter's metrics.
    ///
    /// # Errors
    /// When it is no OTLP/JSON.
    pub fn add_metrics(&mut self, line: &str) -> Result<()> {
        let document: Value = serde_json::from_str(line).context("a line of metrics is no JSON")?;
        for group in list(&document, "resourceMetrics") {
            let resource = Attributes::read(group.pointer("/resource/attributes"));
            for metric in list(group, "scopeMetrics").flat_map(|scope| list(scope, "metrics")) {
                let kinds = ["histogram", "exponentialHistogram", "sum", "gauge"];
                let data = kinds.iter().find_map(|kind| metric.get(*kind));
                // DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK: that a series has ended is no value, the last one stays.
                let has_value = |point: &&Value| integer(point.get("flags")) & 1 == 0;
                for point in data.into_iter().flat_map(|data| list(data, "dataPoints")).filter(has_value) {
                    let point = Point {
                        resource: resource.clone(),
                        metric: text(metric.get("name")),
                        unit: text(metric.get("unit")),
                        attributes: Attributes::read(point.get("attributes")),
                        count: integer(
                            point.get("count").or_else(|| point.get("asInt")).or_else(|| point.get("asDouble")),
                        ),
                        sum: point.get("sum").and_then(Value::as_f64).unwrap_or_default(),
                        bounds: list(point, "explicitBounds").filter_map(Value::as_f64).collect(),
                        buckets: list(point.get("positive").unwrap_or(point), "bucketCounts")
                            .map(|count| integer(Some(count)))
                            .collect(),
                        zeros: integer(point.get("zeroCount")),
                        scale: point.get("scale").and_then(Value::as_i64),
                        told: 1,
                    };
                    let key = format!("{:?}|{}|{:?}", point.resource, point.metric, point.attributes);
                    // AGGREGATION_TEMPORALITY_DELTA
                    let delta = data.and_then(|data| data.get("aggregationTemporality")).is_some_and(|t| *t == 1);
                    match self.points.get_mut(&key) {
                        Some(known) => known.follow(point, delta),
                        None => drop(self.points.insert(key, point)),
                    }
                }
            }
        }
        Ok(())
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// 64-bit integers are strings in OTLP/JSON, 32-bit ones and enumerations numbers.
fn integer(value: Option<&Value>) -> u64 {
    let Some(value) = value else { return 0 };
    let number = value.as_u64().or_else(|| value.as_f64().map(|f| f.round() as u64));
    number.or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn reads_what_the_file_exporter_writes() {
        let mut t = Telemetry::default();
        t.add_traces(
            r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}},
            {"key":"process.pid","value":{"intValue":"7"}}]},"scopeSpans":[{"scope":{"name":"spantap"},"spans":[
            {"traceId":"01","spanId":"02","name":"GET","kind":3,"startTimeUnixNano":"1000000000","endTimeUnixNano":"3000000000",
            "attributes":[{"key":"url.full","value":{"stringValue":"http://h:1/p/q?x=1"}}],"status":{"code":2}}]}]}]}"#,
        )
        .unwrap();
        let span = t.spans_of("a").remove(0);
        assert_eq!((span.kind, span.path(), span.seconds(), span.status), (Kind::Client, "/p/q", 2.0, 2));
        assert_eq!(span.resource.number("process.pid"), Some(7));
        for count in ["2", "5"] {
            t.add_metrics(&format!(
                r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"a"}}}}]}},
                "scopeMetrics":[{{"metrics":[{{"name":"m","unit":"s","histogram":{{"dataPoints":[{{"count":"{count}","sum":1.5,
                "explicitBounds":[1],"bucketCounts":["{count}","0"]}}]}}}}]}}]}}]}}"#
            ))
            .unwrap();
        }
        assert_eq!(t.count("m", "a"), 5, "the last value counts");
        t.add_metrics(
            r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},
            "scopeMetrics":[{"metrics":[{"name":"m","unit":"s","histogram":{"dataPoints":[{"flags":1}]}}]}]}]}"#,
        )
        .unwrap();
        assert_eq!(t.points("m").next().unwrap().buckets, [5, 0], "its end is no value");
        assert!(t.add_traces("{").is_err());
    }
}
