//! What a request costs by stage, when its server and its client are both observed: two exchanges, two spans, of which the
//! server's descends from the client's.
//!
//! `cargo run --release -p spantap --example stage_cost`. Each line includes the stages above it; the best of several
//! rounds, in nanoseconds a request.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

#[path = "../tests/support/sample.rs"]
mod sample;

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use prost::Message;
use spantap::{
    exchange::{Exchange, Limits, Opened, Sink, Table},
    ingest::Batch,
    loss::Reason,
    model::{Connection, Endpoints, Process, ProcessRef, SocketEvent, SocketId, Tie},
    pipeline::Pipeline,
};
use spantap_proto::v1::{self, EventKind};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:18080\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 20:18:39 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
const CONNECTIONS: u64 = 8;
/// Requests of a batch: with four events each, about the size of a batch of the agent.
const REQUESTS: u64 = 280;
const BATCHES: usize = 20;
const ROUNDS: u32 = 100;

/// Batches of a load that goes on: stream offsets and turns count up.
fn batches() -> Vec<Bytes> {
    let mut now = 1_000_000_000_000_u64;
    let mut number = 0;
    let mut batch = || {
        let mut events = Vec::new();
        for _ in 0..REQUESTS {
            let (connection, turn) = (number % CONNECTIONS, number / CONNECTIONS * 2);
            number += 1;
            let (asked, answered) = (turn / 2 * REQUEST.len() as u64, turn / 2 * RESPONSE.len() as u64);
            let mut event = |socket, kind: EventKind, turn, head: &'static [u8], offset, opposite| {
                now += 2_000;
                events.push(v1::SocketEvent {
                    socket,
                    time_ns: now,
                    kind: kind.into(),
                    process: if socket > 1000 { 2 } else { 1 },
                    thread: 120_000 + socket as u32 / 1000,
                    offset,
                    length: head.len() as u32,
                    opposite_offset: opposite,
                    began_before_ns: 3_000,
                    queued_ns: if kind == EventKind::Receive { 4_000 } else { 0 },
                    turn: turn as u32 + 1,
                    head: Bytes::from_static(head),
                    ..Default::default()
                });
            };
            let (client, server) = (1001 + connection, 1 + connection);
            event(client, EventKind::Send, turn, REQUEST, asked, answered);
            event(server, EventKind::Receive, turn, REQUEST, asked, answered);
            event(server, EventKind::Send, turn + 1, RESPONSE, answered, asked + REQUEST.len() as u64);
            event(client, EventKind::Receive, turn + 1, RESPONSE, answered, asked + REQUEST.len() as u64);
        }
        v1::Batch { sequence: 1, events, ..Default::default() }.encode_to_vec().into()
    };
    (0..BATCHES).map(|_| batch()).collect()
}

struct Count(u64);

impl Sink for Count {
    fn exchange(&mut self, exchange: Exchange) {
        black_box(&exchange);
        self.0 += 1;
    }
    fn loss(&mut self, reason: Reason, n: u64) {
        panic!("{n} lost: {reason:?}");
    }
}

struct Through(Pipeline);

impl Sink for Through {
    fn exchange(&mut self, exchange: Exchange) {
        self.0.exchange(&exchange, &sample::clock());
    }
    fn loss(&mut self, reason: Reason, n: u64) {
        panic!("{n} lost: {reason:?}");
    }
}

/// The same with links, as a program that runs has them.
struct Linked(Pipeline);

impl Sink for Linked {
    fn exchange(&mut self, exchange: Exchange) {
        self.0.ended(exchange, &sample::clock());
    }
    fn opened(&mut self, opened: &Opened<'_>) {
        self.0.opened(opened);
    }
    fn loss(&mut self, reason: Reason, n: u64) {
        panic!("{n} lost: {reason:?}");
    }
}

/// A sink that hears of events before the table does.
trait Hears: Sink {
    fn hears(&mut self, _event: &SocketEvent, _process: &Process) {}
}

impl Hears for Count {}
impl Hears for Through {}
impl Hears for Linked {
    fn hears(&mut self, event: &SocketEvent, process: &Process) {
        self.0.socket_event(event, process);
    }
}

/// One end of a connection: sockets beyond 1000 are clients', and the server of each is the one 1000 below.
fn end(socket: u64) -> Connection {
    let number = (socket % 1000) as u32;
    let (client, server) = (([127, 0, 0, 1].into(), 40_000 + number as u16), ([127, 0, 0, 1].into(), 18_080));
    let (asked, answered) = (number.wrapping_mul(0x9E37_79B9), number.wrapping_mul(0x85EB_CA6B));
    let (local, peer, received, sent) =
        if socket > 1000 { (client, server, answered, asked) } else { (server, client, asked, answered) };
    Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Tcp { local, peer },
        network_namespace: 1,
        tie: Tie::Sequence { received, sent },
    }
}

/// The best of many rounds, of each batch by itself: another program may have the processor in between. `run` tells when it is done with one.
fn best(name: &str, rounds: u32, mut run: impl FnMut(&mut dyn FnMut())) {
    let mut each = [f64::MAX; BATCHES];
    for _ in 0..rounds {
        let (mut start, mut batches) = (Instant::now(), each.iter_mut());
        run(&mut || {
            let best = batches.next().unwrap();
            *best = best.min(start.elapsed().as_nanos() as f64);
            start = Instant::now();
        });
    }
    println!("{name:<48} {:6.0} ns", each.iter().sum::<f64>() / (BATCHES as u64 * REQUESTS) as f64);
}

fn feed(batches: &[Bytes], processes: &[ProcessRef; 2], sink: &mut impl Hears, done: &mut dyn FnMut()) {
    let mut table = Table::new(Limits::default());
    for socket in (1..=CONNECTIONS).chain(1001..=1000 + CONNECTIONS) {
        table.connection(Arc::new(end(socket)), sink);
    }
    for batch in batches {
        let (batch, _) = Batch::decode(batch.clone(), &mut Vec::new()).unwrap();
        for event in batch.events {
            let event = event.unwrap();
            let process = &processes[event.process.0 as usize - 1];
            sink.hears(&event, process);
            table.event(event, process, sink);
        }
        done();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS, |n| n.parse().unwrap());
    let batches = batches();
    let process = |id, name| Arc::new(Process { language: None, ..sample::process(id, name) });
    let processes = [process(1, "nginx"), process(2, "wrk")];
    best("events read from the wire", rounds, |done| {
        for batch in &batches {
            let (batch, _) = Batch::decode(batch.clone(), &mut Vec::new()).unwrap();
            batch.events.for_each(|event| _ = black_box(event.unwrap()));
            done();
        }
    });
    best("and paired to exchanges", rounds, |done| {
        let mut count = Count(0);
        feed(&batches, &processes, &mut count, done);
        assert_eq!(count.0, 2 * BATCHES as u64 * REQUESTS);
    });
    // Nothing listens on port 9 of localhost: the queue overflows, which costs what a full queue costs.
    let traces = Some(sample::otlp_traces("http://127.0.0.1:9/v1/traces".into()));
    let metrics = Some(sample::otlp_metrics("http://127.0.0.1:9/v1/metrics".into()));
    let config = spantap_config::Config { metrics: metrics.clone(), ..sample::config() };
    let mut through = Through(Pipeline::new(&config, Arc::default()).unwrap());
    best("and measured", rounds, |done| feed(&batches, &processes, &mut through, done));
    let config = spantap_config::Config { traces, metrics, ..sample::config() };
    let mut through = Through(Pipeline::new(&config, Arc::default()).unwrap());
    best("and written as spans", rounds, |done| feed(&batches, &processes, &mut through, done));
    let mut linked = Linked(Pipeline::new(&config, Arc::default()).unwrap());
    best("and linked", rounds, |done| feed(&batches, &processes, &mut linked, done));
    let by_connection = linked.0.telemetry().links.made().find(|(method, _)| *method == "connection");
    assert!(by_connection.is_some_and(|(_, spans)| spans > 0), "nothing is linked");
}
