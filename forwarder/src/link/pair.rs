//! The two ends of one connection on this host: which received request is the one that another process sent.
//!
//! In: requests as they begin, from either end, in any order. Out: servers' nodes that know their client's.
//!
//! TCP: a byte has the same sequence number at both ends (RFC 9293 section 3.4), so addresses, ports and the number of the
//! request's first byte name one request of one connection, whatever was missed before it and however many requests were
//! sent ahead. Namespaces must agree for loopback addresses, which each namespace has; a connection between two
//! namespaces has its ends in different ones.
//!
//! Address translation changes addresses and ports, and no numbers. Each direction begins at a random one, of its own: where the addresses
//! differ, the number at which the response will begin must agree as well. That takes requests that are not sent ahead. What changes
//! numbers as well (helpers of protocols with addresses in their payload, SYNPROXY), or makes another connection (a proxy), keeps
//! the ends apart.
//!
//! TLS: plaintext has no numbers, but each of its bytes has its place, which is the same at both ends if they were read from the same
//! byte on. So the place of the request and that of its response must agree, and the numbers at which each
//! direction of the connection itself was picked up, mostly its first ones.
//!
//! Unix: the kernel tells the socket at the other end; the place in the stream tells the request.

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    MAX_DEPTH, Unlinked,
    node::{self, Node, NodeRef, Peer},
};
use crate::{
    exchange::{Opened, Side},
    model::{Endpoints, SocketId, Tie},
};

/// Addresses of this host that are remembered, sockets that stand apart, pairs of Unix sockets; full, all are forgotten.
const MAX_ADDRESSES: usize = 4096;
const MAX_SOCKETS: usize = 65_536;
/// What a client may descend from to be found late, after others may descend from its server already.
const LATE_DEPTH: u16 = 8;

/// Where a request is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Sequence number of its first byte; its mark. [`Place`] has the rest.
    Tcp(u32, u64),
    /// Sequence numbers at which its connection was picked up, of what the client sends and receives; place of its first byte.
    Tls(u32, u32, u64),
    /// One of the two sockets, stream offset of the first byte.
    Unix(SocketId, u64),
}

/// At most two, as each end of a Unix socket may be known by either.
pub(super) type Keys = [Option<Key>; 2];

/// A request on its connection, as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    /// Of loopback addresses; else 0.
    namespace: u32,
    /// Sequence number (TLS: stream offset) at which its response begins, unless requests are sent ahead.
    answer: u32,
    tls: bool,
}

impl Place {
    /// Whether it is one request of one connection, if its [`Key`] and its mark agree. Two that were not sent in this order never are.
    fn agrees(&self, other: &Self, in_order: bool) -> bool {
        let (mine, others) = ((self.client, self.server), (other.client, other.server));
        let same_numbers = in_order && self.answer == other.answer;
        if mine == others { self.namespace == other.namespace && (!self.tls || same_numbers) } else { same_numbers }
    }
}

/// Requests that wait for their other end.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    clients: FxHashMap<Key, NodeRef>,
    servers: FxHashMap<Key, NodeRef>,
    /// Addresses of this host, and the one that was added last.
    local: FxHashSet<IpAddr>,
    newest: Option<IpAddr>,
    /// Sockets of servers whose client was waited for and did not show.
    apart: FxHashSet<SocketId>,
    /// The other end of each Unix socket.
    ends: FxHashMap<SocketId, SocketId>,
}

impl Pairs {
    /// A client has sent a request.
    pub(super) fn client(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        let (keys, place) = self.keys(opened, node.borrow().mark);
        node.borrow_mut().place = place;
        for key in keys.iter().flatten() {
            if let Some(server) = self.servers.get(key).cloned()
                && join(&server, node, true)
            {
                self.closed(&server);
                return;
            }
        }
        put(&mut self.clients, node, keys);
    }

    /// A server has received a request.
    pub(super) fn server(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        let (keys, place) = self.keys(opened, node.borrow().mark);
        node.borrow_mut().place = place;
        for key in keys.iter().flatten() {
            if let Some(client) = self.clients.get(key).cloned()
                && join(node, &client, false)
            {
                self.closed(&client);
                self.apart.remove(&opened.connection.socket);
                return;
            }
        }
        if keys == [None; 2] {
            if opened.tls {
                node.borrow_mut().unlinked = Unlinked::Tls;
            }
            return;
        }
        if self.may_be_near(opened) && !self.apart.contains(&opened.connection.socket) {
            node.borrow_mut().peer = Peer::Awaited;
        }
        put(&mut self.servers, node, keys);
    }

    /// It is not looked for any more.
    pub(super) fn closed(&mut self, node: &NodeRef) {
        let (keys, side) = {
            let mut node = node.borrow_mut();
            (std::mem::take(&mut node.keys), node.side)
        };
        let places = if side == Side::Client { &mut self.clients } else { &mut self.servers };
        for key in keys.iter().flatten() {
            if places.get(key).is_some_and(|known| known.is(node)) {
                places.remove(key);
            }
        }
    }

    /// Whether nothing is looked for.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }

    /// The client of this server's socket did not show: its next requests do not wait.
    pub(super) fn stands_apart(&mut self, socket: SocketId) {
        if self.apart.len() >= MAX_SOCKETS {
            self.apart.clear();
        }
        self.apart.insert(socket);
    }

    /// Whether the client may be observed on this host.
    fn may_be_near(&self, opened: &Opened<'_>) -> bool {
        match &opened.connection.endpoints {
            Endpoints::Tcp { local, peer } => peer.0.is_loopback() || peer.0 == local.0 || self.local.contains(&peer.0),
            Endpoints::Unix { .. } => true,
            Endpoints::Unknown => false,
        }
    }

    /// Where the request is looked for, the best first; nowhere if its connection is not described well enough.
    fn keys(&mut self, opened: &Opened<'_>, mark: u64) -> (Keys, Option<Place>) {
        let connection = opened.connection;
        match (&connection.endpoints, connection.tie) {
            (Endpoints::Tcp { local, peer }, Tie::Sequence { received, sent }) => {
                self.is_local(local.0);
                // Sequence numbers wrap, and so does the sum.
                let (offset, opposite) = (opened.offset as u32, opened.opposite as u32);
                let (client, server, asked, answered) = match opened.side {
                    Side::Client => (*local, *peer, sent, received),
                    Side::Server => (*peer, *local, received, sent),
                };
                let loopback = client.0.is_loopback() || server.0.is_loopback();
                let namespace = if loopback { connection.network_namespace } else { 0 };
                let (key, answer) = if opened.tls {
                    (Key::Tls(asked, answered, opened.offset), opposite)
                } else {
                    (Key::Tcp(asked.wrapping_add(offset), mark), answered.wrapping_add(opposite))
                };
                ([Some(key), None], Some(Place { client, server, namespace, answer, tls: opened.tls }))
            }
            (Endpoints::Unix { .. }, tie) if !opened.tls => {
                let own = connection.socket;
                if let Tie::Socket(other) = tie {
                    if self.ends.len() >= MAX_SOCKETS {
                        self.ends.clear();
                    }
                    self.ends.insert(own, other);
                    self.ends.insert(other, own);
                }
                let other = self.ends.get(&own).map(|other| Key::Unix(*other, opened.offset));
                ([Some(Key::Unix(own, opened.offset)), other], None)
            }
            _ => ([None; 2], None),
        }
    }

    fn is_local(&mut self, address: IpAddr) {
        if self.newest == Some(address) {
            return;
        }
        if self.local.len() >= MAX_ADDRESSES {
            self.local.clear();
        }
        self.local.insert(address);
        self.newest = Some(address);
    }
}

/// Notes where it is looked for. Two requests that nothing tells apart have no other end, either of them.
fn put(places: &mut FxHashMap<Key, NodeRef>, node: &NodeRef, keys: Keys) {
    node.borrow_mut().keys = keys;
    for key in keys.into_iter().flatten() {
        let Some(other) = places.insert(key, node.clone()) else { continue };
        let (place, others) = (node.borrow().place, other.borrow().place);
        if place.zip(others).is_some_and(|(place, other)| place.agrees(&other, true)) {
            places.remove(&key);
        }
    }
}

/// Ties the two ends of a request together, unless they disagree about it. `late`: the client was seen after the server.
fn join(server: &NodeRef, client: &NodeRef, late: bool) -> bool {
    if node::descends(client, server) {
        return false;
    }
    let (mut own, of) = (server.borrow_mut(), client.borrow());
    if own.lineage.is_some() || own.mark != of.mark || !is_one_place(&own, &of) {
        return false;
    }
    if of.depth >= if late { LATE_DEPTH } else { MAX_DEPTH } {
        own.unlinked = Unlinked::Limit;
        own.peer = Peer::None;
        return false;
    }
    own.depth = of.depth + 1;
    own.peer = Peer::Is(client.clone());
    true
}

/// Whether both lie in one place.
fn is_one_place(server: &Node, client: &Node) -> bool {
    let in_order = client.began <= server.time;
    match (&server.place, &client.place) {
        (Some(server), Some(client)) => server.agrees(client, in_order),
        // Places in the stream of a Unix socket count from when it was first seen: time has to agree as well.
        _ => in_order,
    }
}
