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
use crate::{
    exchange::{RequestHeaders, Side},
    link::Method,
};

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
    /// How the parent was found, where no header tells it.
    pub link: Option<Method>,
}

/// A context that came or went with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// `traceparent`.
    pub context: TraceContext,
    /// Validated `tracestate`, empty if none.
    pub state: String,
}

impl Given {
    /// The context in `headers`; none if there is no valid one, or if it names the span of the request itself ([`own`]).
    pub fn of(headers: &RequestHeaders) -> Option<Self> {
        if headers.propagated {
            return None;
        }
        let context = context::parse(&headers.traceparent)?;
        let state =
            if headers.tracestate.is_empty() { String::new() } else { context::trace_state(&headers.tracestate) };
        Some(Self { context, state })
    }
}

/// The context that the agent's probes put into a request: that of its client's span, which so has an identity that is known
/// elsewhere already.
pub fn own(headers: &RequestHeaders) -> Option<TraceContext> {
    headers.propagated.then(|| context::parse(&headers.traceparent)).flatten()
}

/// Ids that a span has to have; others are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ids {
    /// Of the trace, if the span begins one.
    pub trace: Option<[u8; 16]>,
    /// Of the span.
    pub span: Option<[u8; 8]>,
}

/// What a span descends from.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// Nothing that is known.
    None,
    /// A context that came or went with the request; second: whether that names a span of another process.
    Given(&'a Given, bool),
    /// Another span of ours.
    Span(&'a Lineage, Method),
}

impl<'a> Parent<'a> {
    /// What the header of a request says: it came to a server from elsewhere, and went from the client's own program.
    pub fn of(side: Side, given: Option<&'a Given>) -> Self {
        given.map_or(Self::None, |given| Self::Given(given, side == Side::Server))
    }
}

/// A span's identity with what its descendants need, whether it is kept or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent: Option<[u8; 8]>,
    remote_parent: bool,
    /// Without the flag that says whether it is sampled.
    flags: u8,
    given_state: String,
    /// Its `tracestate`, if it is kept.
    kept: Option<String>,
    link: Option<Method>,
}

impl Lineage {
    /// The identity of the span; none if it is not kept. `surely`: it is kept whatever the sampler says, and then stands
    /// for itself alone.
    pub fn identity(&self, surely: bool) -> Option<SpanIdentity> {
        let trace_state = if surely { Some(state::with_threshold(&self.given_state, 0)) } else { self.kept.clone() };
        Some(SpanIdentity {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent: self.parent,
            remote_parent: self.remote_parent,
            flags: self.flags | FLAG_SAMPLED,
            trace_state: trace_state?,
            link: self.link,
        })
    }

    /// Its trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// What a header with this span would say.
    fn context(&self) -> TraceContext {
        let sampled = if self.kept.is_some() { FLAG_SAMPLED } else { 0 };
        TraceContext { trace_id: self.trace_id, span_id: self.span_id, flags: self.flags | sampled }
    }

    fn state(&self) -> &str {
        self.kept.as_deref().unwrap_or(&self.given_state)
    }
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
        self.descend(self.sampler, Parent::of(side, Given::of(headers).as_ref())).identity(false)
    }

    /// What a span is and what descends from it has, kept or not.
    pub fn descend(&mut self, sampler: TraceSampler, parent: Parent<'_>) -> Lineage {
        self.descend_as(sampler, parent, Ids::default())
    }

    /// The same with ids that are given: that of the trace counts where no parent tells it.
    pub fn descend_as(&mut self, sampler: TraceSampler, parent: Parent<'_>, ids: Ids) -> Lineage {
        let (context, remote_parent, given_state, link) = match parent {
            Parent::None => (None, false, "", None),
            Parent::Given(given, remote) => (Some(given.context), remote, &*given.state, None),
            Parent::Span(parent, method) => {
                let remote = method == Method::Connection;
                (Some(parent.context()), remote, parent.state(), Some(method))
            }
        };
        let trace_id = context.map(|context| context.trace_id).or(ids.trace).unwrap_or_else(|| self.trace_id());
        // The random number of the trace: told explicitly, else the last seven bytes of its id.
        let random = state::random(given_state).unwrap_or(u128::from_be_bytes(trace_id) as u64 & state::MAX);
        let kept = match sampler.decide(context.as_ref(), random, false) {
            Decision::Drop => None,
            Decision::Keep { threshold: None } => Some(given_state.to_owned()),
            Decision::Keep { threshold: Some(threshold) } => Some(state::with_threshold(given_state, threshold)),
        };
        Lineage {
            trace_id,
            span_id: ids.span.unwrap_or_else(|| self.span_id()),
            parent: context.map(|context| context.span_id),
            remote_parent,
            flags: context.map_or(FLAG_RANDOM, |context| context.flags) & !FLAG_SAMPLED,
            given_state: given_state.to_owned(),
            kept,
            link,
        }
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
    fn what_was_put_into_a_request_is_the_identity_of_its_span() {
        let mut headers = with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        headers.propagated = true;
        let own = own(&headers).unwrap();
        assert_eq!(Given::of(&headers), None, "no parent");
        let mut tracer = Tracer::seeded(Sampler::ParentBasedAlwaysOn, 1);
        let ids = Ids { trace: Some(own.trace_id), span: Some(own.span_id) };
        let sampler = tracer.sampler();
        let begun = tracer.descend_as(sampler, Parent::None, ids).identity(false).unwrap();
        assert_eq!((begun.trace_id, begun.span_id, begun.parent), (own.trace_id, own.span_id, None));
        // The request that it serves begins the trace, if its id is asked for.
        let above = tracer.descend_as(sampler, Parent::None, Ids { span: None, ..ids });
        let below = tracer.descend_as(sampler, Parent::Span(&above, Method::Thread), ids).identity(false).unwrap();
        assert_eq!((below.trace_id, below.span_id), (own.trace_id, own.span_id));
        assert!(below.parent.is_some_and(|parent| parent != own.span_id));
        headers.propagated = false;
        assert!(super::own(&headers).is_none() && Given::of(&headers).is_some());
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
            let given = Given::of(headers);
            let parent = Parent::of(Side::Server, given.as_ref());
            let kept = Tracer::new(sampler).descend(TraceSampler::new(sampler), parent).identity(surely);
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
