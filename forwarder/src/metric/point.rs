//! What a series holds: a distribution or a number.
//!
//! In: one value at a time. Out: the state since the start of the series.

use super::{
    exemplar::Exemplar,
    histogram::{Aggregation, Histogram},
    instrument::Kind,
};
use crate::model::UnixNs;

/// State of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A distribution.
    Histogram(Histogram),
    /// A sum or a gauge.
    Number(Number),
}

/// State of a sum or a gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// Sum since `start`, or value of the moment.
    pub amount: Amount,
    /// Start of what was measured first.
    pub start: UnixNs,
    /// What earlier collections have told of a sum that is told by differences.
    pub told: Option<Amount>,
}

impl Number {
    /// What came since the last collection.
    pub fn since(&self) -> Amount {
        match (self.amount, self.told) {
            (amount, None) => amount,
            (Amount::Int(now), Some(Amount::Int(told))) => Amount::Int(now.saturating_sub(told)),
            (now, Some(told)) => Amount::Double(now.as_f64() - told.as_f64()),
        }
    }
}

/// A value of a sum or a gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// A whole number.
    Int(u64),
    /// Any number.
    Double(f64),
}

impl Amount {
    /// As a floating-point number.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// Goes into a distribution, or is added to a sum.
    Value(f64),
    /// The same for a whole number.
    Whole(u64),
    /// Takes the place of what was there.
    Set(Amount),
}

impl Data {
    /// Nothing yet, for an instrument of `kind`.
    pub fn new(kind: Kind, aggregation: &Aggregation, start: UnixNs) -> Self {
        match kind {
            Kind::Histogram => Self::Histogram(Histogram::new(aggregation, start)),
            Kind::Counter | Kind::UpDownCounter | Kind::Gauge => {
                Self::Number(Number { amount: Amount::Int(0), start, told: None })
            }
        }
    }

    /// Takes one measurement of what began at `start`.
    pub fn take(&mut self, sample: Sample, aggregation: &Aggregation, start: UnixNs, exemplar: Option<Exemplar>) {
        match self {
            Self::Histogram(histogram) => {
                histogram.start = histogram.start.min(start);
                let value = match sample {
                    Sample::Value(value) => value,
                    Sample::Whole(value) => value as f64,
                    Sample::Set(value) => value.as_f64(),
                };
                histogram.record(aggregation, value, exemplar);
            }
            Self::Number(number) => {
                number.start = number.start.min(start);
                number.amount = match (number.amount, sample) {
                    (_, Sample::Set(amount)) => amount,
                    (Amount::Int(sum), Sample::Whole(value)) => Amount::Int(sum.saturating_add(value)),
                    (sum, Sample::Whole(value)) => Amount::Double(sum.as_f64() + value as f64),
                    (sum, Sample::Value(value)) => Amount::Double(sum.as_f64() + value),
                };
            }
        }
    }

    /// Whether anything was measured since the last collection.
    pub fn is_changed(&self) -> bool {
        match self {
            Self::Histogram(histogram) => histogram.count() > 0,
            Self::Number(number) => number.told != Some(number.amount),
        }
    }

    /// Notes that its exemplars have been told.
    pub fn tell_exemplars(&mut self) {
        if let Self::Histogram(histogram) = self {
            histogram.exemplars.tell();
        }
    }

    /// Notes that everything up to `time` has been told.
    pub fn settle(&mut self, aggregation: &Aggregation, time: UnixNs) {
        match self {
            Self::Histogram(histogram) => histogram.restart(aggregation, time),
            Self::Number(number) => number.told = Some(number.amount),
        }
    }

    /// Start of the series.
    pub fn start(&self) -> UnixNs {
        match self {
            Self::Histogram(histogram) => histogram.start,
            Self::Number(number) => number.start,
        }
    }
}
