//! The request that a thread serves.
//!
//! In: requests as they are received and answered. Out: for a request that a thread sends, the one that it serves.
//!
//! A thread that received a request with a call that waits for data (its socket is in blocking mode) serves that
//! connection alone: an event loop cannot wait for one of its connections. Until the answer is complete, what that thread
//! sends belongs to that request, if the thread also answers it: one that hands its requests to others may do anything
//! meanwhile. So there is a second sign, who begins the answer, which is waited for. If it comes too late, the first one is
//! enough in a process in which both agreed [`PROVEN`] times. What another thread sends is not linked. A thread with more than
//! one request that is not answered proves nothing. A process in which another thread answered than had received has its links
//! switched off, and so has one in which an earlier request was answered after a later one had been received by the same thread.
//!
//! Go and Node run many requests on each thread. They never wait for data, so that the rule does not apply to them; they are
//! left out by name as well.

use rustc_hash::FxHashMap;

use super::{
    Unlinked,
    marked::{MAX_PROCESSES, Marked},
    node::{Doubt, Node, NodeRef},
};
use crate::{
    exchange::{Opened, Side},
    model::{MonotonicNs, ProcessId, SocketEvent, SocketId},
};

/// Requests of one thread, or one socket, that are not answered; beyond, they are not told apart anyway.
const MAX_OPEN: usize = 8;
/// Requests with links whose answer agreed before the first sign is trusted alone: who answers is a matter of how the program
/// is made, so that few are enough.
const PROVEN: u32 = 5;

/// What each thread serves. Entries are as many as open requests, at most.
#[derive(Debug, Default)]
pub(super) struct Threads {
    open: FxHashMap<(ProcessId, u32), Vec<NodeRef>>,
    /// The same by socket, in their order.
    unanswered: FxHashMap<SocketId, Vec<NodeRef>>,
    /// Requests with links that were answered by the thread that had received them.
    agreed: FxHashMap<ProcessId, u32>,
    distrusted: Marked,
}

impl Threads {
    /// Bytes were sent: perhaps they are the answer.
    #[inline]
    pub(super) fn sent(&mut self, event: &SocketEvent) {
        if !self.unanswered.is_empty() {
            self.answers(event);
        }
    }

    fn answers(&mut self, event: &SocketEvent) {
        let Some(node) = self.unanswered.get(&event.socket).and_then(|open| open.first().cloned()) else { return };
        // `100 Continue` may come from whoever reads; not every way of sending is told with its thread.
        if is_interim(&event.head) || event.thread == 0 || event.process == ProcessId(0) {
            return;
        }
        let mut server = node.borrow_mut();
        if (server.process.id, server.thread) != (event.process, event.thread) {
            if std::mem::replace(&mut server.doubt, Doubt::Refuted) != Doubt::Refuted {
                self.distrust(&server, "another thread answers than has received");
            }
        } else if server.doubt == Doubt::Open {
            server.doubt = Doubt::None;
            if server.asks {
                if self.agreed.len() >= MAX_PROCESSES {
                    self.agreed.clear();
                }
                let agreed = self.agreed.entry(event.process).or_default();
                *agreed = agreed.saturating_add(1);
            }
        }
    }

    fn distrust(&mut self, of: &Node, why: &'static str) {
        if self.distrusted.mark(of.process.id) {
            let (pid, executable) = (of.process.pid, &of.process.executable);
            tracing::info!(pid, executable, why, "what the program sends is not linked to what it serves");
        }
    }

    /// A request was received.
    pub(super) fn received(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        let shares_threads = matches!(opened.process.language.as_deref(), Some("go" | "nodejs" | "dotnet"));
        if !opened.blocking || opened.tls || opened.thread == 0 || opened.process.id == ProcessId(0) || shares_threads {
            return;
        }
        let open = self.open.entry((opened.process.id, opened.thread)).or_default();
        for other in open.iter() {
            let mut other = other.borrow_mut();
            if other.socket != opened.connection.socket {
                other.overtaken.get_or_insert(opened.time);
            }
        }
        if open.len() < MAX_OPEN {
            open.push(node.clone());
        }
        let unanswered = self.unanswered.entry(opened.connection.socket).or_default();
        if unanswered.len() < MAX_OPEN {
            unanswered.push(node.clone());
            node.borrow_mut().doubt = Doubt::Open;
        }
    }

    /// The request that the sender of another one serves; not certain until it is known who answers it.
    pub(super) fn serving(&self, opened: &Opened<'_>) -> Result<NodeRef, Unlinked> {
        if !self.trusts(opened.process.id) {
            return Err(Unlinked::Interleaved);
        }
        let open = self.open.get(&(opened.process.id, opened.thread)).ok_or(Unlinked::NoRequest)?;
        match open.as_slice() {
            [one] if one.borrow().time <= opened.began => {
                one.borrow_mut().asks = true;
                Ok(one.clone())
            }
            [_] | [] => Err(Unlinked::NoRequest),
            _ => Err(Unlinked::Ambiguous),
        }
    }

    /// A request is over; its answer began at `answered`, if it is whole.
    pub(super) fn closed(&mut self, node: &NodeRef, answered: Option<MonotonicNs>) {
        let of = node.borrow();
        if of.side != Side::Server {
            return;
        }
        take(&mut self.unanswered, &of.socket, node);
        if take(&mut self.open, &(of.process.id, of.thread), node)
            && of.overtaken.zip(answered).is_some_and(|(received, answered)| received < answered)
        {
            self.distrust(&of, "one thread serves several requests at a time");
        }
    }

    /// Whether `client` was sent by a thread that serves one request at a time, as far as is known by now.
    pub(super) fn certain(&self, client: &Node) -> Result<(), Unlinked> {
        let process = client.process.id;
        if !self.trusts(process) {
            return Err(Unlinked::Interleaved);
        }
        match client.parent.as_ref().map(|server| server.borrow().doubt) {
            Some(Doubt::None) => Ok(()),
            Some(Doubt::Open) if self.agreed.get(&process).is_some_and(|times| *times >= PROVEN) => Ok(()),
            Some(Doubt::Open) => Err(Unlinked::Unconfirmed),
            Some(Doubt::Refuted) | None => Err(Unlinked::Interleaved),
        }
    }

    fn trusts(&self, process: ProcessId) -> bool {
        !self.distrusted.has(process)
    }

    /// Forgets what was known of a process; its requests leave with their ends.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        self.agreed.remove(&process);
        self.distrusted.forget(process);
    }

    /// Whether no request is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.unanswered.is_empty()
    }
}

/// Whether it is the head of a response before the one that answers (RFC 9110 section 15.2); 101 is none of these.
fn is_interim(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.")
        && head.get(8..11).is_some_and(|status| status.starts_with(b" 1"))
        && head.get(9..12) != Some(b"101")
}

/// Takes `node` out of what is known at `key`; whether it was there.
fn take<K: std::hash::Hash + Eq>(known: &mut FxHashMap<K, Vec<NodeRef>>, key: &K, node: &NodeRef) -> bool {
    let Some(open) = known.get_mut(key) else { return false };
    let at = open.iter().position(|known| known.is(node));
    at.map(|at| open.remove(at));
    if open.is_empty() {
        known.remove(key);
    }
    at.is_some()
}
