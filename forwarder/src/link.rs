//! Links between spans that no header tells of: from a request that a process serves to those that it makes for it, and
//! from the request that one process sends to the same request as another receives it.
//!
//! In: requests as they begin ([`Links::opened`]) and end. Out: what each span descends from ([`Links::ancestor`]), and which
//! exchanges have to wait a moment for that.
//!
//! # Layout
//! `node` is what is kept of a request · `pair` finds the other end of a connection · `thread` the request that a thread
//! serves · `flow` that of an event loop · `told` that of a runtime that tells · `marked` are processes
//! to which a rule does not apply · `wait` holds exchanges back.
//!
//! A wrong link is worse than none: each rule says why it cannot be wrong, and what it does not cover has no link.

mod flow;
mod marked;
pub mod node;
mod pair;
mod thread;
mod told;
mod wait;

use rustc_hash::FxHashMap;

use self::{
    flow::Flow,
    node::{Doubt, Node, NodeRef, Peer},
    pair::Pairs,
    thread::Threads,
    told::Runtimes,
    wait::Waiting,
};
use crate::{
    exchange::{Exchange, Opened, Outcome, Side},
    model::{ClockAnchor, EventKind, Process, ProcessId, SocketEvent},
};

/// Requests that are known at once; beyond, a request has no links ([`Unlinked::Limit`]). Some 300 bytes each.
const MAX_NODES: usize = 32_768;
/// Links one above the other at most.
const MAX_DEPTH: u16 = 64;

/// How a link was found: `spantap.link.method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Both ends of one connection were seen.
    Connection,
    /// One thread received the request with a call that waits, sent the other, and answered.
    Thread,
    /// An event loop sent it while it handled the other, and began its answer to that with the response.
    EventLoopFlow,
    /// Go: a goroutine sent it that runs the other's handler, or was made by one that does.
    GoGoroutine,
    /// Go: it was sent with the other's context.
    GoContext,
    /// Go: as the first, within a second of the answer to the other.
    GoLate,
    /// CPython: it was sent in a context that belongs to the other.
    PythonContext,
    /// Node: what it executed was begun for the other: a callback, or what awaited a promise.
    NodeAsync,
    /// tokio: the other's task sent it, or had it sent and was woken by its response.
    TokioTask,
}

impl Method {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Connection,
        Self::Thread,
        Self::EventLoopFlow,
        Self::GoGoroutine,
        Self::GoContext,
        Self::GoLate,
        Self::PythonContext,
        Self::NodeAsync,
        Self::TokioTask,
    ];

    /// Value of the attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Thread => "thread",
            Self::EventLoopFlow => "event-loop-flow",
            Self::GoGoroutine => "go-goroutine",
            Self::GoContext => "go-context",
            Self::GoLate => "go-late",
            Self::PythonContext => "python-context",
            Self::NodeAsync => "node-async",
            Self::TokioTask => "tokio-task",
        }
    }
}

/// Why a span without a header has no parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unlinked {
    /// Client: its thread serves no request, as far as is known: none came, or its runtime shares threads between requests.
    NoRequest,
    /// Client: its thread has received more than one request that is not answered.
    Ambiguous,
    /// Client: its process was seen to serve several requests at a time on one thread, or to answer by another than received.
    Interleaved,
    /// Client: what its process answered, or who answered, did not show that the link is right.
    Unconfirmed,
    /// Server: whoever sent the request is on another host, is not observed, or comes through a proxy.
    PeerUnknown,
    /// Server: it came through TLS, and its socket is not known.
    Tls,
    /// What it would descend from has no span: its program exports its own, or it is not reported.
    NoSpan,
    /// Client: its request went out with a context of its own, made before it was known what it descends from, in another trace.
    Propagated,
    /// More requests at once, or one above the other, than are kept.
    Limit,
}

impl Unlinked {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::NoRequest,
        Self::Ambiguous,
        Self::Interleaved,
        Self::Unconfirmed,
        Self::PeerUnknown,
        Self::Tls,
        Self::NoSpan,
        Self::Propagated,
        Self::Limit,
    ];

    /// Value of the attribute `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Ambiguous => "ambiguous",
            Self::Interleaved => "interleaved",
            Self::Unconfirmed => "unconfirmed",
            Self::PeerUnknown => "peer_unknown",
            Self::Tls => "tls",
            Self::NoSpan => "no_span",
            Self::Propagated => "propagated",
            Self::Limit => "limit",
        }
    }
}

/// What a span descends from.
#[derive(Debug, Clone)]
pub enum Ancestor {
    /// The context of a header that came or went with it.
    Header,
    /// Another span, found by a rule.
    Span(NodeRef, Method),
    /// Nothing: it is the first of its trace, or that is not known.
    None(Unlinked),
}

/// An exchange that goes on.
pub type Ready = (Exchange, ClockAnchor, NodeRef);

/// What becomes of an exchange.
pub enum Ended {
    /// It goes on at once.
    Ready(Option<NodeRef>),
    /// It has to wait ([`Links::wait`]).
    Waits(NodeRef),
}

/// All requests that may be linked.
#[derive(Debug, Default)]
pub struct Links {
    nodes: FxHashMap<u64, NodeRef>,
    pairs: Pairs,
    threads: Threads,
    flow: Flow,
    runtimes: Runtimes,
    waiting: Waiting,
}

impl Links {
    /// Something happened on a socket; to be told before the requests that begin or end with it.
    #[inline]
    pub fn event(&mut self, event: &SocketEvent, process: &Process) {
        match event.kind {
            EventKind::Link => return self.runtimes.told(event),
            EventKind::Closed | EventKind::Reset => self.runtimes.gone(event),
            EventKind::Send => self.threads.sent(event),
            _ => {}
        }
        self.flow.event(event, process);
    }

    /// A request has begun. `mute`: it will have no span.
    pub fn opened(&mut self, opened: &Opened<'_>, mute: bool) {
        if self.nodes.len() >= MAX_NODES {
            return;
        }
        let node = Node::of(opened, mute);
        match opened.side {
            Side::Client => {
                let (found, doubt) = if flow::applies(opened.process) {
                    (self.flow.serving(&node, opened).map(|server| (server, Method::EventLoopFlow)), Doubt::Open)
                } else if self.runtimes.will_tell(&node, opened) {
                    (Err(Unlinked::Unconfirmed), Doubt::Open)
                } else if told::applies(opened.process) || self.runtimes.knows(opened) {
                    (self.runtimes.serving(opened), Doubt::None)
                } else {
                    (self.threads.serving(opened).map(|server| (server, Method::Thread)), Doubt::Open)
                };
                {
                    let mut own = node.borrow_mut();
                    match found {
                        Ok((server, method)) if server.borrow().depth < MAX_DEPTH => {
                            own.depth = server.borrow().depth + 1;
                            own.parent = Some(server);
                            (own.method, own.doubt) = (method, doubt);
                        }
                        Ok(_) => own.unlinked = Unlinked::Limit,
                        Err(why) => own.unlinked = why,
                    }
                }
                self.pairs.client(&node, opened);
            }
            Side::Server => {
                self.pairs.server(&node, opened);
                self.threads.received(&node, opened);
                self.flow.received(&node, opened);
                self.runtimes.received(&node, opened);
            }
        }
        self.nodes.insert(opened.serial, node);
    }

    /// A request will not be reported.
    pub fn abandoned(&mut self, serial: u64) {
        if let Some(node) = self.nodes.remove(&serial) {
            // What descends from it descends from nothing that anybody will see.
            node.borrow_mut().mute = true;
            self.threads.closed(&node, None);
            self.flow.closed(&node);
            self.runtimes.closed(&node, None);
            self.pairs.closed(&node);
        }
    }

    /// A request has ended. It is large, and stays where it is unless it has to wait.
    pub fn ended(&mut self, exchange: &Exchange) -> Ended {
        let Some(node) = self.nodes.remove(&exchange.serial) else { return Ended::Ready(None) };
        let answered = exchange.response_start.filter(|_| exchange.outcome == Outcome::Complete);
        self.threads.closed(&node, answered);
        self.flow.closed(&node);
        self.runtimes.closed(&node, (exchange.outcome == Outcome::Complete).then_some(exchange.end));
        if exchange.side == Side::Client {
            self.pairs.closed(&node);
        }
        if node::is_pending(&node) {
            return Ended::Waits(node);
        }
        self.pairs.closed(&node);
        Ended::Ready(Some(node))
    }

    /// An exchange waits; gives back another one that has to go on in its place.
    pub fn wait(&mut self, exchange: Exchange, clock: &ClockAnchor, node: NodeRef) -> Option<Ready> {
        self.waiting.push((exchange, *clock, node))
    }

    /// Exchanges that need not wait any longer; with `all`, every one.
    pub fn released(&mut self, all: bool) -> Vec<Ready> {
        let ready = self.waiting.released(all);
        for (_, _, node) in &ready {
            self.let_go(node);
        }
        ready
    }

    /// Waits for nothing any more, and remembers that there was nothing to wait for.
    pub fn let_go(&mut self, node: &NodeRef) {
        self.pairs.closed(node);
        for socket in node::give_up(node) {
            self.pairs.stands_apart(socket);
        }
    }

    /// What the span of `node` descends from. Its own header first.
    pub fn ancestor(&self, node: &Node) -> Ancestor {
        let served = match &node.parent {
            Some(server) if node.side == Side::Client => self.certain(node).map(|()| server),
            _ => Err(node.unlinked),
        };
        if let Some(given) = &node.given {
            // A program that hands on what it received makes no span of its own between the two.
            return match served {
                Ok(server) => match &server.borrow().given {
                    Some(received) if received.context == given.context => Ancestor::Span(server.clone(), node.method),
                    _ => Ancestor::Header,
                },
                Err(_) => Ancestor::Header,
            };
        }
        match (node.side, &node.peer, served) {
            (Side::Server, Peer::Is(client), _) => Ancestor::Span(client.clone(), Method::Connection),
            (_, _, Ok(server)) => Ancestor::Span(server.clone(), node.method),
            (_, _, Err(why)) => Ancestor::None(why),
        }
    }

    /// Whether a client's parent is certain, now that it has to be decided.
    fn certain(&self, node: &Node) -> Result<(), Unlinked> {
        match (node.method, node.doubt) {
            (Method::Thread, _) => self.threads.certain(node),
            (_, Doubt::None) => Ok(()),
            (_, Doubt::Open) if self.flow.trusts(node.process.id) => Ok(()),
            (_, Doubt::Open | Doubt::Refuted) => Err(Unlinked::Unconfirmed),
        }
    }

    /// A process has ended.
    pub fn process_ended(&mut self, process: ProcessId) {
        self.threads.process_ended(process);
        self.flow.process_ended(process);
        self.runtimes.process_ended(process);
    }

    /// Forgets all; nothing may wait any more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Exchanges that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests;
