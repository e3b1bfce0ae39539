//! Sampling (OpenTelemetry specification, "Sampler" and "TraceState: probability sampling"): ratio as a threshold on the
//! random bits of the trace. Metrics are counted before.
//!
//! In: the parent's context, the trace id, whether the span is kept in any case. Out: a [`Decision`].

use spantap_config::Sampler;

use super::context::{FLAG_SAMPLED, TraceContext};

/// What becomes of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is not kept.
    Drop,
    /// It is kept. `threshold`: of the random numbers 0..2^56 those not below it keep such a span, so that it stands for
    /// 2^56 / (2^56 - threshold) of them; `None`: as whoever began the trace said.
    Keep {
        /// 0..2^56.
        threshold: Option<u64>,
    },
}

/// A sampler, its ratio turned into a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSampler {
    parent_based: bool,
    /// A trace is kept if its random number is not below this; 2^56 keeps none.
    threshold: u64,
    /// The threshold is told: a share was asked for.
    tells: bool,
}

impl TraceSampler {
    /// The sampler of the configuration.
    pub fn new(sampler: Sampler) -> Self {
        let parent_based = matches!(
            sampler,
            Sampler::ParentBasedAlwaysOn | Sampler::ParentBasedAlwaysOff | Sampler::ParentBasedTraceIdRatio(_)
        );
        Self { parent_based, threshold: sampler.threshold(), tells: sampler.ratio().is_some() }
    }

    /// Decides. `random` is the random number of the trace, 56 bits; `surely`: the span is kept whatever the number is.
    pub fn decide(&self, parent: Option<&TraceContext>, random: u64, surely: bool) -> Decision {
        // A span that is kept in any case stands for itself alone, even if its number would have kept it as well.
        if surely {
            return Decision::Keep { threshold: Some(0) };
        }
        match parent {
            Some(parent) if self.parent_based => match parent.flags & FLAG_SAMPLED {
                0 => Decision::Drop,
                _ => Decision::Keep { threshold: None },
            },
            _ if random < self.threshold => Decision::Drop,
            _ => Decision::Keep { threshold: self.tells.then_some(self.threshold) },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    use super::{super::state::MAX, *};

    fn threshold(ratio: f64) -> u64 {
        Sampler::TraceIdRatio(ratio).threshold()
    }

    fn keeps(sampler: Sampler, random: u64) -> bool {
        TraceSampler::new(sampler).decide(None, random, false) != Decision::Drop
    }

    #[test]
    fn ends_of_the_range() {
        for (sampler, random, want) in [
            (Sampler::AlwaysOn, 0, true),
            (Sampler::AlwaysOff, MAX, false),
            (Sampler::TraceIdRatio(0.5), 1 << 55, true),
            (Sampler::TraceIdRatio(0.5), (1 << 55) - 1, false),
            (Sampler::TraceIdRatio(0.0), MAX, false),
            (Sampler::TraceIdRatio(1.0), 0, true),
        ] {
            assert_eq!(keeps(sampler, random), want, "{sampler:?} {random:x}");
        }
    }

    #[test]
    fn parents_decide_where_asked() {
        let parent = |flags| TraceContext { trace_id: [1; 16], span_id: [1; 8], flags };
        let off = TraceSampler::new(Sampler::ParentBasedAlwaysOff);
        assert_eq!(off.decide(Some(&parent(1)), 0, false), Decision::Keep { threshold: None });
        assert_eq!(off.decide(Some(&parent(2)), MAX, false), Decision::Drop);
        let on = TraceSampler::new(Sampler::AlwaysOn);
        assert_eq!(on.decide(Some(&parent(0)), 0, false), Decision::Keep { threshold: None });
        let ratio = TraceSampler::new(Sampler::TraceIdRatio(0.25));
        let quarter = Some(0xc0_0000_0000_0000);
        assert_eq!(ratio.decide(Some(&parent(0)), MAX, false), Decision::Keep { threshold: quarter });
    }

    #[test]
    fn what_is_kept_surely_stands_for_itself() {
        for sampler in [Sampler::AlwaysOff, Sampler::TraceIdRatio(0.01), Sampler::ParentBasedTraceIdRatio(0.01)] {
            for random in [0, MAX] {
                let decision = TraceSampler::new(sampler).decide(None, random, true);
                assert_eq!(decision, Decision::Keep { threshold: Some(0) });
            }
        }
    }

    #[test]
    fn thresholds_are_short_and_close() {
        for (ratio, want) in [
            (1.0, 0),
            (0.5, 0x80_0000_0000_0000),
            (0.1, 0xe6_6600_0000_0000),
            (0.01, 0xfd_70a0_0000_0000),
            (0.001, 0xff_be77_0000_0000),
            (0.0, MAX + 1),
        ] {
            assert_eq!(threshold(ratio), want, "{ratio}: {:x}", threshold(ratio));
        }
        assert!(threshold(1e-16) <= MAX, "a small share is some share");
    }

    /// The share that is kept lies within five standard deviations of what was asked for.
    #[test]
    fn shares_are_kept() {
        const TRACES: u32 = 200_000;
        for ratio in [0.001, 0.01, 0.1, 0.25, 0.5, 0.9] {
            let mut ids = rand::rngs::SmallRng::seed_from_u64(7);
            let sampler = Sampler::TraceIdRatio(ratio);
            let kept = (0..TRACES).filter(|_| keeps(sampler, ids.next_u64() & MAX)).count() as f64;
            let (mean, deviation) = (f64::from(TRACES) * ratio, (f64::from(TRACES) * ratio * (1.0 - ratio)).sqrt());
            assert!((kept - mean).abs() < 5.0 * deviation, "{ratio}: {kept} of {TRACES}");
        }
    }

    proptest! {
        /// A trace that a small share keeps is kept by every larger one; both sides of a request decide alike.
        #[test]
        fn shares_are_nested(random in 0..=MAX, one in 0.0..=1.0_f64, other in 0.0..=1.0_f64) {
            let (small, large) = (one.min(other), one.max(other));
            prop_assert!(threshold(small) >= threshold(large));
            prop_assert!(!keeps(Sampler::TraceIdRatio(small), random) || keeps(Sampler::TraceIdRatio(large), random));
            prop_assert_eq!(keeps(Sampler::TraceIdRatio(small), random), keeps(Sampler::ParentBasedTraceIdRatio(small), random));
        }

        /// The rounded threshold differs from the exact one by less than a part in 2^12 of what is kept.
        #[test]
        fn rounding_is_small(ratio in 1e-6..=1.0_f64) {
            let kept = ((MAX + 1 - threshold(ratio)) as f64) / (MAX + 1) as f64;
            prop_assert!((kept / ratio - 1.0).abs() < 1.0 / 4096.0, "{ratio}: {kept}");
        }
    }
}
