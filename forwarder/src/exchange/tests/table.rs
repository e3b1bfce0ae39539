//! The table: its bounds, its counters, its end.

use bytes::Bytes;

use super::kit::*;
use crate::{
    exchange::{Limits, connection::Connection},
    model::{Endpoints, EventKind, SocketId},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn request(socket: u64) -> Socket {
    let mut s = Socket::new();
    s.id = socket;
    s.recv(format!("GET /{socket} HTTP/1.1\r\n\r\n"));
    s
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 320, "{}", size_of::<Connection>());
}

#[test]
fn the_connection_unused_for_longest_is_given_up() {
    let mut bench = Bench::new(Limits { connections: 8, ..Limits::default() });
    let mut sockets: Vec<_> = (0..8).map(request).collect();
    for s in &mut sockets {
        bench.feed(std::mem::take(&mut s.events));
    }
    // A ninth makes the marks pass away; number 5 is used since, the next newcomers take others' places.
    bench.feed(request(8).events);
    sockets[5].send(OK).recv("GET /again HTTP/1.1\r\n\r\n");
    bench.feed(std::mem::take(&mut sockets[5].events));
    (9..15).for_each(|n| bench.feed(request(n).events));
    assert_eq!(bench.check().connections, 8);
    assert_eq!(bench.seen.losses["connection_limit"], 7);
    bench.feed(std::mem::take(&mut sockets[5].send(OK).events));
    assert_eq!(bench.seen.lines(), ["GET /5 200 complete", "GET /again 200 complete", "connection_limit 7"]);
}

#[test]
fn open_requests_are_bounded() {
    let mut bench = Bench::new(Limits { pipeline: 3, ..Limits::default() });
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n".repeat(5)).send(OK.repeat(5)).recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    bench.feed(s.events);
    assert_eq!(
        bench.seen.lines(),
        ["GET /a 200 complete", "GET /a 200 complete", "GET /a 200 complete", "pipeline_limit 3"]
    );
    let mut bench = Bench::new(Limits { requests: 2, ..Limits::default() });
    (0..5).for_each(|n| bench.feed(request(n).events));
    assert_eq!((bench.check().requests_open, bench.seen.losses["pipeline_limit"]), (2, 3));
}

#[test]
fn bytes_are_bounded() {
    const MOST: usize = 64 * 1024;
    let mut bench = Bench::new(Limits { bytes: MOST, ..Limits::default() });
    let long = "x".repeat(3000);
    for id in 0..100 {
        let mut s = Socket::new();
        s.id = id;
        s.recv(format!("GET /{long} HTTP/1.1\r\n\r\n"));
        bench.feed(s.events);
        assert!(bench.table.stats().bytes < MOST + 8192);
    }
    let open = bench.check().requests_open;
    assert!((8..25).contains(&open), "{open}");
    assert_eq!(bench.seen.losses["pipeline_limit"], 100 - open as u64);
    for id in 100..200 {
        let mut s = Socket::new();
        s.id = id;
        s.recv(format!("GET / HTTP/1.1\r\nX: {long}"));
        bench.feed(s.events);
        assert!(bench.table.stats().bytes < MOST + 8192);
    }
    let kept = bench.check().connections as u64 - 100;
    assert_eq!(bench.seen.losses["connection_limit"], 100 - kept);
    bench.table.drain(&mut bench.seen);
    assert_eq!(bench.check().bytes, 0);
}

#[test]
fn what_is_open_at_the_stop_is_counted() {
    let mut bench = Bench::new(Limits::default());
    bench.feed(request(1).events);
    let mut s = request(2);
    s.send("HTTP/1.1 200 OK\r\n\r\npart");
    bench.feed(s.events);
    let mut s = request(3);
    s.send("HTTP/1.1 200 OK\r\n\r\nall").state(EventKind::LocalClosed);
    bench.feed(s.events);
    bench.table.drain(&mut bench.seen);
    assert_eq!(bench.seen.lines(), ["GET /3 200 complete", "open_at_stop 2"]);
    assert_eq!(bench.check().connections, 0);
}

#[test]
fn another_run_of_the_agent_begins_anew() {
    let mut bench = Bench::new(Limits::default());
    let mut s = request(1);
    bench.feed(std::mem::take(&mut s.events));
    bench.table.agent_restarted(&mut bench.seen);
    let mut again = Socket::new();
    again.id = 1;
    again.send(OK).recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    bench.feed(again.events);
    assert_eq!(bench.seen.lines(), ["GET /b 200 complete", "request_not_observed 1", "response_not_observed 1"]);
    bench.check();
}

#[test]
fn closed_connections_are_forgotten_after_a_moment() {
    let mut bench = Bench::new(Limits::default());
    for n in 0..100 {
        let mut s = request(n);
        s.send(OK).state(EventKind::LocalClosed).state(EventKind::PeerClosed).state(EventKind::Closed);
        bench.feed(s.events);
    }
    assert_eq!(bench.check().connections, 100);
    bench.pass(400);
    assert_eq!((bench.check().connections, bench.seen.exchanges.len()), (0, 100));
    // The end of a connection that was never used makes none.
    let mut s = Socket::new();
    bench.feed(std::mem::take(&mut s.state(EventKind::Closed).events));
    assert_eq!(bench.check().connections, 0);
}

#[test]
fn what_is_told_of_a_connection_is_used() {
    let mut bench = Bench::new(Limits::default());
    let mut s = request(1);
    s.send(OK).recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    let events: Vec<_> = s.events.drain(..).collect();
    bench.feed(events[..2].to_vec());
    bench.table.connection(tcp(1), &mut bench.seen);
    bench.feed(events[2..].to_vec());
    let endpoints: Vec<_> =
        bench.seen.exchanges.iter().map(|e| (e.connection.socket, e.connection.endpoints.clone())).collect();
    assert_eq!(endpoints[0], (SocketId(1), Endpoints::Unknown));
    assert_eq!(endpoints[1], (SocketId(1), tcp(1).endpoints.clone()));
}

#[test]
fn a_request_that_waits_does_not_hold_the_memory_it_came_in() {
    let mut bench = Bench::new(Limits::default());
    let mut s = Socket::new();
    s.recv("REPORT /long HTTP/1.1\r\nHost: h\r\ntraceparent: 00-a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
    let batch = Bytes::from(s.events[0].head.to_vec());
    s.events[0].head = batch.slice(..);
    bench.feed(std::mem::take(&mut s.events));
    assert!(!batch.is_unique());
    s.wait(3000);
    bench.until(s.now);
    assert!(batch.is_unique());
    bench.feed(std::mem::take(&mut s.send(OK).events));
    let request = &bench.seen.exchanges[0].request;
    assert_eq!((request.method.as_ref(), request.target.as_ref()), (&b"REPORT"[..], &b"/long"[..]));
    assert_eq!(request.headers.host.as_ref().unwrap(), "h");
    assert_eq!(request.headers.traceparent, ["00-a"]);
    assert_eq!(request.headers.x_forwarded_for.as_ref().unwrap(), "1.1.1.1");
}
