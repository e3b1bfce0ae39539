//! A kernel side that is played, and a sink that remembers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use bytes::Bytes;
use spantap_config::Signal;

use crate::{
    exchange::{Exchange, Limits, Outcome, Side, Sink, Stats, Table},
    loss::Reason,
    model::*,
    sample,
};

pub(super) const MS: u64 = 1_000_000;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}
pub(super) use Way::{In, Out};

/// One socket as the kernel side sees it.
pub(super) struct Socket {
    pub(super) id: u64,
    /// Time of the next event.
    pub(super) now: u64,
    pub(super) moved: [u64; 2],
    pub(super) turn: u32,
    last: Option<Way>,
    /// Bytes captured per turn.
    pub(super) capture: usize,
    captured: usize,
    pub(super) events: Vec<SocketEvent>,
}

impl Socket {
    pub(super) fn new() -> Self {
        Socket {
            id: 7,
            now: 1000 * MS,
            moved: [0; 2],
            turn: 0,
            last: None,
            capture: 4096,
            captured: 0,
            events: Vec::new(),
        }
    }

    fn event(&mut self, kind: EventKind) -> SocketEvent {
        self.now += MS;
        SocketEvent { thread: 11, turn: self.turn, ..sample::socket_event(kind, self.id, self.now) }
    }

    /// One call that moves `bytes`.
    pub(super) fn moves(&mut self, way: Way, bytes: &[u8]) -> &mut Self {
        if self.last.is_some_and(|last| last != way) {
            self.turn += 1;
            self.captured = 0;
        }
        self.last = Some(way);
        let captured = bytes.len().min(self.capture - self.captured);
        self.captured += captured;
        let mut event = self.event(if way == In { EventKind::Receive } else { EventKind::Send });
        event.turn = self.turn;
        event.length = bytes.len() as u32;
        event.offset = self.moved[way as usize];
        event.opposite_offset = self.moved[1 - way as usize];
        event.head = Bytes::copy_from_slice(&bytes[..captured]);
        if captured < bytes.len() {
            event.tail = Bytes::copy_from_slice(&bytes[bytes.len().saturating_sub(8)..]);
        }
        self.moved[way as usize] += bytes.len() as u64;
        self.events.push(event);
        self
    }

    pub(super) fn recv(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moves(In, bytes.as_ref())
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moves(Out, bytes.as_ref())
    }

    /// Bytes that are moved without an event (splice).
    pub(super) fn unseen(&mut self, way: Way, bytes: u64) -> &mut Self {
        self.moved[way as usize] += bytes;
        self
    }

    /// A change of state.
    pub(super) fn state(&mut self, kind: EventKind) -> &mut Self {
        let event = self.event(kind);
        self.events.push(event);
        self
    }

    /// The process closes the connection; the event tells how much was moved, and the FIN has a number of its own.
    pub(super) fn close(&mut self) -> &mut Self {
        let mut event = self.event(EventKind::LocalClosed);
        (event.offset, event.opposite_offset) = (self.moved[1] + 1, self.moved[0]);
        self.events.push(event);
        self.state(EventKind::Closed)
    }

    /// Makes the last event unreadable.
    pub(super) fn unreadable(&mut self) -> &mut Self {
        let event = self.events.last_mut().unwrap();
        (event.head, event.tail, event.unreadable) = (Bytes::new(), Bytes::new(), true);
        self
    }

    /// Drops the last event, as a full ring buffer does.
    pub(super) fn dropped(&mut self) -> &mut Self {
        self.events.pop();
        self
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += ms * MS;
        self
    }

    /// What a table on its own makes of the events.
    pub(super) fn seen(&mut self) -> Seen {
        run(std::mem::take(&mut self.events))
    }
}

/// What came out.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) losses: BTreeMap<&'static str, u64>,
    pub(super) exports: Vec<(Side, Signal)>,
}

impl Sink for Seen {
    fn exchange(&mut self, exchange: Exchange) {
        assert!(exchange.start <= exchange.end);
        assert!(exchange.response_start.is_none_or(|at| exchange.start <= at && at <= exchange.end));
        assert_eq!(exchange.response.is_none(), matches!(exchange.outcome, Outcome::NoResponse(_)));
        self.exchanges.push(exchange);
    }
    fn loss(&mut self, reason: Reason, n: u64) {
        *self.losses.entry(reason.name()).or_default() += n;
    }
    fn exported(&mut self, side: Side, signal: Signal, _process: &ProcessRef) {
        self.exports.push((side, signal));
    }
}

impl Seen {
    /// One line for each exchange, then the losses: `GET /a 200 complete`.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.exchanges.iter().map(line).collect();
        lines.extend(self.losses.iter().map(|(reason, n)| format!("{reason} {n}")));
        lines
    }

    pub(super) fn lost(&self) -> u64 {
        self.losses.values().sum()
    }
}

pub(super) fn line(exchange: &Exchange) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let status = exchange.response.as_ref().map_or("-".to_owned(), |r| r.status.to_string());
    let outcome = match exchange.outcome {
        Outcome::Complete => "complete".to_owned(),
        Outcome::Aborted(by) => format!("aborted by {by:?}"),
        Outcome::NoResponse(by) => format!("no response, {by:?}"),
    };
    format!("{} {} {status} {outcome}", text(&exchange.request.method), text(&exchange.request.target))
}

pub(super) fn process(id: u32) -> ProcessRef {
    Arc::new(Process {
        id: ProcessId(id),
        pid: 100 + id,
        start: UnixNs(0),
        executable: String::new(),
        environment: vec![],
        container_id: None,
        language: None,
        service_name: None,
        service_namespace: None,
        export_traces: true,
        export_metrics: true,
        overrides: Default::default(),
    })
}

pub(super) fn tcp(socket: u64) -> ConnectionRef {
    let address = IpAddr::from([127, 0, 0, 1]);
    let endpoints = Endpoints::Tcp { local: (address, 80), peer: (address, 50_000) };
    Arc::new(Connection { socket: SocketId(socket), endpoints, network_namespace: 1, tie: Tie::Unknown })
}

pub(super) fn unix(socket: u64) -> ConnectionRef {
    Arc::new(Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Unix { path: None },
        network_namespace: 0,
        tie: Tie::Unknown,
    })
}

/// A table with its results, and a clock that follows the events.
pub(super) struct Bench {
    pub(super) table: Table,
    pub(super) seen: Seen,
    pub(super) now: u64,
}

impl Bench {
    pub(super) fn new(limits: Limits) -> Self {
        let mut bench = Bench { table: Table::new(limits), seen: Seen::default(), now: 1000 * MS };
        bench.table.tick(MonotonicNs(bench.now), &mut bench.seen);
        bench
    }

    /// Feeds events; ticks each 100 ms between them.
    pub(super) fn feed(&mut self, events: impl IntoIterator<Item = SocketEvent>) {
        for event in events {
            self.until(event.time.0);
            let process = process(event.process.0);
            self.table.event(event, &process, &mut self.seen);
            self.check();
        }
    }

    /// Lets time pass.
    pub(super) fn until(&mut self, time: u64) {
        while self.now + 100 * MS <= time {
            self.now += 100 * MS;
            self.table.tick(MonotonicNs(self.now), &mut self.seen);
            self.check();
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.until(self.now + ms * MS);
    }

    /// The numbers add up.
    pub(super) fn check(&self) -> Stats {
        let stats = self.table.stats();
        assert_eq!(stats.requests, stats.exchanges + stats.requests_lost + stats.requests_open as u64, "{stats:?}");
        assert_eq!(stats.exchanges, self.seen.exchanges.len() as u64);
        stats
    }
}

/// Feeds events of TCP sockets to a table of its own, lets time pass, and stops it.
pub(super) fn run(events: Vec<SocketEvent>) -> Seen {
    run_on(tcp, events)
}

pub(super) fn run_on(connection: impl Fn(u64) -> ConnectionRef, events: Vec<SocketEvent>) -> Seen {
    let mut bench = Bench::new(Limits::default());
    let mut sockets: Vec<_> = events.iter().map(|event| event.socket.0).collect();
    sockets.dedup();
    for socket in sockets {
        bench.table.connection(connection(socket), &mut bench.seen);
    }
    bench.feed(events);
    bench.pass(4000);
    bench.table.drain(&mut bench.seen);
    assert_eq!(bench.check().requests_open, 0);
    assert_eq!(bench.table.stats().events_held, 0);
    bench.seen
}
