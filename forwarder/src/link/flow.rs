//! The request that a proxy with an event loop serves: nginx.
//!
//! In: each transfer of such a process, in the order of its thread; requests as they begin and end. Out: for a request that
//! it sends, the one that it serves.
//!
//! Such a program does at once what an event asks for, and each of its threads handles one event at a time. So what it sends
//! belongs to the request whose bytes it received last; the response to what it has sent leads back to the request that
//! this was for; and the first thing sent over a new connection belongs to the request that the connection was made for. What a
//! timer starts (a delayed request, an answer of a name server) has no such sign and would be taken for that of another request.
//! So there is a second sign, which has to agree: what the thread does first after it has received the response is to begin
//! its own answer to that same request. If that is another one's, there is no link, and the process has to show both signs
//! each time from then on. If the second sign comes too late to be waited for, the first one is enough in a process that
//! has shown both [`PROVEN`] times and never disagreed with itself.

use rustc_hash::FxHashMap;

use super::{
    Unlinked,
    marked::MAX_PROCESSES,
    node::{Doubt, NodeRef},
};
use crate::{
    exchange::{Opened, Side},
    model::{EventKind, Process, ProcessId, SocketEvent, SocketId},
};

/// Sockets and threads that are remembered; full, all are forgotten, and what is open has no link.
const MAX_SOCKETS: usize = 65_536;
const MAX_THREADS: usize = 16_384;
/// Open requests of one socket; beyond, they are not told apart anyway.
const MAX_OPEN: usize = 8;
/// Links that both signs agreed on before the first is trusted alone.
const PROVEN: u32 = 20;

/// Whether the rule is for this program. Modules that run programs of their own in it (Lua) may wait in the middle of a request
/// and go on by a timer: OpenResty is left out.
pub(super) fn applies(process: &Process) -> bool {
    process.executable.ends_with("/nginx") && !process.executable.contains("openresty")
}

/// What a thread handles.
#[derive(Debug, Default)]
struct Thread {
    /// Socket of the request.
    serves: Option<SocketId>,
    /// The request whose response it received last, if nothing else came in between. Its socket may be closed by now.
    answered_by: Option<NodeRef>,
}

#[derive(Debug, Default)]
struct Socket {
    /// It was connected, or a request was sent over it.
    outbound: bool,
    /// Nothing was sent since it was connected.
    fresh: bool,
    /// Turn and offset of the first bytes of what was sent last.
    sent: Option<(u32, u64)>,
    /// Socket of the request that these were sent for, or that it was connected for.
    serves: Option<SocketId>,
    /// Inbound: requests that are not answered. Outbound: the one sent last.
    requests: Vec<NodeRef>,
}

/// How well the rule holds for a process.
#[derive(Debug, Default, Clone, Copy)]
struct Trust {
    agreed: u32,
    disagreed: bool,
}

/// What all such processes do.
#[derive(Debug, Default)]
pub(super) struct Flow {
    threads: FxHashMap<(ProcessId, u32), Thread>,
    sockets: FxHashMap<SocketId, Socket>,
    trust: FxHashMap<ProcessId, Trust>,
}

impl Flow {
    /// Something happened on a socket; to be told before what follows from it.
    #[inline]
    pub(super) fn event(&mut self, event: &SocketEvent, process: &Process) {
        if matches!(event.kind, EventKind::Closed | EventKind::Reset) {
            // Of any process: the kernel does not tell whose call that was.
            if !self.sockets.is_empty() {
                self.sockets.remove(&event.socket);
            }
        } else if event.process != ProcessId(0) && applies(process) {
            self.of_thread(event);
        }
    }

    fn of_thread(&mut self, event: &SocketEvent) {
        if self.threads.len() >= MAX_THREADS {
            self.threads.clear();
        }
        if self.sockets.len() >= MAX_SOCKETS {
            self.sockets.clear();
        }
        let thread = self.threads.entry((event.process, event.thread)).or_default();
        match event.kind {
            EventKind::Connect => {
                let socket =
                    Socket { outbound: true, fresh: true, sent: None, serves: thread.serves, requests: Vec::new() };
                self.sockets.insert(event.socket, socket);
                thread.answered_by = None;
            }
            EventKind::Receive | EventKind::EndOfStream => {
                match self.sockets.get(&event.socket).filter(|socket| socket.outbound) {
                    Some(socket) => {
                        (thread.serves, thread.answered_by) = (socket.serves, socket.requests.first().cloned());
                    }
                    None => (thread.serves, thread.answered_by) = (Some(event.socket), None),
                }
            }
            EventKind::Send => {
                let socket = self.sockets.entry(event.socket).or_default();
                if socket.sent.is_some_and(|(turn, _)| turn == event.turn) {
                    return;
                }
                socket.sent = Some((event.turn, event.offset));
                if !std::mem::take(&mut socket.fresh) {
                    socket.serves = thread.serves;
                }
                let answer = thread.answered_by.take().filter(|_| !socket.outbound);
                if let (Some(client), [server]) = (answer, socket.requests.as_slice()) {
                    let server = server.clone();
                    self.answers(&server, &client);
                }
            }
            _ => {}
        }
    }

    /// The answer to `server` begins with the response to `client`.
    fn answers(&mut self, server: &NodeRef, client: &NodeRef) {
        let mut client = client.borrow_mut();
        if client.doubt != Doubt::Open {
            return;
        }
        if self.trust.len() >= MAX_PROCESSES {
            self.trust.clear();
        }
        let trust = self.trust.entry(client.process.id).or_default();
        if client.parent.as_ref().is_some_and(|parent| parent.is(server)) {
            client.doubt = Doubt::None;
            trust.agreed = trust.agreed.saturating_add(1);
            return;
        }
        client.doubt = Doubt::Refuted;
        if !std::mem::replace(&mut trust.disagreed, true) {
            tracing::info!(
                pid = client.process.pid,
                executable = client.process.executable,
                "what this program sends does not follow from what it received last: it is linked only where its answer shows the same"
            );
        }
    }

    /// The request that another one was sent for; not certain until [`Doubt`] is gone.
    pub(super) fn serving(&mut self, node: &NodeRef, opened: &Opened<'_>) -> Result<NodeRef, Unlinked> {
        let socket = self.sockets.get_mut(&opened.connection.socket).ok_or(Unlinked::NoRequest)?;
        socket.outbound = true;
        socket.requests.clear();
        socket.requests.push(node.clone());
        // Its first bytes began a turn, in the newest one.
        let serves = socket.serves.filter(|_| socket.sent.is_some_and(|(_, offset)| offset == opened.offset));
        let server = serves.and_then(|serves| self.sockets.get(&serves)).filter(|socket| !socket.outbound);
        match server.map(|socket| socket.requests.as_slice()) {
            Some([one]) if one.borrow().time <= opened.began => Ok(one.clone()),
            Some([_, _, ..]) => Err(Unlinked::Ambiguous),
            _ => Err(Unlinked::NoRequest),
        }
    }

    /// A request was received.
    pub(super) fn received(&mut self, node: &NodeRef, opened: &Opened<'_>) {
        if opened.tls || !applies(opened.process) {
            return;
        }
        let socket = self.sockets.entry(opened.connection.socket).or_default();
        if !socket.outbound && socket.requests.len() < MAX_OPEN {
            socket.requests.push(node.clone());
        }
    }

    /// A request is over.
    pub(super) fn closed(&mut self, node: &NodeRef) {
        let of = node.borrow();
        if of.side == Side::Server
            && let Some(socket) = self.sockets.get_mut(&of.socket)
        {
            socket.requests.retain(|request| !request.is(node));
        }
    }

    /// Whether the first sign is enough in this process.
    pub(super) fn trusts(&self, process: ProcessId) -> bool {
        self.trust.get(&process).is_some_and(|trust| trust.agreed >= PROVEN && !trust.disagreed)
    }

    /// Forgets what was known of a process.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        self.trust.remove(&process);
        self.threads.retain(|(of, _), _| *of != process);
    }
}

#[cfg(test)]
mod tests;
