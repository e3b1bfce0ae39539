//! Events that come before the one they follow from.

use super::kit::*;
use crate::exchange::Limits;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A client: three exchanges; the send of `late` is recorded after the receive of its response.
fn client_with_late_send(late: usize) -> Socket {
    let mut s = Socket::new();
    for n in 0..3 {
        let turn = s.turn;
        s.send(format!("GET /{n} HTTP/1.1\r\n\r\n")).recv(format!("HTTP/1.1 20{n} x\r\nContent-Length: 0\r\n\r\n"));
        if n == late {
            let at = s.events.len() - 2;
            s.events.swap(at, at + 1);
            // Recorded in this order, with what had been moved and the turns counted by then.
            let (received, turns) = (s.moved[0], [turn, turn + 1]);
            s.events[at + 1].opposite_offset = received;
            (s.events[at].turn, s.events[at + 1].turn) = (turns[0], turns[1]);
            s.turn = turns[1] + 1;
        }
    }
    s
}

#[test]
fn a_response_waits_for_its_request() {
    for late in 0..3 {
        let seen = client_with_late_send(late).seen();
        assert_eq!(seen.lines(), ["GET /0 200 complete", "GET /1 201 complete", "GET /2 202 complete"], "{late}");
    }
}

#[test]
fn a_response_on_a_unix_socket_waits_for_a_request() {
    for late in 1..3 {
        let mut s = client_with_late_send(late);
        // There, the count of the bytes sent is made when the call is recorded; the call began before.
        let at = 2 * late;
        s.events[at].opposite_offset = s.events[at + 1].offset;
        s.events[at + 1].began = s.events[at - 1].time;
        let seen = run_on(unix, s.events);
        assert_eq!(seen.lines(), ["GET /0 200 complete", "GET /1 201 complete", "GET /2 202 complete"], "{late}");
    }
    // A send that began later is not what such a response waits for.
    let mut s = Socket::new();
    s.send("GET /0 HTTP/1.1\r\n\r\n").recv(OK).recv("HTTP/1.1 408 x\r\n\r\n").send("GET /1 HTTP/1.1\r\n\r\n").recv(OK);
    assert_eq!(run_on(unix, s.events).lines(), ["GET /0 200 complete", "GET /1 200 complete"]);
}

#[test]
fn the_next_request_waits_for_the_response_before() {
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send(OK).recv("GET /1 HTTP/1.1\r\n\r\n").send(OK);
    let end = s.events[1].time;
    s.events.swap(1, 2);
    let seen = s.seen();
    assert_eq!(seen.lines(), ["GET /0 200 complete", "GET /1 200 complete"]);
    assert_eq!(seen.exchanges[0].end, end);
}

/// Its send was seen to begin, so its turn comes before that of the answer, whenever its own record does.
#[test]
fn a_late_request_counts_as_seen() {
    for late in 0..3 {
        let mut s = Socket::new();
        for n in 0..3 {
            s.send(format!("GET /{n} HTTP/1.1\r\n\r\n")).recv(OK);
        }
        s.events.swap(2 * late, 2 * late + 1);
        assert_eq!(s.seen().lines(), ["GET /0 200 complete", "GET /1 200 complete", "GET /2 200 complete"], "{late}");
    }
}

/// One exchange is lost before it.
#[test]
fn what_is_missing_before_a_late_request_is_counted_once() {
    let mut s = Socket::new();
    for n in 0..4 {
        s.send(format!("GET /{n} HTTP/1.1\r\n\r\n")).recv(OK);
    }
    s.events.swap(4, 5);
    s.events.drain(2..4);
    let seen = s.seen();
    assert_eq!((seen.exchanges.len() as u64 + seen.lost(), seen.losses["exchange_not_observed"]), (4, 1), "{seen:?}");
}

#[test]
fn waiting_ends() {
    let mut s = Socket::new();
    s.send("GET /0 HTTP/1.1\r\n\r\n").recv(OK).send("GET /1 HTTP/1.1\r\n\r\n").dropped().recv(OK);
    let mut bench = Bench::new(Limits::default());
    bench.feed(std::mem::take(&mut s.events));
    assert_eq!(bench.check().events_held, 1);
    bench.pass(2100);
    assert_eq!(
        (bench.check().events_held, bench.seen.lines()),
        (0, vec!["GET /0 200 complete".to_owned(), "request_not_observed 1".to_owned()])
    );
    // What is late beyond that changes nothing.
    s.send("GET /2 HTTP/1.1\r\n\r\n").recv(OK);
    bench.feed(s.events);
    assert_eq!(bench.seen.lines(), ["GET /0 200 complete", "GET /2 200 complete", "request_not_observed 1"]);
}

#[test]
fn few_events_wait() {
    let mut s = Socket::new();
    s.send("GET /0 HTTP/1.1\r\n\r\n").recv(OK).send("GET /1 HTTP/1.1\r\n\r\n").dropped();
    s.recv("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..200 {
        s.recv("12345");
    }
    let mut bench = Bench::new(Limits::default());
    for event in s.events {
        bench.feed([event]);
        assert!(bench.check().events_held < 64);
    }
    let mut bench = Bench::new(Limits { events_held: 0, ..Limits::default() });
    bench.feed(client_with_late_send(0).events);
    assert_eq!(bench.check().events_held, 0);
}
