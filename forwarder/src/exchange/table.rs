//! All connections that are watched.
//!
//! In: connections and socket events, as the agent tells them; the clock. Out: exchanges and losses, to a [`Sink`].
//!
//! Bounds: the number of connections, of open requests of one connection and of all, of events that wait for
//! earlier ones, and the bytes that all of these take. What exceeds them is counted by reason.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use slab::Slab;
use spantap_config::Signal;

use super::{
    Capture, Exchange, Handover, Opened, Side,
    connection::{Connection, Context},
    requests::Requests,
};
use crate::{
    loss::Reason,
    model::{self, ConnectionRef, Endpoints, MonotonicNs, ProcessId, ProcessRef, SocketEvent, SocketId},
};

/// Takes what a [`Table`] finds.
pub trait Sink {
    /// A request and what became of it.
    fn exchange(&mut self, exchange: Exchange);
    /// `n` of what `reason` counts were lost.
    fn loss(&mut self, reason: Reason, n: u64);
    /// A request has begun.
    fn opened(&mut self, _opened: &Opened<'_>) {}
    /// A request that had begun will not be reported; the loss is told apart.
    fn abandoned(&mut self, _serial: u64) {}
    /// The response to a request that had begun may have been missed. It may still be reported, or not.
    fn doubted(&mut self, _serial: u64) {}
    /// By gRPC, `process` has exported telemetry of this kind (client), or was asked to take it from another (server).
    fn exported(&mut self, _side: Side, _signal: Signal, _process: &ProcessRef) {}
}

/// Bounds of a [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections. Beyond, one that was not used for long is given up ([`Reason::ConnectionLimit`]).
    pub connections: usize,
    /// Most open requests of one connection ([`Reason::PipelineLimit`]).
    pub pipeline: usize,
    /// Most open requests of all connections ([`Reason::PipelineLimit`]).
    pub requests: usize,
    /// Most events that wait for earlier ones; beyond, the earlier ones are taken for lost.
    pub events_held: usize,
    /// Most bytes of open requests, heads that are not whole and events that wait, of all connections. Beyond, a new
    /// request is not opened ([`Reason::PipelineLimit`]), and a connection that keeps more of a head or of events is given
    /// up ([`Reason::ConnectionLimit`]).
    pub bytes: usize,
}

impl Default for Limits {
    /// 65,536 connections (about 20 MB when idle), 256 open requests on each and 131,072 on all, 16,384 events; 40 MiB
    /// for what these hold, which is some 50,000 usual requests.
    fn default() -> Self {
        Limits { connections: 65_536, pipeline: 256, requests: 131_072, events_held: 16_384, bytes: 40 << 20 }
    }
}

/// What a [`Table`] holds and has seen. At any time
/// `requests == exchanges + requests_lost + requests_open`: each request that was seen is reported, or lost for a
/// reason, or open. What was not seen as a request does not stand here but, as far as it can be told, in the
/// losses: [`Reason::RequestNotObserved`] (its response was seen), [`Reason::ExchangeNotObserved`] (neither was),
/// [`Reason::ParseError`] for a request that is none, and the reasons that count connections or events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections now.
    pub connections: usize,
    /// Open requests now.
    pub requests_open: usize,
    /// Events that wait for earlier ones now.
    pub events_held: usize,
    /// Bytes of those three and of heads that are not whole.
    pub bytes: usize,
    /// Requests seen.
    pub requests: u64,
    /// Final responses seen.
    pub responses: u64,
    /// Those among them without a request.
    pub responses_unmatched: u64,
    /// Exchanges reported.
    pub exchanges: u64,
    /// Requests seen that were not and will not be reported.
    pub requests_lost: u64,
}

#[derive(Debug)]
struct Entry {
    socket: SocketId,
    connection: Connection,
    /// Used since the hand last passed.
    used: bool,
    /// What of `Stats::bytes` is its.
    bytes: usize,
    /// Stands in `Table::waiting`.
    waiting: bool,
}

/// Connections by socket.
#[derive(Debug, Default)]
pub struct Table {
    limits: Limits,
    capture: Capture,
    index: HashMap<u64, u32, FxBuildHasher>,
    entries: Slab<Entry>,
    requests: Requests,
    stats: Stats,
    /// Connections that wait for the clock.
    waiting: Vec<(u32, SocketId)>,
    /// Processes that have ended since the last tick.
    ended: HashMap<ProcessId, MonotonicNs, FxBuildHasher>,
    /// Time of the last tick.
    now: u64,
    /// When open requests were last given memory of their own.
    detached: u64,
    /// Bytes of the batches that came since: what open requests may share.
    shared: usize,
    /// Where the search for a connection to give up goes on.
    hand: usize,
}

/// How long an open request may share the memory of the batch that it came in, nanoseconds.
const DETACH_AFTER: u64 = 1_000_000_000;
/// Bytes of batches that open requests may keep alive.
const MAX_SHARED: usize = 8 << 20;

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Table { limits, ..Table::default() }
    }

    /// Keeps these header fields from now on.
    pub fn set_capture(&mut self, capture: Capture) {
        self.capture = capture;
    }

    /// What it holds and has seen.
    pub fn stats(&self) -> Stats {
        Stats { connections: self.entries.len(), requests_open: self.requests.len(), bytes: self.bytes(), ..self.stats }
    }

    fn bytes(&self) -> usize {
        self.requests.bytes() + self.stats.bytes
    }

    /// All events of a batch of `bytes` bytes have been taken. They share its memory: once it is much, open requests
    /// get memory of their own.
    pub fn batch_ends(&mut self, bytes: usize) {
        self.shared = self.shared.saturating_add(bytes);
        if self.shared >= MAX_SHARED {
            self.requests.detach(u64::MAX);
            self.shared = 0;
        }
    }

    /// Learns of a connection, or again of one that is known already.
    pub fn connection(&mut self, connection: ConnectionRef, sink: &mut impl Sink) {
        let at = self.entry(connection.socket, Some(&connection), sink);
        if let Some(entry) = self.entries.get_mut(at) {
            // One that stays unknown is counted by its socket, which is told as encrypted.
            if std::mem::take(&mut entry.connection.peerless) {
                sink.loss(Reason::TlsPeerUnknown, 1);
            }
            entry.connection.connection = connection;
        }
    }

    /// Takes the next event. `process` is that of the event.
    pub fn event<S: Sink>(&mut self, event: SocketEvent, process: &ProcessRef, sink: &mut S) {
        let (socket, is_last) = (event.socket, event.opaque);
        if matches!(event.kind, model::EventKind::Connect | model::EventKind::Link) {
            // For links only: what is to be told of the connection is told once bytes move.
            return;
        }
        if event.encrypted {
            // Before anything was told of it, or after its plaintext was: what is not read is counted once.
            sink.loss(if event.untied { Reason::TlsPeerUnknown } else { Reason::Encrypted }, 1);
            if let Some(&at) = self.index.get(&socket.0) {
                self.remove(at as usize, None, sink);
            }
            return;
        }
        let moves_bytes = super::stream::Direction::of(event.kind).is_some();
        let at = match self.index.get(&socket.0) {
            Some(&at) => at as usize,
            // The end of something that was never used.
            None if !moves_bytes => return,
            None => self.entry(socket, None, sink),
        };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.used = true;
        let ctx = &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
        // By an end of it as well: over the loopback the peer may have answered and closed before the call that wrote the request is told.
        if event.tls && !entry.connection.tls {
            entry.connection.becomes_tls(ctx);
        }
        entry.connection.event(event, process, ctx);
        count_bytes(entry, &mut self.stats);
        if is_last {
            return self.remove(at, None, sink);
        }
        if entry.bytes > 0 && self.requests.bytes() + self.stats.bytes > self.limits.bytes {
            // What is counted as not read already is not given up a second time.
            if entry.connection.http2.take().is_some() {
                return count_bytes(entry, &mut self.stats);
            }
            return self.remove(at, Some(Reason::ConnectionLimit), sink);
        }
        if entry.connection.needs_tick() && !entry.waiting {
            entry.waiting = true;
            self.waiting.push((at as u32, socket));
        }
    }

    /// A process has ended, at `at`. All its events have been taken before. Closes what nobody else tells the end
    /// of: its Unix sockets, at the next tick.
    pub fn process_ended(&mut self, process: ProcessId, at: MonotonicNs) {
        self.ended.insert(process, at);
    }

    /// A process goes on, and nothing more of it is told. What is complete is reported, what it has open is counted.
    pub fn process_unobserved<S: Sink>(&mut self, process: ProcessId, sink: &mut S) {
        let of = self.entries.iter().filter(|(_, entry)| entry.connection.process == process);
        let theirs: Vec<usize> = of.map(|(at, _)| at).collect();
        for at in theirs {
            self.remove(at, Some(Reason::ResponseNotObserved), sink);
        }
    }

    /// The time is `now`, on the clock of the events; to be called about every 100 ms. Time limits are kept from tick
    /// to tick, so that a batch that comes late is not taken for silence.
    pub fn tick<S: Sink>(&mut self, now: MonotonicNs, sink: &mut S) {
        let first = self.now == 0;
        self.now = self.now.max(now.0);
        if first {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&(at, socket)| {
            let Some(entry) = self.entries.get_mut(at as usize).filter(|entry| entry.socket == socket) else {
                return false;
            };
            let ctx = &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
            let over = entry.connection.tick(ctx);
            count_bytes(entry, &mut self.stats);
            entry.waiting = !over && entry.connection.needs_tick();
            let keep = entry.waiting;
            if over {
                self.remove(at as usize, None, sink);
            }
            keep
        });
        self.waiting = waiting;
        self.close_of_ended(sink);
        if self.now.saturating_sub(self.detached) >= DETACH_AFTER {
            self.requests.detach(self.now.saturating_sub(DETACH_AFTER));
            self.detached = self.now;
        }
    }

    fn close_of_ended<S: Sink>(&mut self, sink: &mut S) {
        if self.ended.is_empty() {
            return;
        }
        let ended = std::mem::take(&mut self.ended);
        let mut over = Vec::new();
        for (at, entry) in &mut self.entries {
            let connection = &mut entry.connection;
            if !matches!(connection.connection.endpoints, Endpoints::Unix { .. }) {
                continue;
            }
            if let Some(&time) = ended.get(&connection.process) {
                let ctx =
                    &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
                connection.process_ended(time, ctx);
                over.push(at);
            }
        }
        for at in over {
            self.remove(at, None, sink);
        }
    }

    /// Another run of the agent: offsets, turns and process ids begin anew, so nothing that is open can be finished.
    pub fn agent_restarted<S: Sink>(&mut self, sink: &mut S) {
        self.end_all(Reason::ResponseNotObserved, sink);
    }

    /// Another run of the agent that has observed beside this one: what is open is for that to finish. It is abandoned here, and
    /// counted as lost by whoever takes the [`Handover`] if the new run does not tell of it.
    pub fn hand_over<S: Sink>(&mut self, sink: &mut S) -> Handover {
        let mut handover = Handover::default();
        for (_, entry) in &mut self.entries {
            let connection = &mut entry.connection;
            handover.note(entry.socket, connection, &self.requests);
            while let Some(open) = self.requests.pop(&mut connection.queue) {
                self.stats.requests_lost += 1;
                sink.abandoned(open.serial);
            }
            let ctx = &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
            connection.flush_unseen(ctx);
        }
        self.clear();
        handover
    }

    /// The program stops. What is complete by now is reported, what is not is counted.
    pub fn drain<S: Sink>(&mut self, sink: &mut S) {
        self.end_all(Reason::OpenAtStop, sink);
    }

    fn end_all<S: Sink>(&mut self, reason: Reason, sink: &mut S) {
        for (_, entry) in &mut self.entries {
            let ctx = &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
            entry.connection.stop(reason, ctx);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.index.clear();
        self.waiting.clear();
        self.ended.clear();
        self.requests.clear();
        (self.stats.bytes, self.shared) = (0, 0);
    }

    /// Place of a socket's entry; makes one, and room for it.
    fn entry<S: Sink>(&mut self, socket: SocketId, connection: Option<&ConnectionRef>, sink: &mut S) -> usize {
        if let Some(&at) = self.index.get(&socket.0) {
            return at as usize;
        }
        if self.entries.len() >= self.limits.connections.max(1) {
            self.evict(sink);
        }
        let connection = connection.cloned().unwrap_or_else(|| {
            ConnectionRef::new(model::Connection {
                socket,
                endpoints: Endpoints::Unknown,
                network_namespace: 0,
                tie: model::Tie::Unknown,
            })
        });
        let entry = Entry { socket, connection: Connection::new(connection), used: true, bytes: 0, waiting: false };
        let at = self.entries.insert(entry);
        self.index.insert(socket.0, at as u32);
        at
    }

    /// Gives up a connection that was not used since the hand last passed: about the one unused for longest, without
    /// keeping an order at each event.
    fn evict<S: Sink>(&mut self, sink: &mut S) {
        // The first round may do no more than clear the marks.
        for _ in 0..=self.entries.capacity().saturating_mul(2) {
            let at = self.hand;
            self.hand = if at + 1 >= self.entries.capacity() { 0 } else { at + 1 };
            match self.entries.get_mut(at) {
                Some(entry) if entry.used => entry.used = false,
                Some(_) => return self.remove(at, Some(Reason::ConnectionLimit), sink),
                None => {}
            }
        }
    }

    /// Forgets a connection; what is open on it is lost for `reason`.
    fn remove<S: Sink>(&mut self, at: usize, reason: Option<Reason>, sink: &mut S) {
        let Some(mut entry) = self.entries.try_remove(at) else { return };
        self.index.remove(&entry.socket.0);
        self.stats.bytes = self.stats.bytes.saturating_sub(entry.bytes);
        if let Some(reason) = reason.filter(|_| entry.connection.is_in_head()) {
            // Its message stands nowhere else.
            sink.loss(reason, 1);
        }
        let ctx = &mut context(&mut self.requests, &mut self.stats, sink, self.now, (&self.limits, &self.capture));
        entry.connection.stop(reason.unwrap_or(Reason::ResponseNotObserved), ctx);
    }
}

/// Counts anew what a connection keeps.
fn count_bytes(entry: &mut Entry, stats: &mut Stats) {
    let bytes = entry.connection.bytes();
    stats.bytes = (stats.bytes + bytes).saturating_sub(entry.bytes);
    entry.bytes = bytes;
}

fn context<'a, S>(
    requests: &'a mut Requests,
    stats: &'a mut Stats,
    sink: &'a mut S,
    now: u64,
    (limits, capture): (&'a Limits, &'a Capture),
) -> Context<'a, S> {
    Context { requests, stats, sink, now, limits, capture }
}
