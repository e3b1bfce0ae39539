//! The request that a thread serves.
//!
//! In: requests as they are received and answered. Out: for a request that a thread sends, the one that it serves.
//!
//! A thread that received a request with a call that waits for data (its socket is in blocking mode) serves that
//! connection alone: an event loop cannot wait for one of its connections. Until the answer is complete, what that thread
//! sends belongs to that request. What another thread sends is not linked. A thread with more than one request that is not
//! answered proves nothing, and a process in which an earlier request was answered after a later one had been received
//! by the same thread has its links switched off.
//!
//! Go and Node run many requests on each thread. They never wait for data, so that the rule does not apply to them; they are
//! left out by name as well.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Unlinked, node::NodeRef};
use crate::{
    exchange::{Opened, Side},
    model::{MonotonicNs, ProcessId},
};

/// Requests of one thread that are not answered; beyond, they are not told apart anyway.
const MAX_OPEN: usize = 8;
/// Processes that interleave; full, all are forgotten, and found again.
const MAX_PROCESSES: usize = 16_384;

/// What each thread serves. Entries are as many as open requests, at most.
#[derive(Debug, Default)]
pub(super) struct Threads {
    open: FxHashMap<(ProcessId, u32), Vec<NodeRef>>,
    interleaved: FxHashSet<ProcessId>,
}

impl Threads {
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
    }

    /// The request that the sender of another one serves.
    pub(super) fn serving(&self, opened: &Opened<'_>) -> Result<NodeRef, Unlinked> {
        if !self.trusts(opened.process.id) {
            return Err(Unlinked::Interleaved);
        }
        let open = self.open.get(&(opened.process.id, opened.thread)).ok_or(Unlinked::NoRequest)?;
        match open.as_slice() {
            [one] if one.borrow().time <= opened.began => Ok(one.clone()),
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
        let key = (of.process.id, of.thread);
        let Some(open) = self.open.get_mut(&key) else { return };
        let Some(at) = open.iter().position(|known| known.is(node)) else { return };
        open.swap_remove(at);
        if of.overtaken.zip(answered).is_some_and(|(received, answered)| received < answered) {
            if self.interleaved.len() >= MAX_PROCESSES {
                self.interleaved.clear();
            }
            if self.interleaved.insert(of.process.id) {
                tracing::info!(
                    pid = of.process.pid,
                    executable = of.process.executable,
                    "one thread serves several requests at a time: what the program sends is not linked to what it serves"
                );
            }
        }
        if open.is_empty() {
            self.open.remove(&key);
        }
    }

    /// Whether the rule holds for a process, as far as is known.
    pub(super) fn trusts(&self, process: ProcessId) -> bool {
        !self.interleaved.contains(&process)
    }

    /// Forgets what was known of a process; its requests leave with their ends.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        self.interleaved.remove(&process);
    }
}
