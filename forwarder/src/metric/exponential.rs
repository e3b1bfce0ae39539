//! A base-2 exponential histogram (OpenTelemetry data model, "ExponentialHistogram"): bounded in memory, with the best
//! resolution that its bound allows.
//!
//! In: values that are not negative. Out: a scale, counts of the buckets from one index on, the count of zeros. Bucket `i` at
//! scale `s` takes values in `(base^i, base^(i + 1)]` with `base = 2^(2^-s)`.

/// Coarsest scale: two buckets hold every value there is (data model, "Scale").
const MIN_SCALE: i8 = -10;
/// Bits of the significand of a double.
const SIGNIFICAND: u32 = 52;

/// Counts by powers of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exponential {
    scale: i8,
    max_size: u16,
    zeros: u64,
    /// Index of the first bucket.
    offset: i32,
    counts: Vec<u64>,
}

impl Exponential {
    /// Nothing yet. `max_scale` is -10..=20, `max_size` at least 2: so many buckets are kept at most.
    pub fn new(max_scale: i8, max_size: u16) -> Self {
        Self {
            scale: max_scale.clamp(MIN_SCALE, 20),
            max_size: max_size.max(2),
            zeros: 0,
            offset: 0,
            counts: Vec::new(),
        }
    }

    /// Counts `value`. What is not above zero (or not a number) counts as zero.
    pub fn record(&mut self, value: f64) {
        if value.is_nan() || value <= 0.0 {
            self.zeros += 1;
            return;
        }
        let mut at = index(value, self.scale);
        if self.counts.is_empty() {
            self.offset = at;
        }
        let (first, last) = (self.offset.min(at), self.last().max(at));
        let narrower = shift_to_fit(first, last, self.max_size);
        if narrower > 0 {
            self.downscale(narrower);
            at >>= narrower;
        }
        if at < self.offset {
            let missing = self.offset.abs_diff(at) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = at;
        }
        let place = at.abs_diff(self.offset) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
    }

    /// Scale, -10..=20.
    pub fn scale(&self) -> i8 {
        self.scale
    }

    /// Number of values that are zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Index of the first bucket, and the counts from it on.
    pub fn buckets(&self) -> (i32, &[u64]) {
        (self.offset, &self.counts)
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    fn last(&self) -> i32 {
        let more = i32::try_from(self.counts.len().saturating_sub(1)).unwrap_or(i32::MAX);
        self.offset.saturating_add(more)
    }

    /// Joins `2^by` neighbours each: the scale falls by `by`.
    fn downscale(&mut self, by: u32) {
        let (old, from) = (std::mem::take(&mut self.counts), self.offset);
        self.offset >>= by;
        self.scale = self.scale.saturating_sub(i8::try_from(by).unwrap_or(i8::MAX));
        for (at, count) in (from..).zip(old) {
            let place = (at >> by).abs_diff(self.offset) as usize;
            if place >= self.counts.len() {
                self.counts.resize(place + 1, 0);
            }
            if let Some(joined) = self.counts.get_mut(place) {
                *joined += count;
            }
        }
    }
}

/// By how much the scale must fall so that `first..=last` is at most `size` buckets.
fn shift_to_fit(mut first: i32, mut last: i32, size: u16) -> u32 {
    let mut shift = 0;
    while first.abs_diff(last) >= u32::from(size) {
        (first, last) = (first >> 1, last >> 1);
        shift += 1;
    }
    shift
}

/// The bucket of a `value` above zero at `scale`. Subnormal values count as the smallest normal one, infinity as the largest.
fn index(value: f64, scale: i8) -> i32 {
    let value = value.clamp(f64::MIN_POSITIVE, f64::MAX);
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> SIGNIFICAND & 0x7ff).unwrap_or_default() - 1023;
    let exact = bits.trailing_zeros() >= SIGNIFICAND;
    if scale <= 0 {
        // A power of two is the upper, inclusive end of the bucket below it.
        return (exponent - i32::from(exact)) >> scale.unsigned_abs();
    }
    if exact {
        return (exponent << scale) - 1;
    }
    // Between two powers of two: rounding must not lead out of them.
    let first = exponent << scale;
    let within = (value.log2() * f64::from(1u32 << scale)).ceil() - 1.0;
    (within as i32).clamp(first, first + (1 << scale) - 1)
}

#[cfg(test)]
mod tests;
