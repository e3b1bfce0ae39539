#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn base(scale: i8) -> f64 {
    (2f64).powf((2f64).powi(-i32::from(scale)))
}

fn of(values: &[f64], max_scale: i8, max_size: u16) -> Exponential {
    let mut histogram = Exponential::new(max_scale, max_size);
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

#[test]
fn powers_of_two_end_their_bucket() {
    for scale in -10..=20i8 {
        for exponent in [-1022, -300, -1, 0, 1, 2, 300, 1023] {
            let value = (2f64).powi(exponent);
            let at = index(value, scale);
            let width = (2f64).powi(-i32::from(scale));
            // (at * width, (at + 1) * width] in powers of two.
            assert!(f64::from(at) * width < f64::from(exponent), "{exponent} at {scale}: {at}");
            assert!(f64::from(exponent) <= f64::from(at + 1) * width, "{exponent} at {scale}: {at}");
        }
    }
}

#[test]
fn known_buckets() {
    // At scale 0 the bounds are the powers of two, at scale 1 those of the root of two.
    for (value, scale, want) in
        [(1.0, 0, -1), (1.5, 0, 0), (2.0, 0, 0), (2.1, 0, 1), (1.4, 1, 0), (1.5, 1, 1), (4.0, -1, 0), (4.1, -1, 1)]
    {
        assert_eq!(index(value, scale), want, "{value} at {scale}");
    }
}

#[test]
fn odd_values_have_a_place() {
    let all = [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0];
    let histogram = of(&all, 20, 2);
    assert_eq!((histogram.zeros(), histogram.count(), histogram.scale()), (4, 9, MIN_SCALE));
    assert_eq!(histogram.buckets(), (-1, [3, 2].as_slice()));
}

#[test]
fn one_value_is_as_fine_as_it_may_be() {
    let histogram = of(&[0.123], 20, 160);
    assert_eq!((histogram.scale(), histogram.buckets().1.len()), (20, 1));
}

/// Durations as they come: from nanoseconds to hours.
fn durations() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![Just(0.0), (0u64..10_000_000_000_000).prop_map(|ns| ns as f64 / 1e9)], 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the scale fell on the way: the counts are those of all values put into buckets at the last scale.
    #[test]
    fn one_by_one_is_all_at_once(values in durations(), size in 2u16..200, scale in -10i8..=20) {
        let histogram = of(&values, scale, size);
        let (offset, counts) = histogram.buckets();
        prop_assert!(counts.len() <= usize::from(size) && histogram.scale() <= scale);
        let mut want = vec![0; counts.len()];
        for value in values.iter().filter(|value| **value > 0.0) {
            // From the finest scale, as a histogram that joins buckets sees it.
            let at = index(*value, scale) >> (scale - histogram.scale());
            *want.get_mut(usize::try_from(at - offset).unwrap()).unwrap() += 1;
        }
        prop_assert_eq!(counts, want.as_slice());
        prop_assert_eq!(histogram.count(), values.len() as u64);
    }

    /// The order does not matter, nor that some were counted apart: what is merged by the receiver is the same.
    #[test]
    fn any_order_is_the_same(values in durations(), size in 2u16..200) {
        let forth = of(&values, 20, size);
        let back: Vec<f64> = values.iter().rev().copied().collect();
        prop_assert_eq!(&forth, &of(&back, 20, size));
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        prop_assert_eq!(&forth, &of(&sorted, 20, size));
    }

    /// A quantile read from the buckets is off by less than one bucket's width.
    #[test]
    fn quantiles_are_close(values in durations(), size in 2u16..200, q in 0.0f64..=1.0) {
        let histogram = of(&values, 20, size);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let rank = ((q * sorted.len() as f64).ceil() as u64).clamp(1, sorted.len() as u64);
        let exact = *sorted.get(usize::try_from(rank - 1).unwrap()).unwrap();
        let (offset, counts) = histogram.buckets();
        let mut seen = histogram.zeros();
        if rank <= seen {
            prop_assert_eq!(exact, 0.0);
            return Ok(());
        }
        for (at, count) in (offset..).zip(counts) {
            seen += count;
            if seen >= rank {
                let (low, high) = (base(histogram.scale()).powi(at), base(histogram.scale()).powi(at + 1));
                // A little for the rounding of the test's own powers.
                prop_assert!(low * (1.0 - 1e-6) <= exact && exact <= high * (1.0 + 1e-6), "{} not in {}..={}", exact, low, high);
                return Ok(());
            }
        }
        prop_assert!(false, "the counts end before the rank");
    }

    /// The scale does not fall further than the values need.
    #[test]
    fn the_scale_is_the_finest_that_fits(values in durations(), size in 2u16..200) {
        let histogram = of(&values, 20, size);
        if histogram.scale() < 20 {
            let finer = histogram.scale() + 1;
            let indices = values.iter().filter(|v| **v > 0.0).map(|v| index(*v, 20) >> (20 - finer));
            let (low, high) = indices.fold((i32::MAX, i32::MIN), |(low, high), at| (low.min(at), high.max(at)));
            prop_assert!(high - low >= i32::from(size), "{}..={} fits {} at scale {}", low, high, size, finer);
        }
    }
}
