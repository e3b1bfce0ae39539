//! Metrics as OTLP protobuf (`opentelemetry.proto.metrics.v1`): cumulative histograms, sums and gauges.
//!
//! In: series and self-metrics at one time. Out: requests of bounded size with the number of their data points.

use bytes::Bytes;

use super::{
    request::append_resource,
    wire::{attr, bytes, fixed64, message, uint},
};
use crate::{
    export::SOFT_REQUEST_BYTES,
    metric::{
        histogram::Histogram,
        instrument::Kind as InstrumentKind,
        plan::{Active, Plan},
        point::{Amount, Data, Number},
        registry::{MetricSeries, ProcessSeries},
    },
    model::UnixNs,
    observation::Rules,
    resource::Resource,
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
    plan: &'a Plan,
    /// Time of the collection, the same for all points.
    time: UnixNs,
    body: Vec<u8>,
    points: u64,
    done: Vec<(Bytes, u64)>,
}

impl<'a> MetricsEncoder<'a> {
    /// Nothing yet.
    pub fn new(rules: &'a Rules, plan: &'a Plan, time: UnixNs) -> Self {
        Self { rules, plan, time, body: Vec::new(), points: 0, done: Vec::new() }
    }

    /// Adds all series of a process. `gone`: as points without a value, which say that the series has ended.
    pub fn process(&mut self, process: &ProcessSeries, gone: bool) {
        let mut metrics = Vec::new();
        for (active, of) in process.metrics(self.plan) {
            self.points += of.len() as u64;
            message(&mut metrics, 0x12, |w| self.metric(w, active, of, &process.resource, gone));
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

    fn metric(&self, w: &mut Vec<u8>, active: &Active, of: &MetricSeries, resource: &Resource, gone: bool) {
        let instrument = active.instrument;
        bytes(w, 0x0a, instrument.name.as_bytes());
        bytes(w, 0x12, instrument.description.as_bytes());
        bytes(w, 0x1a, instrument.unit.as_bytes());
        let points = |w: &mut Vec<u8>| {
            for (key, data) in of.iter() {
                // Attributes are field 9 of a point of a histogram, and field 7 of a number.
                let tag = if matches!(data, Data::Histogram(_)) { 9 << 3 | 2 } else { 7 << 3 | 2 };
                message(w, 0x0a, |w| {
                    let attributes = active.attributes(key, self.rules, resource);
                    attributes.iter().for_each(|(key, value)| attr(w, tag, key, value));
                    self.times(w, data.start());
                    match data {
                        Data::Histogram(_) if gone => uint(w, 10 << 3, NO_RECORDED_VALUE),
                        Data::Number(_) if gone => uint(w, 8 << 3, NO_RECORDED_VALUE),
                        Data::Histogram(histogram) => point(w, histogram, &active.bounds),
                        Data::Number(value) => number(w, value),
                    }
                });
            }
        };
        match instrument.kind {
            InstrumentKind::Gauge => message(w, 5 << 3 | 2, points),
            InstrumentKind::Counter | InstrumentKind::UpDownCounter => message(w, 7 << 3 | 2, |w| {
                points(w);
                uint(w, 2 << 3, CUMULATIVE);
                uint(w, 3 << 3, u64::from(instrument.kind == InstrumentKind::Counter));
            }),
            InstrumentKind::Histogram => message(w, 9 << 3 | 2, |w| {
                points(w);
                uint(w, 2 << 3, CUMULATIVE);
            }),
        }
    }

    fn times(&self, w: &mut Vec<u8>, start: UnixNs) {
        // A start that is not before the time would say that the start is unknown.
        fixed64(w, 2 << 3 | 1, start.0.min(self.time.0.saturating_sub(1)));
        fixed64(w, 3 << 3 | 1, self.time.0);
    }
}

fn number(w: &mut Vec<u8>, number: &Number) {
    match number.amount {
        Amount::Int(value) => fixed64(w, 6 << 3 | 1, value),
        Amount::Double(value) => fixed64(w, 4 << 3 | 1, value.to_bits()),
    }
}

fn point(w: &mut Vec<u8>, histogram: &Histogram, bounds: &[f64]) {
    fixed64(w, 4 << 3 | 1, histogram.count());
    fixed64(w, 5 << 3 | 1, histogram.sum.to_bits());
    let counts: Vec<u8> = histogram.counts.iter().flat_map(|count| count.to_le_bytes()).collect();
    bytes(w, 6 << 3 | 2, &counts);
    let bounds: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
    bytes(w, 7 << 3 | 2, &bounds);
}

#[cfg(test)]
mod tests;
