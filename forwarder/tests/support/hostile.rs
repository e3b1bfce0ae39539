//! What an agent that means harm can do to the forwarder, without a socket: shared by the fuzz targets and by the test
//! that replays their corpus.
//!
//! In: bytes. Out: nothing; a panic is the finding, and so is a bound that does not hold.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

#[path = "sample.rs"]
mod sample;

use std::{collections::HashMap, sync::Arc};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use prost::Message as _;
use spantap::{
    exchange::{Exchange, Limits, Sink, Table},
    ingest::{Arrival, Batch, decode_hello},
    loss::Reason,
    model::{ClockAnchor, Connection, EventKind, MonotonicNs, ProcessId, ProcessRef, SocketEvent},
    observation::{Observation, Rules},
    otlp::span::SpanEncoder,
    pipeline::Pipeline,
    run::intake::Intake,
    trace::Tracer,
};
use spantap_proto::v1::{self, agent_message::Body};
use tokio::sync::mpsc;

/// So small that an input of some hundred bytes reaches them.
const SMALL: Limits = Limits { connections: 6, pipeline: 3, requests: 8, events_held: 5, bytes: 16 << 10 };

/// Takes what a table finds as far as it goes: to the bytes of a span.
struct ToSpans {
    rules: Rules,
    tracer: Tracer,
    encoder: SpanEncoder,
    clock: ClockAnchor,
    out: Vec<u8>,
    exchanges: u64,
}

impl ToSpans {
    fn new() -> Self {
        ToSpans {
            rules: Rules::default(),
            tracer: Tracer::new(spantap_config::Sampler::AlwaysOn),
            encoder: SpanEncoder::default(),
            clock: ClockAnchor::default(),
            out: Vec::new(),
            exchanges: 0,
        }
    }
}

impl Sink for ToSpans {
    fn exchange(&mut self, exchange: Exchange) {
        self.exchanges += 1;
        let seen = Observation::new(&exchange, self.clock, &self.rules);
        assert!(seen.end >= seen.start);
        let _ = seen.duration();
        let id = self.tracer.start(exchange.side, &exchange.request.headers).unwrap();
        self.out.clear();
        self.encoder.append(&mut self.out, &seen, &id, &self.rules);
        // Target and fields of one head, of which each is cut.
        assert!(self.out.len() < 64 * 1024, "a span of {} bytes", self.out.len());
    }

    fn loss(&mut self, _: Reason, _: u64) {}
}

/// Both ways through the forwarder: the program's own, and one with small bounds.
struct Forwarder {
    intake: Intake,
    pipeline: Pipeline,
    table: Table,
    sink: ToSpans,
    processes: HashMap<ProcessId, ProcessRef>,
    taken: mpsc::Sender<std::result::Result<v1::Acknowledgement, tonic::Status>>,
    _acknowledged: mpsc::Receiver<std::result::Result<v1::Acknowledgement, tonic::Status>>,
}

impl Forwarder {
    fn new() -> Self {
        let (taken, acknowledged) = mpsc::channel(4);
        Forwarder {
            intake: Intake::new(Arc::default()),
            pipeline: Pipeline::new(&sample::config(), Arc::default()).unwrap(),
            table: Table::new(SMALL),
            sink: ToSpans::new(),
            processes: HashMap::new(),
            taken,
            _acknowledged: acknowledged,
        }
    }

    fn message(&mut self, bytes: Bytes) {
        let Ok(message) = v1::AgentMessage::decode(bytes) else { return };
        match message.body {
            Some(Body::Hello(hello)) => {
                if let Ok(hello) = decode_hello(hello) {
                    self.intake.take(Arrival::Began(Box::new(hello)), &mut self.pipeline);
                }
            }
            Some(Body::Batch(bytes)) => self.batch(bytes),
            None => {}
        }
    }

    fn batch(&mut self, bytes: Bytes) {
        let mut invalid = Vec::new();
        let Ok((batch, sequence)) = Batch::decode(bytes.clone(), &mut invalid) else { return };
        for invalid in invalid {
            self.intake.take(Arrival::Invalid(invalid), &mut self.pipeline);
        }
        let arrival = Arrival::Batch { batch: Box::new(batch), taken: self.taken.clone(), sequence };
        self.intake.take(arrival, &mut self.pipeline);
        assert!(self.intake.adds_up());
        if let Ok((batch, _)) = Batch::decode(bytes, &mut Vec::new()) {
            self.small(batch);
        }
    }

    fn small(&mut self, batch: Batch) {
        self.sink.clock = batch.clock;
        self.processes.extend(batch.processes.into_iter().map(|process| (process.id, Arc::new(process))));
        for connection in batch.connections {
            self.table.connection(Arc::new(connection), &mut self.sink);
        }
        let nobody = Arc::new(sample::process(0, "nobody"));
        for event in batch.events.flatten() {
            let process = self.processes.get(&event.process).unwrap_or(&nobody);
            self.table.event(event, process, &mut self.sink);
            self.check();
        }
        for id in batch.ended {
            self.table.process_ended(id, batch.clock.monotonic);
        }
    }

    fn tick(&mut self, now: u64) {
        self.intake.tick(&mut self.pipeline);
        self.table.tick(MonotonicNs(now), &mut self.sink);
        self.check();
    }

    /// The bounds of the table, and its books.
    fn check(&self) {
        let stats = self.table.stats();
        assert!(stats.connections <= SMALL.connections, "{stats:?}");
        assert!(stats.requests_open <= SMALL.requests, "{stats:?}");
        assert!(stats.events_held <= SMALL.events_held + 64, "{stats:?}");
        // One more request, whose head is as long as the input.
        assert!(stats.bytes <= SMALL.bytes + 80 * 1024, "{stats:?}");
        assert_eq!(stats.requests, stats.exchanges + stats.requests_lost + stats.requests_open as u64, "{stats:?}");
        assert_eq!(stats.exchanges, self.sink.exchanges);
    }

    fn end(mut self) {
        self.intake.drain(&mut self.pipeline);
        assert!(self.intake.adds_up());
        self.table.drain(&mut self.sink);
        self.check();
        let stats = self.table.stats();
        assert_eq!((stats.requests_open, stats.bytes), (0, 0), "{stats:?}");
    }
}

/// `AgentMessage`s as they are, each behind its length in two bytes.
pub fn agent_bytes(data: &[u8]) {
    let mut forwarder = Forwarder::new();
    let mut rest = Bytes::copy_from_slice(data);
    while let Some(&[low, high]) = rest.first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let _ = rest.split_to(2);
        forwarder.message(rest.split_to(length.min(rest.len())));
    }
    forwarder.tick(1);
    forwarder.end();
}

/// Batches whose form is right and whose content is not.
pub fn agent_events(data: &[u8]) {
    let mut forwarder = Forwarder::new();
    let mut given = Unstructured::new(data);
    let mut time = 0;
    while let Ok(batch) = batch(&mut given, &mut time) {
        forwarder.batch(batch.encode_to_vec().into());
        if given.ratio(1, 3).unwrap_or(true) {
            forwarder.tick(time);
        }
        if given.is_empty() {
            break;
        }
    }
    forwarder.tick(time.saturating_add(10_000_000_000));
    forwarder.end();
}

fn batch(given: &mut Unstructured<'_>, time: &mut u64) -> Result<v1::Batch> {
    let mut batch = v1::Batch { sequence: given.arbitrary()?, ..Default::default() };
    if given.ratio(1, 4)? {
        let realtime_ns = *given.choose(&[0, 1_767_323_045_000_000_000, u64::MAX])?;
        batch.clock = Some(v1::ClockAnchor { monotonic_ns: number(given, *time)?, realtime_ns });
    }
    if given.ratio(1, 4)? {
        batch.processes.push(v1::Process {
            id: given.int_in_range(0..=2)?,
            pid: given.arbitrary()?,
            start_realtime_ns: given.arbitrary()?,
            executable: given.arbitrary()?,
            environment: [("OTEL_RESOURCE_ATTRIBUTES".into(), given.arbitrary()?)].into(),
            service_name: given.arbitrary()?,
            export_traces: given.arbitrary()?,
            ..Default::default()
        });
    }
    for _ in 0..given.int_in_range(0..=2)? {
        batch.connections.push(v1::Connection {
            socket: socket(given)?,
            transport: given.int_in_range(0..=3)?,
            local_address: vec![0; *given.choose(&[0, 4, 5, 16])?],
            peer_address: vec![127; *given.choose(&[0, 4, 16])?],
            peer_port: given.arbitrary()?,
            unix_path: given.arbitrary()?,
            ..Default::default()
        });
    }
    for _ in 0..given.int_in_range(1..=6)? {
        batch.events.push(event(given, time)?);
    }
    if given.ratio(1, 8)? {
        batch.ended_processes.push(given.int_in_range(0..=2)?);
        batch.losses.push(v1::Loss { reason: given.int_in_range(0..=6)?, count: given.arbitrary()? });
    }
    Ok(batch)
}

fn socket(given: &mut Unstructured<'_>) -> Result<u64> {
    Ok(if given.ratio(7, 8)? { given.int_in_range(1..=3)? } else { given.int_in_range(0..=20)? })
}

/// Mostly near to `expected`, at times the ends of the range.
fn number(given: &mut Unstructured<'_>, expected: u64) -> Result<u64> {
    Ok(match given.int_in_range(0..=15u8)? {
        0 => u64::MAX,
        1 => u64::MAX - given.int_in_range(0..=70_000)?,
        2 => 0,
        3 => given.arbitrary()?,
        4 => expected.wrapping_add(given.int_in_range(0..=100)?),
        5 => expected.wrapping_sub(given.int_in_range(0..=100)?),
        _ => expected,
    })
}

const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x?sig=1 HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"HEAD * HTTP/1.0\r\n\r\n",
    b"GET /",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 500 \r\n\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Expect: 100-continue\r\n",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    b"Forwarded: for=\"[::1]:8\";host=h;proto=https\r\n",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"\r\n",
    b"hello",
];

fn event(given: &mut Unstructured<'_>, time: &mut u64) -> Result<v1::SocketEvent> {
    let mut head = Vec::new();
    for _ in 0..given.int_in_range(0..=3)? {
        if given.ratio(5, 6)? {
            head.extend_from_slice(given.choose(PIECES)?);
        } else {
            head.extend_from_slice(&Vec::<u8>::arbitrary(given)?);
        }
    }
    *time = number(given, time.wrapping_add(1_000_000))?;
    let length = head.len() as u32;
    Ok(v1::SocketEvent {
        socket: socket(given)?,
        time_ns: *time,
        kind: if given.ratio(3, 4)? { given.int_in_range(1..=2)? } else { given.int_in_range(0..=8)? },
        process: given.int_in_range(0..=2)?,
        thread: given.arbitrary()?,
        offset: number(given, 0)?,
        length: if given.ratio(1, 6)? { number(given, u64::from(length))? as u32 } else { length },
        opposite_offset: number(given, 0)?,
        began_before_ns: number(given, 5)?,
        queued_ns: number(given, 0)?,
        turn: number(given, 1)? as u32,
        tail: if given.ratio(1, 4)? { Bytes::from_static(b"\n0\r\n\r\n") } else { Bytes::new() },
        flags: if given.ratio(1, 8)? { given.int_in_range(0..=3)? } else { 0 },
        head: head.into(),
    })
}

/// A request of these bytes, then a response of these bytes, each in two parts; and once more with what is there when
/// the connection ends.
pub fn heads(data: &[u8]) {
    let Some((&[cut, pieces], text)) = data.split_first_chunk() else { return };
    let text = Bytes::copy_from_slice(text);
    let answered = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
    for (request, other) in [(true, Bytes::from_static(b"HTTP/1.1 204 \r\n\r\n")), (false, answered)] {
        let mut table = Table::new(SMALL);
        let mut sink = ToSpans::new();
        let process = Arc::new(sample::process(1, "a"));
        let connection = Connection { ..sample::connection(1) };
        table.connection(Arc::new(connection), &mut sink);
        let (first, second) = if request { (&text, &other) } else { (&other, &text) };
        let mut time = 1;
        for (turn, kind, bytes, opposite) in
            [(1, EventKind::Receive, first, 0), (2, EventKind::Send, second, first.len() as u64)]
        {
            let at = usize::from(cut).min(bytes.len());
            let mut offset = 0;
            for part in [bytes.slice(..at), bytes.slice(at..)] {
                time += 1;
                // The second part may be captured in part only.
                let head = part.slice(..part.len().saturating_sub(usize::from(pieces >> 1)));
                let event = SocketEvent {
                    thread: 1,
                    offset,
                    length: part.len() as u32,
                    opposite_offset: opposite,
                    turn,
                    head,
                    ..sample::socket_event(kind, 1, time)
                };
                offset += part.len() as u64;
                if !part.is_empty() {
                    table.event(event, &process, &mut sink);
                }
            }
        }
        if pieces & 1 == 0 {
            table.tick(MonotonicNs(10_000_000_000), &mut sink);
        }
        table.drain(&mut sink);
        let stats = table.stats();
        assert_eq!(stats.requests, stats.exchanges + stats.requests_lost, "{stats:?}");
    }
}
