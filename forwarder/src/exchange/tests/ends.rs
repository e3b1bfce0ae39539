//! Connections that end before, in and after responses.

use super::kit::*;
use crate::{
    exchange::Limits,
    model::{EventKind, EventKind::*, MonotonicNs, ProcessId},
};

const GET: &str = "GET /a HTTP/1.1\r\n\r\n";
const PART: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123";
const FULL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123";
const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\n123";
const HEAD_PART: &str = "HTTP/1.1 502 Bad\r\nConte";

/// Plays request, response bytes (if any), ends. Checks the line and, where the connection's end is the exchange's,
/// which of the ends that is.
#[track_caller]
fn server(response: &str, ends: &[EventKind], expected: &str, end: Option<usize>) {
    let mut s = Socket::new();
    s.recv(GET);
    check(s, Out, response, ends, expected, end);
}

#[track_caller]
fn client(response: &str, ends: &[EventKind], expected: &str, end: Option<usize>) {
    let mut s = Socket::new();
    s.send(GET);
    check(s, In, response, ends, expected, end);
}

#[track_caller]
fn check(mut s: Socket, way: Way, response: &str, ends: &[EventKind], expected: &str, end: Option<usize>) {
    if !response.is_empty() {
        s.moves(way, response.as_bytes());
    }
    for &kind in ends {
        s.wait(10).state(kind);
    }
    let times: Vec<_> = s.events.iter().map(|event| event.time.0).collect();
    let seen = s.seen();
    assert_eq!(seen.lines(), [expected], "{response:?} {ends:?}");
    if let Some(place) = end {
        assert_eq!(seen.exchanges[0].end.0, times[times.len() - ends.len() + place]);
    }
}

#[test]
fn no_response() {
    server("", &[PeerClosed, LocalClosed, Closed], "GET /a - no response, Peer", Some(1));
    server("", &[EndOfStream, LocalClosed, Closed], "GET /a - no response, Peer", Some(1));
    server("", &[LocalClosed, PeerClosed, Closed], "GET /a - no response, Local", Some(0));
    server("", &[LocalClosed, Reset], "GET /a - no response, Local", Some(0));
    server("", &[Reset], "GET /a - no response, Reset", Some(0));
    server("", &[Closed], "GET /a - no response, Local", Some(0));
    server("HTTP/1.1 100 Continue\r\n\r\n", &[LocalClosed, Closed], "GET /a - no response, Local", Some(0));
    client("", &[PeerClosed, EndOfStream, LocalClosed, Closed], "GET /a - no response, Peer", Some(1));
    client("", &[LocalClosed, PeerClosed, EndOfStream, Closed], "GET /a - no response, Peer", Some(2));
    client("", &[LocalClosed, PeerClosed, Closed], "GET /a - no response, Local", Some(2));
    client("", &[Reset], "GET /a - no response, Reset", Some(0));
}

#[test]
fn aborted() {
    for response in [PART, CHUNKED, HEAD_PART] {
        let status = if response == HEAD_PART { 502 } else { 200 };
        let line = |by: &str| format!("GET /a {status} aborted by {by}");
        server(response, &[LocalClosed, Closed], &line("Local"), Some(0));
        server(response, &[PeerClosed, LocalClosed, Closed], &line("Peer"), Some(1));
        server(response, &[Reset], &line("Reset"), Some(0));
        client(response, &[PeerClosed, EndOfStream, LocalClosed, Closed], &line("Peer"), Some(1));
        client(response, &[LocalClosed, Closed], &line("Local"), Some(1));
        client(response, &[Reset], &line("Reset"), Some(0));
    }
    server("HTTP/1.1 50", &[Reset], "parse_error 1", None);
}

#[test]
fn close_delimited_responses() {
    server(OPEN, &[LocalClosed, Closed], "GET /a 200 complete", None);
    server(OPEN, &[PeerClosed, LocalClosed, Closed], "GET /a 200 complete", None);
    server(OPEN, &[Reset], "GET /a 200 aborted by Reset", Some(0));
    client(OPEN, &[PeerClosed, EndOfStream, LocalClosed, Closed], "GET /a 200 complete", None);
    client(OPEN, &[LocalClosed, Closed], "GET /a 200 aborted by Local", Some(1));
    client(OPEN, &[Reset], "GET /a 200 aborted by Reset", Some(0));
}

#[test]
fn the_end_of_what_tls_carries_is_no_end_of_the_socket() {
    for (tls, ends, line) in [
        (true, &[PeerClosed, LocalClosed, Closed][..], "GET /a 200 complete"),
        (true, &[LocalClosed, PeerClosed, Closed], "GET /a 200 aborted by Local"),
        (true, &[PeerClosed, Reset], "GET /a 200 aborted by Peer"),
        (false, &[PeerClosed, LocalClosed, Closed], "GET /a 200 aborted by Peer"),
    ] {
        let mut s = Socket::new();
        s.send(GET).recv(OPEN);
        for end in ends {
            s.state(*end);
        }
        s.events.iter_mut().for_each(|event| event.tls = tls);
        assert_eq!(s.seen().lines(), [line], "{ends:?}");
    }
}

#[test]
fn the_end_may_be_told_before_the_call_that_wrote_the_request() {
    let mut s = Socket::new();
    s.state(PeerClosed).send(GET).recv(OPEN).state(LocalClosed).state(Closed);
    s.events.iter_mut().for_each(|event| event.tls = true);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete"]);
}

#[test]
fn a_client_that_half_closes_gets_its_response() {
    let mut s = Socket::new();
    s.recv(GET)
        .state(PeerClosed)
        .state(EndOfStream)
        .wait(2000)
        .send(PART)
        .send("4567890")
        .state(LocalClosed)
        .state(Closed);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete"]);
    let mut s = Socket::new();
    s.send(GET).state(LocalClosed).wait(2000).recv(PART).recv("4567890").state(EndOfStream).state(Closed);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete"]);
}

#[test]
fn an_aborted_body_counts_what_was_moved() {
    let mut s = Socket::new();
    s.recv(GET).send(PART).state(Reset);
    assert_eq!(s.seen().exchanges[0].response.as_ref().unwrap().body_size, Some(3));
}

#[test]
fn several_open_requests() {
    let mut s = Socket::new();
    s.recv(GET.repeat(3))
        .send(PART)
        .send("4567890HTTP/1.1 201 x\r\nContent-Length: 9\r\n\r\n")
        .state(LocalClosed)
        .state(Closed);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete", "GET /a 201 aborted by Local", "GET /a - no response, Local"]);
}

#[test]
fn the_end_is_told_before_the_last_call_returns() {
    // On the loopback, a reset is recorded inside of the send that met it.
    let mut s = Socket::new();
    s.send(GET).state(Reset);
    s.events.swap(0, 1);
    assert_eq!(s.seen().lines(), ["GET /a - no response, Reset"]);
    let mut s = Socket::new();
    s.recv(GET).send(PART).send("4567890").state(Reset);
    s.events.swap(2, 3);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete"]);
}

#[test]
fn the_end_tells_of_bytes_nobody_saw() {
    for (by_offset, by_turn) in [(true, false), (false, true)] {
        let mut s = Socket::new();
        s.recv(GET).send(PART).dropped().state(LocalClosed);
        let (sent, received, turn) = (s.moved[1], s.moved[0], s.turn);
        let end = s.events.last_mut().unwrap();
        if by_offset {
            // The FIN has taken a number of its own.
            (end.offset, end.opposite_offset) = (sent + 1, received);
        }
        end.turn = if by_turn { turn } else { 0 };
        assert_eq!(s.state(Closed).seen().lines(), ["response_not_observed 1"]);
    }
    let mut s = Socket::new();
    s.recv(GET).state(LocalClosed);
    let received = s.moved[0];
    (s.events[1].offset, s.events[1].opposite_offset) = (1, received + 1);
    assert_eq!(s.seen().lines(), ["GET /a - no response, Local"]);
}

#[test]
fn a_request_head_that_never_ended() {
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\nHost: a\r\n").state(PeerClosed).state(LocalClosed).state(Closed);
    assert_eq!(s.seen().lines(), ["protocol_unknown 1"]);
    let mut s = Socket::new();
    s.recv(GET)
        .send(PART)
        .send("4567890")
        .recv("GET /b HTTP/1.1\r\nHost: a\r\n")
        .state(PeerClosed)
        .state(LocalClosed)
        .state(Closed);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete", "GET /b - no response, Peer"]);
}

#[test]
fn unix_sockets_end_with_their_process() {
    for (response, expected) in
        [("", "GET /a - no response, Local"), (PART, "GET /a 200 aborted by Local"), (OPEN, "GET /a 200 complete")]
    {
        let mut s = Socket::new();
        s.recv(GET);
        if !response.is_empty() {
            s.send(response);
        }
        let mut bench = Bench::new(Limits::default());
        bench.table.connection(unix(s.id), &mut bench.seen);
        bench.feed(s.events);
        bench.table.process_ended(ProcessId(2), MonotonicNs(s.now));
        bench.pass(300);
        assert!(bench.seen.exchanges.is_empty());
        bench.table.process_ended(ProcessId(1), MonotonicNs(s.now + 5));
        bench.pass(300);
        assert_eq!(bench.seen.lines(), [expected]);
        assert_eq!(bench.check().connections, 0);
        if response != OPEN {
            assert_eq!(bench.seen.exchanges[0].end.0, s.now + 5);
        }
    }
}

#[test]
fn of_a_process_that_goes_on_unobserved_no_end_is_made_up() {
    for (response, of_it) in [("", "response_not_observed 1"), (PART, "response_not_observed 1")] {
        let (mut s, mut other) = (Socket::new(), Socket::new());
        other.id = 8;
        s.recv(GET).send(FULL).recv(GET);
        if !response.is_empty() {
            s.send(response);
        }
        for event in &mut other.recv(GET).events {
            event.process = ProcessId(2);
        }
        let mut bench = Bench::new(Limits::default());
        bench.table.connection(unix(s.id), &mut bench.seen);
        bench.feed(s.events);
        bench.feed(other.events);
        bench.table.process_unobserved(ProcessId(1), &mut bench.seen);
        // Its end some time later, told with the id or without.
        bench.table.process_ended(ProcessId(1), MonotonicNs(s.now + 5));
        bench.pass(300);
        assert_eq!(bench.seen.lines(), ["GET /a 200 complete", of_it]);
        assert_eq!(bench.check().connections, 1, "that of the other process goes on");
    }
}

#[test]
fn a_unix_response_whose_end_nobody_tells_is_not_guessed() {
    let mut s = Socket::new();
    s.recv(GET).send(OPEN).wait(4000).send("more").wait(6000).recv(GET).send(PART).send("4567890");
    assert_eq!(run_on(unix, s.events).lines(), ["GET /a 200 complete", "response_not_observed 1"]);
    let mut s = Socket::new();
    s.send(GET).recv(OPEN).wait(6000).recv("more").state(EndOfStream);
    assert_eq!(run_on(unix, s.events).lines(), ["GET /a 200 complete"]);
}
