//! What a request costs by stage, when its server and its client are both observed: two exchanges, two spans.
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
    exchange::{Exchange, Limits, Sink, Table},
    ingest::Batch,
    loss::Reason,
    model::ProcessRef,
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

fn best(name: &str, rounds: u32, mut run: impl FnMut()) {
    let each = |start: Instant| start.elapsed().as_nanos() as f64 / (BATCHES as u64 * REQUESTS) as f64;
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        run();
        each(start)
    });
    println!("{name:<48} {:6.0} ns", times.fold(f64::MAX, f64::min));
}

fn feed(batches: &[Bytes], processes: &[ProcessRef; 2], sink: &mut impl Sink) {
    let mut table = Table::new(Limits::default());
    for socket in (1..=CONNECTIONS).chain(1001..=1000 + CONNECTIONS) {
        table.connection(Arc::new(sample::connection(socket)), sink);
    }
    for batch in batches {
        let (batch, _) = Batch::decode(batch.clone(), &mut Vec::new()).unwrap();
        for event in batch.events {
            let event = event.unwrap();
            let process = &processes[event.process.0 as usize - 1];
            table.event(event, process, sink);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS, |n| n.parse().unwrap());
    let batches = batches();
    let processes = [Arc::new(sample::process(1, "nginx")), Arc::new(sample::process(2, "wrk"))];
    best("events read from the wire", rounds, || {
        for batch in &batches {
            let (batch, _) = Batch::decode(batch.clone(), &mut Vec::new()).unwrap();
            batch.events.for_each(|event| _ = black_box(event.unwrap()));
        }
    });
    best("and paired to exchanges", rounds, || {
        let mut count = Count(0);
        feed(&batches, &processes, &mut count);
        assert_eq!(count.0, 2 * BATCHES as u64 * REQUESTS);
    });
    // Nothing listens on port 9 of localhost: the queue overflows, which costs what a full queue costs.
    let traces = Some(sample::otlp_traces("http://127.0.0.1:9/v1/traces".into()));
    let metrics = Some(sample::otlp_metrics("http://127.0.0.1:9/v1/metrics".into()));
    let config = spantap_config::Config { metrics: metrics.clone(), ..sample::config() };
    let mut through = Through(Pipeline::new(&config, Arc::default()).unwrap());
    best("and measured", rounds, || feed(&batches, &processes, &mut through));
    let config = spantap_config::Config { traces, metrics, ..sample::config() };
    let mut through = Through(Pipeline::new(&config, Arc::default()).unwrap());
    best("and written as spans", rounds, || feed(&batches, &processes, &mut through));
}
