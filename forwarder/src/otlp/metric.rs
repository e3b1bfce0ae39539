//! Metrics as OTLP protobuf (`opentelemetry.proto.metrics.v1`): cumulative histograms, sums and gauges.
//!
//! In: series and self-metrics at one time. Out: requests of bounded size with the number of their data points.

use bytes::Bytes;

use super::{
    request::append_resource,
    wire::{attr, attr_bool, bytes, fixed64, message, uint},
};
use crate::{
    export::SOFT_REQUEST_BYTES,
    metric::{
        histogram::Histogram,
        registry::{MetricSeries, ProcessSeries},
    },
    model::UnixNs,
    observation::Rules,
    resource::Resource,
    semconv::{HTTP_CLIENT_REQUEST_DURATION, HTTP_SERVER_REQUEST_DURATION, key},
    telemetry::snapshot::{Kind, Measure},
};

/// AGGREGATION_TEMPORALITY_CUMULATIVE
const CUMULATIVE: u64 = 2;
/// DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
const NO_RECORDED_VALUE: u64 = 1;

/// Builds the requests of one collection.
#[derive(Debug)]
pub struct MetricsEncoder<'a> {
    rules: &'a Rules,
    bounds: &'a [f64],
    /// Time of the collection, the same for all points.
    time: UnixNs,
    body: Vec<u8>,
    points: u64,
    done: Vec<(Bytes, u64)>,
}

impl<'a> MetricsEncoder<'a> {
    /// Nothing yet.
    pub fn new(rules: &'a Rules, bounds: &'a [f64], time: UnixNs) -> Self {
        Self { rules, bounds, time, body: Vec::new(), points: 0, done: Vec::new() }
    }

    /// Adds all series of a process. `gone`: as points without a value, which say that the series has ended.
    pub fn process(&mut self, process: &ProcessSeries, gone: bool) {
        let mut metrics = Vec::new();
        for (name, what, of) in [
            (HTTP_SERVER_REQUEST_DURATION, "Duration of HTTP server requests.", &process.server),
            (HTTP_CLIENT_REQUEST_DURATION, "Duration of HTTP client requests.", &process.client),
        ] {
            if !of.is_empty() {
                self.points += of.len() as u64;
                message(&mut metrics, 0x12, |w| self.metric(w, (name, what), of, gone));
            }
        }
        if !metrics.is_empty() {
            self.append(&process.resource, &metrics);
        }
    }

    /// Adds metrics of the program itself, counted since `start`.
    pub fn own(&mut self, resource: &Resource, measures: &[Measure], start: UnixNs) {
        let mut metrics = Vec::new();
        for measure in measures.iter().filter(|m| !m.points.is_empty()) {
            self.points += measure.points.len() as u64;
            message(&mut metrics, 0x12, |w| {
                bytes(w, 0x0a, measure.name.as_bytes());
                bytes(w, 0x12, measure.description.as_bytes());
                bytes(w, 0x1a, measure.unit.as_bytes());
                let points = |w: &mut Vec<u8>| {
                    for (attributes, value) in &measure.points {
                        message(w, 0x0a, |w| {
                            attributes.iter().for_each(|(key, value)| attr(w, 7 << 3 | 2, key, value));
                            fixed64(w, 2 << 3 | 1, start.0.min(self.time.0.saturating_sub(1)));
                            fixed64(w, 3 << 3 | 1, self.time.0);
                            fixed64(w, 6 << 3 | 1, *value);
                        });
                    }
                };
                match measure.kind {
                    Kind::Counter => message(w, 7 << 3 | 2, |w| {
                        points(w);
                        uint(w, 2 << 3, CUMULATIVE);
                        uint(w, 3 << 3, 1);
                    }),
                    Kind::Gauge => message(w, 5 << 3 | 2, points),
                }
            });
        }
        self.append(resource, &metrics);
    }

    /// The requests, each with its number of data points.
    pub fn finish(mut self) -> Vec<(Bytes, u64)> {
        self.seal();
        self.done
    }

    fn append(&mut self, resource: &Resource, metrics: &[u8]) {
        append_resource(&mut self.body, &resource.encoded, metrics);
        if self.body.len() >= SOFT_REQUEST_BYTES {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.points > 0 {
            self.done.push((std::mem::take(&mut self.body).into(), std::mem::take(&mut self.points)));
        }
    }

    fn metric(&self, w: &mut Vec<u8>, (name, what): (&str, &str), of: &MetricSeries, gone: bool) {
        bytes(w, 0x0a, name.as_bytes());
        bytes(w, 0x12, what.as_bytes());
        bytes(w, 0x1a, b"s");
        message(w, 9 << 3 | 2, |w| {
            for (key, histogram) in &of.series {
                message(w, 0x0a, |w| {
                    key.attributes(self.rules).iter().for_each(|(key, value)| attr(w, 9 << 3 | 2, key, value));
                    self.point(w, histogram, gone);
                });
            }
            if let Some(histogram) = &of.overflow {
                message(w, 0x0a, |w| {
                    attr_bool(w, 9 << 3 | 2, key::OTEL_METRIC_OVERFLOW, true);
                    self.point(w, histogram, gone);
                });
            }
            uint(w, 2 << 3, CUMULATIVE);
        });
    }

    fn point(&self, w: &mut Vec<u8>, histogram: &Histogram, gone: bool) {
        // A start that is not before the time would say that the start is unknown.
        fixed64(w, 2 << 3 | 1, histogram.start.0.min(self.time.0.saturating_sub(1)));
        fixed64(w, 3 << 3 | 1, self.time.0);
        if gone {
            uint(w, 10 << 3, NO_RECORDED_VALUE);
            return;
        }
        fixed64(w, 4 << 3 | 1, histogram.count());
        fixed64(w, 5 << 3 | 1, histogram.sum.to_bits());
        let counts: Vec<u8> = histogram.counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        bytes(w, 6 << 3 | 2, &counts);
        let bounds: Vec<u8> = self.bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
        bytes(w, 7 << 3 | 2, &bounds);
    }
}

#[cfg(test)]
mod tests;
