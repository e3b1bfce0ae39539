//! The two ends of one connection on this host: which received request is the one that another process sent.
//!
//! In: requests as they begin, from either end, in any order. Out: servers' nodes that know their client's.
//!
//! TCP: a byte has the same sequence number at both ends (RFC 9293 section 3.4), so addresses, ports and the number of the
//! request's first byte name one request of one connection, whatever was missed before it and however many requests were
//! sent ahead. Namespaces must agree for loopback addresses, which each namespace has; a connection between two
//! namespaces has its ends in different ones. Where addresses are translated in between, the ends do not agree and stay
//! apart. Unix: the kernel tells the socket at the other end; the place in the stream tells the request.

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    MAX_DEPTH, Unlinked,
    node::{self, NodeRef, Peer},
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

/// Names a request at both ends of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Client's and server's end, namespace of loopback addresses, sequence number of the first byte.
    Tcp((IpAddr, u16), (IpAddr, u16), u32, u32),
    /// One of the two sockets, stream offset of the first byte.
    Unix(SocketId, u64),
}

/// Requests that wait for their other end.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    clients: FxHashMap<Key, NodeRef>,
    servers: FxHashMap<Key, NodeRef>,
    /// Addresses of this host.
    local: FxHashSet<IpAddr>,
    /// Sockets of servers whose client was waited for and did not show.
    apart: FxHashSet<SocketId>,
    /// The other end of each Unix socket.
    ends: FxHashMap<SocketId, SocketId>,
}

impl Pairs {
    /// A client has sent a request.
    pub(super) fn client(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        let keys = self.keys(opened);
        for key in &keys {
            if let Some(server) = self.servers.get(key).cloned()
                && join(&server, node, true)
            {
                self.closed(&server);
                return;
            }
        }
        for key in &keys {
            self.clients.insert(*key, node.clone());
        }
        node.borrow_mut().keys = keys;
    }

    /// A server has received a request.
    pub(super) fn server(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        if opened.tls {
            node.borrow_mut().unlinked = Unlinked::Tls;
            return;
        }
        let keys = self.keys(opened);
        for key in &keys {
            if let Some(client) = self.clients.get(key).cloned()
                && join(node, &client, false)
            {
                self.closed(&client);
                self.apart.remove(&opened.connection.socket);
                return;
            }
        }
        let awaited = !keys.is_empty() && self.may_be_near(opened) && !self.apart.contains(&opened.connection.socket);
        for key in &keys {
            self.servers.insert(*key, node.clone());
        }
        let mut node = node.borrow_mut();
        node.keys = keys;
        if awaited {
            node.peer = Peer::Awaited;
        }
    }

    /// It is not looked for any more.
    pub(super) fn closed(&mut self, node: &NodeRef) {
        let (keys, side) = {
            let mut node = node.borrow_mut();
            (std::mem::take(&mut node.keys), node.side)
        };
        let places = if side == Side::Client { &mut self.clients } else { &mut self.servers };
        for key in keys {
            if places.get(&key).is_some_and(|known| known.is(node)) {
                places.remove(&key);
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

    /// Names of the request, the best first; none if its connection is not described well enough.
    fn keys(&mut self, opened: &Opened<'_>) -> Vec<Key> {
        let connection = opened.connection;
        if opened.tls {
            return Vec::new();
        }
        match (&connection.endpoints, connection.tie) {
            (Endpoints::Tcp { local, peer }, Tie::Sequence { received, sent }) => {
                if self.local.len() >= MAX_ADDRESSES {
                    self.local.clear();
                }
                self.local.insert(local.0);
                // Sequence numbers wrap, and so does the sum.
                let (client, server, base) = match opened.side {
                    Side::Client => (*local, *peer, sent),
                    Side::Server => (*peer, *local, received),
                };
                let loopback = client.0.is_loopback() || server.0.is_loopback();
                let namespace = if loopback { connection.network_namespace } else { 0 };
                vec![Key::Tcp(client, server, namespace, base.wrapping_add(opened.offset as u32))]
            }
            (Endpoints::Unix { .. }, tie) => {
                let own = connection.socket;
                if let Tie::Socket(other) = tie {
                    if self.ends.len() >= MAX_SOCKETS {
                        self.ends.clear();
                    }
                    self.ends.insert(own, other);
                    self.ends.insert(other, own);
                }
                let other = self.ends.get(&own).copied();
                [Some(own), other].into_iter().flatten().map(|socket| Key::Unix(socket, opened.offset)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Ties the two ends of a request together, unless they disagree about it. `late`: the client was seen after the server.
fn join(server: &NodeRef, client: &NodeRef, late: bool) -> bool {
    if node::descends(client, server) {
        return false;
    }
    let (mut own, of) = (server.borrow_mut(), client.borrow());
    // Places in the stream of a Unix socket count from when it was first seen: time has to agree as well.
    let in_order = !matches!(own.keys.first().or(of.keys.first()), Some(Key::Unix(..))) || of.began <= own.time;
    if own.lineage.is_some() || own.mark != of.mark || !in_order {
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
