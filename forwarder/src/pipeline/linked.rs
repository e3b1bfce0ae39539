//! Links, from requests to identities of spans.
//!
//! In: requests as they begin and end. Out: exchanges in the order in which they can be reported, each with the identity
//! that it has by what it descends from. What is decided first is decided for good: a child that is reported before its
//! parent decides on the parent's trace, and whether that is sampled, as the parent's own report would.

use spantap_config::ExcludeInstrumented;

use super::{Pipeline, instrumented, processes::Processes};
use crate::{
    exchange::{Exchange, Opened, Side},
    link::{Ancestor, Ended, Links, Unlinked, node::NodeRef},
    model::{ClockAnchor, Process, SocketEvent},
    observation::target::Target,
    telemetry::links::LinkCounts,
    trace::{Ids, Lineage, Parent, Tracer, context::TraceContext, sampler::TraceSampler},
};

impl Pipeline {
    /// Something happened on a socket; to be told before the requests that begin or end with it.
    #[inline]
    pub fn socket_event(&mut self, event: &SocketEvent, process: &Process) {
        if self.links_on {
            self.links.event(event, process);
        }
    }

    /// A request begins.
    pub fn opened(&mut self, opened: &Opened<'_>) {
        self.count_open(opened);
        if !self.links_on || self.traces.is_none() && self.console.is_none() {
            return;
        }
        let request = opened.request;
        let path = Target::parse(&request.target, &*request.method == b"CONNECT").path;
        // An export is the first that is left out, which is only known once it is answered.
        let exports =
            opened.side == Side::Client && self.exclude.spans && instrumented::is_export(&request.method, path);
        let mute = !opened.process.export_traces || exports || self.rules.routes.ignored(path).traces;
        self.links.opened(opened, mute);
    }

    /// A request that had begun will not be reported.
    pub fn abandoned(&mut self, serial: u64) {
        self.active.closed(serial);
        self.links.abandoned(serial);
    }

    /// A request has ended. It is reported at once, or when what it descends from is known, 300 ms later at most.
    pub fn ended(&mut self, exchange: Exchange, clock: &ClockAnchor) {
        self.active.closed(exchange.serial);
        match self.links.ended(&exchange) {
            Ended::Ready(node) => self.report(&exchange, clock, node.as_ref()),
            Ended::Waits(node) => {
                if let Some((exchange, clock, node)) = self.links.wait(exchange, clock, node) {
                    self.links.let_go(&node);
                    self.report(&exchange, &clock, Some(&node));
                }
            }
        }
    }

    /// Reports what need not wait any longer; with `all`, everything.
    pub(super) fn release_links(&mut self, all: bool) {
        for (exchange, clock, node) in self.links.released(all) {
            self.report(&exchange, &clock, Some(&node));
        }
    }

    /// Links from now on, or not.
    pub(super) fn reload_links(&mut self, on: bool) {
        if self.links_on && !on {
            self.release_links(true);
            self.links.clear();
        }
        self.links_on = on;
    }
}

/// The sampler of a process.
pub(super) fn sampler(process: &Process, tracer: &Tracer) -> TraceSampler {
    process.overrides.sampler.map_or(tracer.sampler(), TraceSampler::new)
}

/// The ids of a context that a request went out with.
pub(super) fn ids(own: Option<TraceContext>) -> Ids {
    Ids { trace: own.map(|own| own.trace_id), span: own.map(|own| own.span_id) }
}

/// What the identity of a span depends on.
pub(super) struct Deciding<'a> {
    pub(super) links: &'a Links,
    pub(super) tracer: &'a mut Tracer,
    pub(super) processes: &'a Processes,
    pub(super) exclude: ExcludeInstrumented,
    pub(super) counts: &'a LinkCounts,
}

impl Deciding<'_> {
    /// Decides on the identity of `node`, and before on that of what it descends from.
    pub(super) fn lineage(&mut self, node: &NodeRef) -> Lineage {
        self.lineage_in(node, None)
    }

    /// The same; a trace that begins here has the id `trace`, if one is given: that of a request which has gone out with it.
    fn lineage_in(&mut self, node: &NodeRef, trace: Option<[u8; 16]>) -> Lineage {
        if let Some(lineage) = &node.borrow().lineage {
            return lineage.clone();
        }
        let mut ancestor = self.links.ancestor(&node.borrow());
        if let Ancestor::Span(of, _) = &ancestor
            && self.is_mute(of)
        {
            ancestor = Ancestor::None(Unlinked::NoSpan);
        }
        let own = node.borrow().own;
        let mut own_ids = ids(own);
        own_ids.trace = own_ids.trace.or(trace);
        let mut above = match &ancestor {
            Ancestor::Span(of, method) => Some((self.lineage_in(of, own_ids.trace), *method)),
            Ancestor::Header | Ancestor::None(_) => None,
        };
        // What went out cannot be taken back: who received it is in that trace.
        if own.zip(above.as_ref()).is_some_and(|(own, (above, _))| own.trace_id != above.trace_id()) {
            above = None;
            ancestor = Ancestor::None(Unlinked::Propagated);
        }
        self.counts.count(&ancestor);
        let mut node = node.borrow_mut();
        let parent = match (&above, &ancestor) {
            (Some((lineage, method)), _) => Parent::Span(lineage, *method),
            (None, Ancestor::Header) => Parent::of(node.side, node.given.as_ref()),
            (None, _) => Parent::None,
        };
        let lineage = self.tracer.descend_as(sampler(&node.process, self.tracer), parent, own_ids);
        node.decide(lineage.clone());
        lineage
    }

    /// Whether a request has no span, so that nothing can descend from it.
    fn is_mute(&self, node: &NodeRef) -> bool {
        let node = node.borrow();
        node.mute || self.exclude.spans && self.processes.own(node.process.id).traces
    }
}
