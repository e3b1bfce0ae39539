//! Metrics as OTLP protobuf (`opentelemetry.proto.metrics.v1`): histograms, sums and gauges.
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
        histogram::Aggregation,
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

mod point;

/// AGGREGATION_TEMPORALITY_DELTA
const DELTA: u64 = 1;
/// AGGREGATION_TEMPORALITY_CUMULATIVE
const CUMULATIVE: u64 = 2;
/// DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
const NO_RECORDED_VALUE: u64 = 1;

/// What a collection covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Time of the collection before, or of the start.
    pub since: UnixNs,
    /// Time of the collection, the same for all points; later than `since`.
    pub time: UnixNs,
    /// Whether exemplars are written.
    pub exemplars: bool,
}

/// Builds the requests of one collection.
#[derive(Debug)]
pub struct MetricsEncoder<'a> {
    rules: &'a Rules,
    plan: &'a Plan,
    window: Window,
    body: Vec<u8>,
    points: u64,
    done: Vec<(Bytes, u64)>,
}

impl<'a> MetricsEncoder<'a> {
    /// Nothing yet.
    pub fn new(rules: &'a Rules, plan: &'a Plan, window: Window) -> Self {
        Self { rules, plan, window, body: Vec::new(), points: 0, done: Vec::new() }
    }

    /// Adds all series of a process; of those that tell what came since the last collection, the ones that have changed.
    /// `gone`: as points without a value, which say that the series has ended.
    pub fn process(&mut self, process: &ProcessSeries, gone: bool) {
        let mut metrics = Vec::new();
        for (active, of) in process.metrics(self.plan) {
            let points = if self.plan.is_delta(active.instrument) {
                // A difference ends by not coming again.
                if gone { 0 } else { of.iter().filter(|(_, data)| data.is_changed()).count() }
            } else {
                of.len()
            };
            if points > 0 {
                self.points += points as u64;
                message(&mut metrics, 0x12, |w| self.metric(w, active, of, &process.resource, gone));
            }
        }
        if !metrics.is_empty() {
            self.append(&process.resource, &metrics);
        }
    }

    /// Adds metrics of the program itself, counted since `start`; `delta`: counters are differences.
    pub fn own(&mut self, resource: &Resource, measures: &[Measure], start: UnixNs, delta: bool) {
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
                            self.times(w, start);
                            fixed64(w, 6 << 3 | 1, *value);
                        });
                    }
                };
                match measure.kind {
                    Kind::Counter => message(w, 7 << 3 | 2, |w| {
                        points(w);
                        uint(w, 2 << 3, if delta { DELTA } else { CUMULATIVE });
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
        let exponential = matches!(active.aggregation, Aggregation::Exponential { .. });
        bytes(w, 0x0a, instrument.name.as_bytes());
        bytes(w, 0x12, instrument.description.as_bytes());
        bytes(w, 0x1a, instrument.unit.as_bytes());
        let delta = self.plan.is_delta(instrument);
        let temporality = if delta { DELTA } else { CUMULATIVE };
        let points = |w: &mut Vec<u8>| {
            for (key, data) in of.iter().filter(|(_, data)| !delta || data.is_changed()) {
                // Attributes are field 9 of a point of a histogram, 1 of an exponential one, and 7 of a number.
                let tag = match data {
                    Data::Histogram(_) if exponential => 1 << 3 | 2,
                    Data::Histogram(_) => 9 << 3 | 2,
                    Data::Number(_) => 7 << 3 | 2,
                };
                let start = match data {
                    // What was counted before it was first told did not begin with the last collection.
                    Data::Number(Number { told: None, .. }) if instrument.source.is_usage() => data.start(),
                    _ if delta => self.window.since,
                    _ => data.start(),
                };
                message(w, 0x0a, |w| {
                    let attributes = active.attributes(key, self.rules, resource);
                    attributes.iter().for_each(|(key, value)| attr(w, tag, key, value));
                    self.times(w, start);
                    match data {
                        Data::Histogram(_) if gone => uint(w, 10 << 3, NO_RECORDED_VALUE),
                        Data::Number(_) if gone => uint(w, 8 << 3, NO_RECORDED_VALUE),
                        Data::Histogram(histogram) => {
                            let bounds = active.aggregation.bounds();
                            point::histogram(w, histogram, bounds, self.window.exemplars);
                        }
                        Data::Number(value) => number(w, if delta { value.since() } else { value.amount }),
                    }
                });
            }
        };
        match instrument.kind {
            InstrumentKind::Gauge => message(w, 5 << 3 | 2, points),
            InstrumentKind::Counter | InstrumentKind::UpDownCounter => message(w, 7 << 3 | 2, |w| {
                points(w);
                uint(w, 2 << 3, temporality);
                uint(w, 3 << 3, u64::from(instrument.kind == InstrumentKind::Counter));
            }),
            InstrumentKind::Histogram => message(w, if exponential { 10 << 3 | 2 } else { 9 << 3 | 2 }, |w| {
                points(w);
                uint(w, 2 << 3, temporality);
            }),
        }
    }

    fn times(&self, w: &mut Vec<u8>, start: UnixNs) {
        // A start that is not before the time would say that the start is unknown.
        fixed64(w, 2 << 3 | 1, start.0.min(self.window.time.0.saturating_sub(1)));
        fixed64(w, 3 << 3 | 1, self.window.time.0);
    }
}

fn number(w: &mut Vec<u8>, amount: Amount) {
    match amount {
        Amount::Int(value) => fixed64(w, 6 << 3 | 1, value),
        Amount::Double(value) => fixed64(w, 4 << 3 | 1, value.to_bits()),
    }
}

#[cfg(test)]
mod tests;
