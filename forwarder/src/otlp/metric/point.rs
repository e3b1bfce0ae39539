//! Data points of histograms.
//!
//! In: a histogram. Out: the fields of a `HistogramDataPoint` or an `ExponentialHistogramDataPoint` after attributes and times.

use crate::{
    metric::{
        exemplar::Exemplar,
        exponential::Exponential,
        histogram::{Counts, Histogram},
    },
    otlp::wire::{bytes, fixed64, message, uint, varint},
};

/// Appends what `histogram` holds; exemplars that were not told before, if they are wanted.
pub(super) fn histogram(w: &mut Vec<u8>, histogram: &Histogram, bounds: &[f64], exemplars: bool) {
    // Both kinds of points have these under the same numbers.
    fixed64(w, 4 << 3 | 1, histogram.count());
    fixed64(w, 5 << 3 | 1, histogram.sum.to_bits());
    let exemplars = exemplars.then(|| histogram.exemplars.fresh()).into_iter().flatten();
    match &histogram.counts {
        Counts::Explicit(counts) => {
            let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            bytes(w, 6 << 3 | 2, &counts);
            let bounds: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
            bytes(w, 7 << 3 | 2, &bounds);
            exemplars.for_each(|exemplar| message(w, 8 << 3 | 2, |w| self::exemplar(w, exemplar)));
            extremes(w, histogram, [11 << 3 | 1, 12 << 3 | 1]);
        }
        Counts::Exponential(of) => {
            exponential(w, of);
            exemplars.for_each(|exemplar| message(w, 11 << 3 | 2, |w| self::exemplar(w, exemplar)));
            extremes(w, histogram, [12 << 3 | 1, 13 << 3 | 1]);
        }
    }
}

fn extremes(w: &mut Vec<u8>, histogram: &Histogram, [min, max]: [u8; 2]) {
    if histogram.min <= histogram.max {
        fixed64(w, min, histogram.min.to_bits());
        fixed64(w, max, histogram.max.to_bits());
    }
}

fn exponential(w: &mut Vec<u8>, of: &Exponential) {
    uint(w, 6 << 3, zigzag(of.scale().into()));
    fixed64(w, 7 << 3 | 1, of.zeros());
    let (offset, counts) = of.buckets();
    message(w, 8 << 3 | 2, |w| {
        uint(w, 1 << 3, zigzag(offset));
        let mut packed = Vec::with_capacity(counts.len());
        counts.iter().for_each(|count| varint(&mut packed, *count));
        bytes(w, 2 << 3 | 2, &packed);
    });
}

fn exemplar(w: &mut Vec<u8>, exemplar: &Exemplar) {
    fixed64(w, 2 << 3 | 1, exemplar.time.0);
    fixed64(w, 3 << 3 | 1, exemplar.value.to_bits());
    if let Some((trace, span)) = &exemplar.span {
        bytes(w, 4 << 3 | 2, span);
        bytes(w, 5 << 3 | 2, trace);
    }
}

/// `sint32`, as protobuf writes it.
fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}
