//! What is kept of a request for its links.
//!
//! In: a request as it begins. Out: [`Node`]s that lead to what they descend from; never the other way.

use std::{
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Method, Unlinked,
    pair::{Keys, Place},
};
use crate::{
    exchange::{Opened, Side},
    model::{MonotonicNs, ProcessRef, SocketId},
    trace::{self, Given, Lineage, context::TraceContext},
};

/// A node, shared by what descends from it. Used by one task; the lock is for the type's sake. Two are only locked at a
/// time in the order from below to above, which has no cycles.
#[derive(Debug, Clone)]
pub struct NodeRef(Arc<Mutex<Node>>);

impl NodeRef {
    /// The node, for a moment.
    pub fn borrow(&self) -> MutexGuard<'_, Node> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node, to change.
    pub fn borrow_mut(&self) -> MutexGuard<'_, Node> {
        self.borrow()
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The same request at the other end of its connection.
#[derive(Debug)]
pub enum Peer {
    /// Not known, and not to be waited for.
    None,
    /// Not known yet: whoever sent it may be on this host.
    Awaited,
    /// The client's.
    Is(NodeRef),
}

/// Whether a client's parent may be another than it seems; of a server, whether its thread may serve another request than it seems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No.
    None,
    /// A second sign is waited for.
    Open,
    /// It is another.
    Refuted,
}

/// A request.
#[derive(Debug)]
pub struct Node {
    /// Which side was observed.
    pub side: Side,
    /// Its process.
    pub process: ProcessRef,
    /// Its socket.
    pub socket: SocketId,
    /// The thread that received or sent its first byte.
    pub thread: u32,
    /// When that call began.
    pub began: MonotonicNs,
    /// When that call had ended.
    pub time: MonotonicNs,
    /// Hash of method and target: both ends must agree.
    pub mark: u64,
    /// A valid context that came or went with it.
    pub given: Option<Given>,
    /// Client: the identity that its request went out with.
    pub own: Option<TraceContext>,
    /// Client: the request that it was sent for.
    pub parent: Option<NodeRef>,
    /// Client: by which rule.
    pub method: Method,
    /// How certain that is.
    pub doubt: Doubt,
    /// Server: the other end.
    pub peer: Peer,
    /// Why it has no parent, if it has none.
    pub unlinked: Unlinked,
    /// Links above it.
    pub depth: u16,
    /// It will have no span.
    pub mute: bool,
    /// Server: when its thread received a request of another connection although this was not answered.
    pub(super) overtaken: Option<MonotonicNs>,
    /// Server: its thread sent a request for it.
    pub(super) asks: bool,
    /// Its identity, once decided.
    pub lineage: Option<Lineage>,
    /// Where it lies on its connection, if that is TCP.
    pub(super) place: Option<Place>,
    /// By what it is looked for.
    pub(super) keys: Keys,
}

impl Node {
    /// Its identity, for good. What it descends from is not needed any more.
    pub fn decide(&mut self, lineage: Lineage) {
        self.lineage = Some(lineage);
        (self.parent, self.peer) = (None, Peer::None);
    }

    pub(super) fn of(opened: &Opened<'_>, mute: bool) -> NodeRef {
        let mut mark = rustc_hash::FxHasher::default();
        (&*opened.request.method, &*opened.request.target).hash(&mut mark);
        NodeRef(Arc::new(Mutex::new(Self {
            side: opened.side,
            process: opened.process.clone(),
            socket: opened.connection.socket,
            thread: opened.thread,
            began: opened.began,
            time: opened.time,
            mark: mark.finish(),
            given: Given::of(&opened.request.headers),
            own: trace::own(&opened.request.headers),
            parent: None,
            method: Method::Thread,
            doubt: Doubt::None,
            peer: Peer::None,
            unlinked: Unlinked::PeerUnknown,
            depth: 0,
            mute,
            overtaken: None,
            asks: false,
            lineage: None,
            place: None,
            keys: [None; 2],
        })))
    }
}

/// Calls `look` with `node` and with what it descends from, as long as that says so.
fn upwards(node: &NodeRef, mut look: impl FnMut(&mut Node) -> bool) {
    let mut next = Some(node.clone());
    while let Some(node) = next.take() {
        let mut node = node.borrow_mut();
        if node.lineage.is_some() || !look(&mut node) {
            return;
        }
        next = match (node.side, &node.peer) {
            // A header ends the search, unless it was handed on: then the server's own header does.
            _ if node.given.is_some() => None,
            (Side::Server, Peer::Is(client)) => Some(client.clone()),
            (Side::Server, _) => None,
            (Side::Client, _) => node.parent.clone(),
        };
    }
}

/// Whether it, or what it descends from, waits for the other end of a connection or another sign.
pub(super) fn is_pending(node: &NodeRef) -> bool {
    let mut pending = false;
    upwards(node, |node| {
        pending = node.given.is_none() && matches!(node.peer, Peer::Awaited) || is_in_doubt(node);
        !pending
    });
    pending
}

/// Whether another sign of a client's parent is waited for: of a thread that is who answers the request above.
fn is_in_doubt(node: &Node) -> bool {
    let above = || node.parent.as_ref().is_some_and(|parent| parent.borrow().doubt == Doubt::Open);
    node.side == Side::Client && node.doubt == Doubt::Open && (node.method != Method::Thread || above())
}

/// Whether `node` descends from `other`, or is it.
pub(super) fn descends(node: &NodeRef, other: &NodeRef) -> bool {
    let mut next = Some(node.clone());
    while let Some(node) = next.take() {
        if node.is(other) {
            return true;
        }
        let node = node.borrow();
        next = match &node.peer {
            Peer::Is(client) => Some(client.clone()),
            _ => node.parent.clone(),
        };
    }
    false
}

/// Waits no longer. Gives the sockets whose other end was waited for.
pub(super) fn give_up(node: &NodeRef) -> Vec<SocketId> {
    let mut apart = Vec::new();
    upwards(node, |node| {
        if matches!(node.peer, Peer::Awaited) {
            node.peer = Peer::None;
            apart.push(node.socket);
        }
        true
    });
    apart
}
