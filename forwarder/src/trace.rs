//! Identity of spans: the context that arrives with a request, new ids, and the decision to keep a trace.
//!
//! In: `traceparent` and `tracestate` fields. Out: a [`SpanIdentity`] for each exchange whose span is kept.

pub mod context;
pub mod keep;
pub mod sampler;
mod state;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use self::{
    context::{FLAG_RANDOM, FLAG_SAMPLED, TraceContext},
    sampler::{Decision, TraceSampler},
};
use crate::exchange::{RequestHeaders, Side};

/// Identity of a span that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanIdentity {
    /// Trace, never zero.
    pub trace_id: [u8; 16],
    /// This span, never zero.
    pub span_id: [u8; 8],
    /// Parent; `None` for a root.
    pub parent: Option<[u8; 8]>,
    /// The parent is in another process.
    pub remote_parent: bool,
    /// W3C flags of this span: sampled, and random as known.
    pub flags: u8,
    /// Validated `tracestate`, empty if none.
    pub trace_state: String,
}

/// Gives ids and decides on sampling. Not for secrets: ids are unpredictable enough not to collide, no more.
#[derive(Debug)]
pub struct Tracer {
    ids: SmallRng,
    sampler: TraceSampler,
}

impl Tracer {
    /// A tracer with a generator seeded by the operating system.
    pub fn new(sampler: spantap_config::Sampler) -> Self {
        Self { ids: rand::make_rng(), sampler: TraceSampler::new(sampler) }
    }

    /// A tracer whose ids repeat from run to run, for tests.
    pub fn seeded(sampler: spantap_config::Sampler, seed: u64) -> Self {
        Self { ids: SmallRng::seed_from_u64(seed), sampler: TraceSampler::new(sampler) }
    }

    /// Identity of the span of a request with `headers`, or `None` if its trace is not sampled.
    ///
    /// A server's span is a child of the context that came with the request. The context that a client sends names a
    /// span of the program's own, or of its library; the client span seen from outside can not have its id, so it
    /// becomes a child of it, in the same process.
    pub fn start(&mut self, side: Side, headers: &RequestHeaders) -> Option<SpanIdentity> {
        self.start_by(self.sampler, side, headers, false)
    }

    /// The same with a sampler of its own; `surely`: the span is kept whatever that says.
    pub fn start_by(
        &mut self,
        sampler: TraceSampler,
        side: Side,
        headers: &RequestHeaders,
        surely: bool,
    ) -> Option<SpanIdentity> {
        let parent = context::parse(&headers.traceparent);
        let (trace_id, mut trace_state) = match &parent {
            Some(parent) if headers.tracestate.is_empty() => (parent.trace_id, String::new()),
            Some(parent) => (parent.trace_id, context::trace_state(&headers.tracestate)),
            None => (self.trace_id(), String::new()),
        };
        // The random number of the trace: told explicitly, else the last seven bytes of its id.
        let random = state::random(&trace_state).unwrap_or(u128::from_be_bytes(trace_id) as u64 & state::MAX);
        match sampler.decide(parent.as_ref(), random, surely) {
            Decision::Drop => return None,
            Decision::Keep { threshold: None } => {}
            Decision::Keep { threshold: Some(threshold) } => {
                trace_state = state::with_threshold(&trace_state, threshold);
            }
        }
        Some(SpanIdentity {
            trace_id,
            span_id: self.span_id(),
            remote_parent: parent.is_some() && side == Side::Server,
            flags: parent.map_or(FLAG_RANDOM, |p| p.flags) | FLAG_SAMPLED,
            parent: parent.map(|p: TraceContext| p.span_id),
            trace_state,
        })
    }

    /// The sampler of those that have none of their own.
    pub fn sampler(&self) -> TraceSampler {
        self.sampler
    }

    /// Another sampler from now on.
    pub fn set_sampler(&mut self, sampler: spantap_config::Sampler) {
        self.sampler = TraceSampler::new(sampler);
    }

    fn trace_id(&mut self) -> [u8; 16] {
        loop {
            let (high, low) = (self.ids.next_u64(), self.ids.next_u64());
            // Samplers downstream read the last seven bytes; a zero id is invalid.
            if low != 0 {
                return ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
            }
        }
    }

    fn span_id(&mut self) -> [u8; 8] {
        loop {
            let id = self.ids.next_u64();
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use spantap_config::Sampler;

    use super::*;

    fn with(traceparent: &'static str) -> RequestHeaders {
        RequestHeaders {
            traceparent: vec![Bytes::from_static(traceparent.as_bytes())],
            tracestate: vec![Bytes::from_static(b"a=1")],
            ..Default::default()
        }
    }

    #[test]
    fn a_context_is_continued() {
        let mut tracer = Tracer::seeded(Sampler::ParentBasedAlwaysOn, 1);
        let headers = with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let server = tracer.start(Side::Server, &headers).unwrap();
        assert_eq!(server.trace_id, *b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c");
        assert_eq!(server.parent, Some(*b"\xb7\xad\x6b\x71\x69\x20\x33\x31"));
        assert!(server.remote_parent);
        assert_eq!((server.flags, server.trace_state.as_str()), (1, "a=1"), "the random flag is copied, not set");
        let client = tracer.start(Side::Client, &headers).unwrap();
        assert!(!client.remote_parent && client.parent == server.parent && client.span_id != server.span_id);
    }

    #[test]
    fn without_a_context_a_trace_begins() {
        let mut tracer = Tracer::new(Sampler::ParentBasedAlwaysOn);
        let one = tracer.start(Side::Server, &with("nonsense")).unwrap();
        let two = tracer.start(Side::Server, &RequestHeaders::default()).unwrap();
        assert_ne!(one.trace_id, two.trace_id);
        assert_ne!(one.span_id, two.span_id);
        assert_eq!((one.parent, one.flags, one.trace_state.as_str()), (None, 3, ""));
    }

    #[test]
    fn unsampled_parents_are_respected() {
        let headers = with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        assert_eq!(Tracer::seeded(Sampler::ParentBasedAlwaysOn, 1).start(Side::Server, &headers), None);
        assert_eq!(Tracer::seeded(Sampler::AlwaysOn, 1).start(Side::Server, &headers).unwrap().flags, 1);
    }

    #[test]
    fn the_threshold_is_told_honestly() {
        let id = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let headers = |flags: &str, state: &str| RequestHeaders {
            traceparent: vec![Bytes::from(format!("00-{id}-{flags}"))],
            tracestate: vec![Bytes::copy_from_slice(state.as_bytes())],
            ..Default::default()
        };
        let state = |sampler, headers: &RequestHeaders, surely| {
            let kept = Tracer::new(sampler).start_by(TraceSampler::new(sampler), Side::Server, headers, surely);
            kept.map(|kept| kept.trace_state)
        };
        // The id's last seven bytes are 48eb211c80319c: kept from a share of 0.7153 on.
        for (sampler, flags, given, surely, want) in [
            (Sampler::TraceIdRatio(0.75), "01", "a=1", false, Some("ot=th:4,a=1")),
            (Sampler::TraceIdRatio(0.5), "01", "a=1", false, None),
            (
                Sampler::TraceIdRatio(0.5),
                "01",
                "ot=rv:80000000000000,a=1",
                false,
                Some("ot=th:8;rv:80000000000000,a=1"),
            ),
            (Sampler::TraceIdRatio(0.75), "01", "ot=rv:00000000000000", false, None),
            (Sampler::ParentBasedTraceIdRatio(0.01), "01", "ot=th:8,a=1", false, Some("ot=th:8,a=1")),
            (Sampler::ParentBasedTraceIdRatio(0.01), "00", "ot=th:8,a=1", false, None),
            (Sampler::ParentBasedTraceIdRatio(0.01), "00", "ot=th:8,a=1", true, Some("ot=th:0,a=1")),
            (Sampler::ParentBasedAlwaysOn, "01", "a=1", false, Some("a=1")),
        ] {
            assert_eq!(state(sampler, &headers(flags, given), surely).as_deref(), want, "{sampler:?} {given}");
        }
        // A new trace that is kept by its share, and one that is kept surely.
        let kept = (0..50).find_map(|_| state(Sampler::TraceIdRatio(0.5), &RequestHeaders::default(), false));
        assert_eq!(kept.as_deref(), Some("ot=th:8"));
        assert_eq!(state(Sampler::AlwaysOff, &RequestHeaders::default(), true).as_deref(), Some("ot=th:0"));
    }
}
