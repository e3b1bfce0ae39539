//! Which request a program's own runtime serves, as the kernel side read it in its memory: Go, CPython, Node (`node`), tokio (`tokio`).
//!
//! In: requests as they are received and answered; what the kernel side told before a request is sent ([`EventKind::Link`]).
//! Out: for that request, the one that it is sent for.
//!
//! What is told names the byte that the request will begin with, so that nothing that is lost in between can shift it to another,
//! and the connection of the request that is served, with the time at which its handler began: a connection of HTTP/1 is served one request
//! after another, so that is the first one that was not answered by then. Once it is answered, a request is only linked to it for
//! [`GRACE`], and of a goroutine that the handler made only its first: others may work for anybody by then. A process in
//! which a goroutine goes on longer has no links by goroutines that handlers made.
//!
//! Of CPython the time is that at which the request was received. What its context sends after the answer is not linked: most
//! programs keep some that go on. Nor is what is sent while the connection has another request that is not answered (pipelining).
//!
//! [`EventKind::Link`]: crate::model::EventKind::Link

mod node;
mod tokio;

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use self::tokio::Later;
use super::{Method, Unlinked, marked::Marked, node::NodeRef};
use crate::{
    exchange::{Opened, Side},
    model::{MonotonicNs, Process, ProcessId, SocketEvent, SocketId, Tie},
};

/// Sockets that are remembered, in each direction; full, all are forgotten, and what is open has no link.
const MAX_SOCKETS: usize = 65_536;
/// Requests that were answered a moment ago, of all sockets.
const MAX_RECENT: usize = 8192;
/// Requests of one socket that are not answered.
const MAX_OPEN: usize = 8;
/// How long after its answer a request may be the parent of another, nanoseconds.
const GRACE: u64 = 1_000_000_000;

/// How the kernel side found it: `enum link` in `probes/event.h`.
const INHERITED: u32 = 2;
const INHERITED_AGAIN: u32 = 3;
const CONTEXT: u32 = 4;
const PYTHON: u32 = 30;
const NODE: u32 = 20;
const NODE_BLIND: u32 = 21;
const TOKIO_ITSELF: u32 = 40;
const TOKIO_LATER: u32 = 41;
const TOKIO_WOKEN: u32 = 42;
const TOKIO_NONE: u32 = 43;

/// What is sent next over a socket.
#[derive(Debug, Clone, Copy)]
struct Told {
    process: ProcessId,
    /// TCP sequence number, or the stream offset of plaintext.
    first_byte: u64,
    tls: bool,
    time: MonotonicNs,
    /// Connection of the request that is served, and when its handler began.
    serves: SocketId,
    handler: MonotonicNs,
    by: u32,
}

impl Told {
    /// Whether it was told of this request.
    fn is_of(&self, opened: &Opened<'_>) -> bool {
        let first_byte = match (opened.tls, opened.connection.tie) {
            (true, _) => Some(opened.offset),
            (false, Tie::Sequence { sent, .. }) => Some(u64::from(sent.wrapping_add(opened.offset as u32))),
            _ => None,
        };
        let is_this =
            first_byte == Some(self.first_byte) && self.tls == opened.tls && self.process == opened.process.id;
        is_this && self.time <= opened.time
    }
}

/// Requests that came over one socket.
#[derive(Debug, Default)]
struct Served {
    open: Vec<NodeRef>,
    /// Those that were answered since [`GRACE`], and when: in the order of that, for hundreds stand here and few are looked at.
    answered: VecDeque<(NodeRef, MonotonicNs)>,
    /// The socket is closed.
    gone: bool,
}

impl Served {
    /// The request that was served then, if it is one to link to.
    fn at(&self, told: &Told) -> Option<(NodeRef, Method)> {
        let known = |node: &NodeRef| {
            let node = node.borrow();
            node.time <= told.handler && node.process.id == told.process
        };
        let by_receiving = match told.by {
            PYTHON => Some(Method::PythonContext),
            TOKIO_ITSELF | TOKIO_WOKEN => Some(Method::TokioTask),
            _ => None,
        };
        if let Some(method) = by_receiving {
            let [node] = self.open.as_slice() else { return None };
            let is_this = known(node) && node.borrow().time == told.handler;
            return is_this.then(|| (node.clone(), method));
        }
        if told.by == NODE {
            return self.at_node(told);
        }
        let method = if told.by == CONTEXT { Method::GoContext } else { Method::GoGoroutine };
        let since = self.answered.partition_point(|(_, answered)| *answered < told.handler);
        let before = self.answered.range(since..).find(|(node, _)| known(node));
        match before {
            Some((server, answered)) if *answered >= told.time => Some((server.clone(), method)),
            Some((server, answered)) => {
                let late = told.time.0 - answered.0;
                (late <= GRACE && told.by != INHERITED_AGAIN).then(|| (server.clone(), Method::GoLate))
            }
            None => self.open.iter().find(|node| known(node)).map(|server| (server.clone(), method)),
        }
    }
}

/// What is known of all programs.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    told: FxHashMap<SocketId, Told>,
    served: FxHashMap<SocketId, Served>,
    /// Of all that were answered a moment ago the socket, in their order.
    recent: VecDeque<(SocketId, MonotonicNs)>,
    /// Processes whose goroutines outlive their requests.
    outlive: Marked,
    /// Processes of Node in which no reaction to a promise was seen.
    blind: Marked,
    /// Requests of programs of tokio whose response has not arrived.
    later: FxHashMap<SocketId, Later>,
}

/// Whether programs of this language tell, and nothing else is to be asked about them.
pub(super) fn applies(process: &Process) -> bool {
    matches!(process.language.as_deref(), Some("go" | "nodejs"))
}

/// Whether they may tell.
fn may_tell(process: &Process) -> bool {
    matches!(process.language.as_deref(), Some("go" | "python" | "nodejs" | "rust"))
}

impl Runtimes {
    /// What is sent next over a socket.
    pub(super) fn told(&mut self, event: &SocketEvent) {
        if self.told.len() >= MAX_SOCKETS {
            self.told.clear();
        }
        let told = Told {
            process: event.process,
            first_byte: event.offset,
            tls: event.tls,
            time: event.time,
            serves: SocketId(event.opposite_offset),
            handler: MonotonicNs(event.queued_ns),
            by: event.turn,
        };
        if matches!(told.by, TOKIO_WOKEN | TOKIO_NONE) {
            return self.has_response(event.socket, &told);
        }
        self.told.insert(event.socket, told);
    }

    /// A socket is closed.
    pub(super) fn gone(&mut self, event: &SocketEvent) {
        self.told.remove(&event.socket);
        self.later.remove(&event.socket);
        if let Some(served) = self.served.get_mut(&event.socket) {
            served.gone = true;
            if served.answered.is_empty() {
                self.served.remove(&event.socket);
            }
        }
    }

    /// Whether it was told what is sent next over the socket of this request.
    pub(super) fn knows(&self, opened: &Opened<'_>) -> bool {
        self.told.contains_key(&opened.connection.socket)
    }

    /// The request that another one is sent for, and how that is known.
    pub(super) fn serving(&mut self, opened: &Opened<'_>) -> Result<(NodeRef, Method), Unlinked> {
        let told = self.told.remove(&opened.connection.socket).ok_or(Unlinked::NoRequest)?;
        if !told.is_of(opened) {
            return Err(Unlinked::NoRequest);
        }
        if told.by == NODE_BLIND {
            self.is_blind(opened);
            return Err(Unlinked::NoRequest);
        }
        let inherited = matches!(told.by, INHERITED | INHERITED_AGAIN);
        if inherited && self.outlive.has(told.process) {
            return Err(Unlinked::Interleaved);
        }
        let found = self.served.get(&told.serves).and_then(|served| served.at(&told));
        if found.is_none() && inherited && told.time.0.saturating_sub(told.handler.0) > GRACE {
            self.outlives(opened);
        }
        found.ok_or(Unlinked::NoRequest)
    }

    fn outlives(&mut self, opened: &Opened<'_>) {
        if self.outlive.mark(opened.process.id) {
            tracing::info!(
                pid = opened.process.pid,
                executable = opened.process.executable,
                "goroutines of this program go on after the request that they were made in: what they send is not linked"
            );
        }
    }

    /// A request was received.
    pub(super) fn received(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        if !may_tell(opened.process) {
            return;
        }
        if self.served.len() >= MAX_SOCKETS {
            self.served.clear();
            self.recent.clear();
        }
        let served = self.served.entry(opened.connection.socket).or_default();
        if served.open.len() < MAX_OPEN {
            served.open.push(node.clone());
        }
    }

    /// A request is over, since `answered` if it was answered.
    pub(super) fn closed(&mut self, node: &NodeRef, answered: Option<MonotonicNs>) {
        let of = node.borrow();
        if of.side != Side::Server {
            return;
        }
        let Some(served) = self.served.get_mut(&of.socket) else { return };
        served.open.retain(|request| !request.is(node));
        if let Some(at) = answered {
            let behind = served.answered.partition_point(|(_, before)| *before <= at);
            served.answered.insert(behind, (node.clone(), at));
            self.recent.push_back((of.socket, at));
            self.forget(at);
        }
    }

    /// Forgets what was answered longer ago, or too much.
    fn forget(&mut self, now: MonotonicNs) {
        while let Some(&(socket, at)) = self.recent.front()
            && (at.0.saturating_add(GRACE) < now.0 || self.recent.len() > MAX_RECENT)
        {
            self.recent.pop_front();
            let Some(served) = self.served.get_mut(&socket) else { continue };
            served.answered.pop_front();
            if served.gone && served.answered.is_empty() {
                self.served.remove(&socket);
            }
        }
    }

    /// Forgets what was known of a process.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        self.outlive.forget(process);
        self.blind.forget(process);
    }
}

#[cfg(test)]
mod tests;
