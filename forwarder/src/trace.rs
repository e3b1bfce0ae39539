//! Identity of spans: the context that arrives with a request, new ids, and the decision to keep a trace.
//!
//! In: `traceparent` and `tracestate` fields. Out: a [`Decision`] for each exchange.

pub mod context;
pub mod sampler;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use self::{
    context::{FLAG_RANDOM, FLAG_SAMPLED, TraceContext},
    sampler::TraceSampler,
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
        let parent = context::parse(&headers.traceparent);
        let trace_id = match &parent {
            Some(parent) => parent.trace_id,
            None => self.trace_id(),
        };
        if !self.sampler.keeps(parent.as_ref(), &trace_id) {
            return None;
        }
        let (flags, trace_state) = match &parent {
            Some(parent) => (parent.flags | FLAG_SAMPLED, self.trace_state(&headers.tracestate)),
            None => (FLAG_SAMPLED | FLAG_RANDOM, String::new()),
        };
        Some(SpanIdentity {
            trace_id,
            span_id: self.span_id(),
            remote_parent: parent.is_some() && side == Side::Server,
            parent: parent.map(|p: TraceContext| p.span_id),
            flags,
            trace_state,
        })
    }

    fn trace_state(&self, fields: &[Bytes]) -> String {
        if fields.is_empty() { String::new() } else { context::trace_state(fields) }
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
}
