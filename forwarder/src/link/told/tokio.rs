//! What the kernel side tells of tokio, once the response to a request has arrived.
//!
//! In: a request that is sent, of which this was said; later, its first byte again, and the request that it was sent for, if that is known. Out: the
//! link. Until then the request is in doubt ([`Doubt::Open`]), and what descends from it waits as long as links are waited for.
//!
//! The request above is not answered at that time: whoever asked has only just been woken. And it was received before the other was sent, so that no
//! request can descend from itself.

use super::{MAX_SOCKETS, Runtimes, TOKIO_LATER, TOKIO_WOKEN, Told};
use crate::{
    exchange::Opened,
    link::{
        MAX_DEPTH, Method, Unlinked,
        node::{Doubt, NodeRef},
    },
    model::SocketId,
};

/// A request whose response is waited for.
#[derive(Debug)]
pub(super) struct Later {
    node: NodeRef,
    /// TCP sequence number.
    first_byte: u64,
}

impl Runtimes {
    /// Whether it will be told what this request was sent for; then `node` is in doubt until then.
    pub(in crate::link) fn will_tell(&mut self, node: &NodeRef, opened: &Opened<'_>) -> bool {
        let Some(told) = self.told.get(&opened.connection.socket) else { return false };
        if told.by != TOKIO_LATER || !told.is_of(opened) {
            return false;
        }
        let first_byte = told.first_byte;
        self.told.remove(&opened.connection.socket);
        if self.later.len() >= MAX_SOCKETS {
            self.later.clear();
        }
        self.later.insert(opened.connection.socket, Later { node: node.clone(), first_byte });
        let mut node = node.borrow_mut();
        (node.method, node.doubt) = (Method::TokioTask, Doubt::Open);
        true
    }

    /// It is known for whom the response was, or that it is not known.
    pub(super) fn has_response(&mut self, socket: SocketId, told: &Told) {
        let Some(later) = self.later.get(&socket).filter(|later| later.first_byte == told.first_byte) else { return };
        let node = later.node.clone();
        self.later.remove(&socket);
        let server = match told.by {
            TOKIO_WOKEN => self.served.get(&told.serves).and_then(|served| served.at(told)),
            _ => None,
        };
        let above = server.map(|(server, _)| {
            let (time, depth) = {
                let server = server.borrow();
                (server.time, server.depth)
            };
            (server, time, depth)
        });
        let mut node = node.borrow_mut();
        if node.lineage.is_some() || node.process.id != told.process {
            return;
        }
        node.doubt = Doubt::None;
        match above {
            Some((_, _, depth)) if depth >= MAX_DEPTH => node.unlinked = Unlinked::Limit,
            Some((server, time, depth)) if time <= node.began => (node.parent, node.depth) = (Some(server), depth + 1),
            _ => node.unlinked = Unlinked::NoRequest,
        }
    }
}
