//! What a series holds: a distribution or a number.
//!
//! In: one value at a time. Out: the state since the start of the series.

use super::{histogram::Histogram, instrument::Kind};
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
    /// Nothing yet, for an instrument of `kind` whose histograms have `bounds` bounds.
    pub fn new(kind: Kind, bounds: usize, start: UnixNs) -> Self {
        match kind {
            Kind::Histogram => Self::Histogram(Histogram::new(bounds, start)),
            Kind::Counter | Kind::UpDownCounter | Kind::Gauge => Self::Number(Number { amount: Amount::Int(0), start }),
        }
    }

    /// Takes one measurement of what began at `start`.
    pub fn take(&mut self, sample: Sample, bounds: &[f64], start: UnixNs) {
        match self {
            Self::Histogram(histogram) => {
                histogram.start = histogram.start.min(start);
                match sample {
                    Sample::Value(value) => histogram.record(bounds, value),
                    Sample::Whole(value) => histogram.record(bounds, value as f64),
                    Sample::Set(value) => histogram.record(bounds, value.as_f64()),
                }
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

    /// Start of the series.
    pub fn start(&self) -> UnixNs {
        match self {
            Self::Histogram(histogram) => histogram.start,
            Self::Number(number) => number.start,
        }
    }
}
