//! A histogram with explicit bounds or with exponential buckets, and its exemplars.
//!
//! In: values. Out: counts, sum, least and largest value since the start.

use std::sync::Arc;

use super::{
    exemplar::{Exemplar, Exemplars},
    exponential::Exponential,
};
use crate::model::UnixNs;

/// How values become counts. Stands in the registry, once for each instrument.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregation {
    /// Upper, inclusive bounds, strictly increasing.
    Explicit(Arc<[f64]>),
    /// By powers of a base.
    Exponential {
        /// Finest scale, -10..=20.
        max_scale: i8,
        /// Buckets at most.
        max_size: u16,
    },
}

impl Aggregation {
    /// The bounds, if it has any.
    pub fn bounds(&self) -> &[f64] {
        match self {
            Self::Explicit(bounds) => bounds,
            Self::Exponential { .. } => &[],
        }
    }
}

/// Counts of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Counts {
    /// One for each bound and one for what is above the last.
    Explicit(Box<[u64]>),
    /// By powers of a base.
    Exponential(Box<Exponential>),
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// How often which values.
    pub counts: Counts,
    /// Sum of all values.
    pub sum: f64,
    /// Least value; infinite if there is none.
    pub min: f64,
    /// Largest value; negative infinite if there is none.
    pub max: f64,
    /// Start of the first measurement.
    pub start: UnixNs,
    /// The latest measurements of its buckets.
    pub exemplars: Exemplars,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(aggregation: &Aggregation, start: UnixNs) -> Self {
        let counts = match aggregation {
            Aggregation::Explicit(bounds) => Counts::Explicit(vec![0; bounds.len() + 1].into()),
            Aggregation::Exponential { max_scale, max_size } => {
                Counts::Exponential(Box::new(Exponential::new(*max_scale, *max_size)))
            }
        };
        Self { counts, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, start, exemplars: Exemplars::default() }
    }

    /// Adds `value`: explicit bucket `i` takes what is above bound `i - 1` and not above bound `i`.
    pub fn record(&mut self, aggregation: &Aggregation, value: f64, exemplar: Option<Exemplar>) {
        let bucket = match &mut self.counts {
            Counts::Explicit(counts) => {
                let bucket = aggregation.bounds().partition_point(|bound| *bound < value);
                if let Some(count) = counts.get_mut(bucket) {
                    *count += 1;
                }
                i32::try_from(bucket).unwrap_or(i32::MAX)
            }
            Counts::Exponential(exponential) => {
                exponential.record(value);
                magnitude(value)
            }
        };
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if let Some(exemplar) = exemplar {
            self.exemplars.keep(bucket, exemplar.with(value));
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        match &self.counts {
            Counts::Explicit(counts) => counts.iter().sum(),
            Counts::Exponential(exponential) => exponential.count(),
        }
    }

    /// Begins anew at `start`, without giving memory back that will be needed again.
    pub fn restart(&mut self, aggregation: &Aggregation, start: UnixNs) {
        match &mut self.counts {
            Counts::Explicit(counts) => counts.fill(0),
            Counts::Exponential(_) => {
                *self = Self::new(aggregation, start);
                return;
            }
        }
        (self.sum, self.min, self.max, self.start) = (0.0, f64::INFINITY, f64::NEG_INFINITY, start);
        self.exemplars.clear();
    }
}

/// Exponential buckets change their width: exemplars are spread by powers of two instead.
fn magnitude(value: f64) -> i32 {
    if value > 0.0 { value.log2().floor() as i32 } else { i32::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit() -> Aggregation {
        Aggregation::Explicit([0.5, 1.0].as_slice().into())
    }

    #[test]
    fn bounds_are_upper_and_inclusive() {
        let mut h = Histogram::new(&explicit(), UnixNs(0));
        for value in [0.0, 0.5, 0.6, 1.0, 1.1, 99.0] {
            h.record(&explicit(), value, None);
        }
        assert_eq!(h.counts, Counts::Explicit([2, 2, 2].into()));
        assert_eq!((h.count(), h.sum, h.min, h.max), (6, 102.2, 0.0, 99.0));
    }

    #[test]
    fn a_restart_forgets_all() {
        let exponential = Aggregation::Exponential { max_scale: 20, max_size: 160 };
        for aggregation in [explicit(), exponential] {
            let mut h = Histogram::new(&aggregation, UnixNs(0));
            let exemplar = Exemplar { value: 0.0, time: UnixNs(5), span: None };
            h.record(&aggregation, 0.7, Some(exemplar));
            h.record(&aggregation, 0.0, None);
            assert_eq!((h.count(), h.exemplars.fresh().map(|e| e.value).sum()), (2, 0.7));
            h.restart(&aggregation, UnixNs(9));
            assert_eq!(h, Histogram::new(&aggregation, UnixNs(9)));
        }
    }
}
