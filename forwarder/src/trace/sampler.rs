//! Head sampling (OpenTelemetry specification, "Sampler"; ratio as a threshold on the random bits of the trace id).
//!
//! In: the parent's context and the trace id. Out: whether the span is kept. Metrics are counted before.

use spantap_config::Sampler;

use super::context::{FLAG_SAMPLED, TraceContext};

/// A sampler, its ratio turned into a threshold.
#[derive(Debug, Clone, Copy)]
pub struct TraceSampler {
    parent_based: bool,
    /// A trace is kept if its last 56 bits are not below this; 2^56 keeps none.
    threshold: u64,
}

impl TraceSampler {
    /// The sampler of the configuration.
    pub fn new(sampler: Sampler) -> Self {
        let (parent_based, ratio) = match sampler {
            Sampler::AlwaysOn => (false, 1.0),
            Sampler::AlwaysOff => (false, 0.0),
            Sampler::TraceIdRatio(ratio) => (false, ratio),
            Sampler::ParentBasedAlwaysOn => (true, 1.0),
            Sampler::ParentBasedAlwaysOff => (true, 0.0),
            Sampler::ParentBasedTraceIdRatio(ratio) => (true, ratio),
        };
        let all = (1u64 << 56) as f64;
        Self { parent_based, threshold: ((1.0 - ratio.clamp(0.0, 1.0)) * all).round() as u64 }
    }

    /// Whether the trace is kept.
    pub fn keeps(&self, parent: Option<&TraceContext>, trace_id: &[u8; 16]) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.flags & FLAG_SAMPLED != 0,
            _ => u128::from_be_bytes(*trace_id) as u64 & ((1 << 56) - 1) >= self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(low: u64) -> [u8; 16] {
        (1u128 << 100 | u128::from(low)).to_be_bytes()
    }

    #[test]
    fn ends_of_the_range() {
        let max = (1 << 56) - 1;
        for (sampler, low, want) in [
            (Sampler::AlwaysOn, 0, true),
            (Sampler::AlwaysOff, max, false),
            (Sampler::TraceIdRatio(0.5), 1 << 55, true),
            (Sampler::TraceIdRatio(0.5), (1 << 55) - 1, false),
            (Sampler::TraceIdRatio(0.0), max, false),
            (Sampler::TraceIdRatio(1.0), 0, true),
            // The byte above the 56 bits says nothing.
            (Sampler::TraceIdRatio(0.5), 0xff << 56, false),
        ] {
            assert_eq!(TraceSampler::new(sampler).keeps(None, &id(low)), want, "{sampler:?} {low:x}");
        }
    }

    #[test]
    fn parents_decide_where_asked() {
        let parent = |flags| TraceContext { trace_id: id(0), span_id: [1; 8], flags };
        let off = TraceSampler::new(Sampler::ParentBasedAlwaysOff);
        assert!(off.keeps(Some(&parent(1)), &id(0)) && !off.keeps(Some(&parent(2)), &id(u64::MAX)));
        let on = TraceSampler::new(Sampler::AlwaysOn);
        assert!(on.keeps(Some(&parent(0)), &id(0)));
    }
}
