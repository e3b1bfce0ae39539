//! Links between spans that no header tells of: from a request that a process serves to those that it makes for it, and
//! from the request that one process sends to the same request as another receives it.
//!
//! In: requests as they begin ([`Links::opened`]) and end. Out: what each span descends from ([`Links::ancestor`]), and which
//! exchanges have to wait a moment for that.
//!
//! # Layout
//! `node` is what is kept of a request · `pair` finds the other end of a connection · `thread` the request that a thread
//! serves · `wait` holds exchanges back.
//!
//! A wrong link is worse than none: each rule says why it cannot be wrong, and what it does not cover has no link.

pub mod node;
mod pair;
mod thread;
mod wait;

use rustc_hash::FxHashMap;

use self::{
    node::{Node, NodeRef, Peer},
    pair::Pairs,
    thread::Threads,
    wait::Waiting,
};
use crate::{
    exchange::{Exchange, Opened, Outcome, Side},
    model::{ClockAnchor, ProcessId},
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
    /// One thread received the request with a call that waits, and sent the other before it answered.
    Thread,
}

impl Method {
    /// All.
    pub const ALL: [Self; 2] = [Self::Connection, Self::Thread];

    /// Value of the attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Thread => "thread",
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
    /// Client: its process was seen to serve several requests at a time on one thread.
    Interleaved,
    /// Server: whoever sent the request is on another host, is not observed, or comes through a proxy or address translation.
    PeerUnknown,
    /// Server: what belongs together cannot be told behind TLS.
    Tls,
    /// What it would descend from has no span: its program exports its own, or it is not reported.
    NoSpan,
    /// More requests at once, or one above the other, than are kept.
    Limit,
}

impl Unlinked {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::NoRequest, Self::Ambiguous, Self::Interleaved, Self::PeerUnknown, Self::Tls, Self::NoSpan, Self::Limit];

    /// Value of the attribute `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Ambiguous => "ambiguous",
            Self::Interleaved => "interleaved",
            Self::PeerUnknown => "peer_unknown",
            Self::Tls => "tls",
            Self::NoSpan => "no_span",
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

/// What became of an exchange.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one; a box would cost an allocation for each exchange"
)]
pub enum Taken {
    /// It goes on at once.
    Ready(Exchange, Option<NodeRef>),
    /// It waits, and another may have to give its place.
    Waits(Option<Box<Ready>>),
}

/// All requests that may be linked.
#[derive(Debug, Default)]
pub struct Links {
    nodes: FxHashMap<u64, NodeRef>,
    pairs: Pairs,
    threads: Threads,
    waiting: Waiting,
}

impl Links {
    /// A request has begun. `mute`: it will have no span.
    pub fn opened(&mut self, opened: &Opened<'_>, mute: bool) {
        if self.nodes.len() >= MAX_NODES {
            return;
        }
        let node = Node::of(opened, mute);
        match opened.side {
            Side::Client => {
                let found = self.threads.serving(opened);
                {
                    let mut own = node.borrow_mut();
                    match found {
                        Ok(server) if server.borrow().depth < MAX_DEPTH => {
                            own.depth = server.borrow().depth + 1;
                            own.parent = Some(server);
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
            self.pairs.closed(&node);
        }
    }

    /// A request has ended.
    pub fn ended(&mut self, exchange: Exchange, clock: &ClockAnchor) -> Taken {
        let Some(node) = self.nodes.remove(&exchange.serial) else { return Taken::Ready(exchange, None) };
        let answered = exchange.response_start.filter(|_| exchange.outcome == Outcome::Complete);
        self.threads.closed(&node, answered);
        if exchange.side == Side::Client {
            self.pairs.closed(&node);
        }
        if node::is_pending(&node) {
            return Taken::Waits(self.waiting.push((exchange, *clock, node)).map(Box::new));
        }
        self.pairs.closed(&node);
        Taken::Ready(exchange, Some(node))
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
        if let Some(given) = &node.given {
            // A program that hands on what it received makes no span of its own between the two.
            return match &node.parent {
                Some(server) if node.side == Side::Client && self.threads.trusts(node.process.id) => {
                    match &server.borrow().given {
                        Some(received) if received.context == given.context => {
                            Ancestor::Span(server.clone(), Method::Thread)
                        }
                        _ => Ancestor::Header,
                    }
                }
                _ => Ancestor::Header,
            };
        }
        match (node.side, &node.peer, &node.parent) {
            (Side::Server, Peer::Is(client), _) => Ancestor::Span(client.clone(), Method::Connection),
            (Side::Client, _, Some(server)) if self.threads.trusts(node.process.id) => {
                Ancestor::Span(server.clone(), Method::Thread)
            }
            (Side::Client, _, Some(_)) => Ancestor::None(Unlinked::Interleaved),
            _ => Ancestor::None(node.unlinked),
        }
    }

    /// A process has ended.
    pub fn process_ended(&mut self, process: ProcessId) {
        self.threads.process_ended(process);
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
