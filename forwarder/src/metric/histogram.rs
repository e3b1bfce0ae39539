//! A cumulative histogram with explicit bounds.

use crate::model::UnixNs;

/// Counts of one series. The bounds stand in the registry, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// One count for each bound and one for what is above the last.
    pub counts: Box<[u64]>,
    /// Sum of all values, seconds.
    pub sum: f64,
    /// Start of the first measurement.
    pub start: UnixNs,
}

impl Histogram {
    /// An empty histogram for `bounds` bounds.
    pub fn new(bounds: usize, start: UnixNs) -> Self {
        Self { counts: vec![0; bounds + 1].into(), sum: 0.0, start }
    }

    /// Adds `value`: bucket `i` takes what is above bound `i - 1` and not above bound `i`.
    pub fn record(&mut self, bounds: &[f64], value: f64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.sum += value;
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_upper_and_inclusive() {
        let bounds = [0.5, 1.0];
        let mut h = Histogram::new(2, UnixNs(0));
        for value in [0.0, 0.5, 0.6, 1.0, 1.1, 99.0] {
            h.record(&bounds, value);
        }
        assert_eq!(*h.counts, [2, 2, 2]);
        assert_eq!((h.count(), h.sum), (6, 102.2));
    }
}
