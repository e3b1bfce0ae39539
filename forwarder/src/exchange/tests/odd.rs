//! Odd heads, other protocols, connections that were there before.

use super::kit::*;
use crate::{
    exchange::{Limits, Table},
    model::{Connection, ConnectionRef, Endpoints, SocketId},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn other_protocols_are_no_requests() {
    let cases: &[(&[u8], &[u8], &str)] = &[
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", "protocol_unknown 1"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", b"N", "protocol_unknown 1"),
        (b"\x7f\x45\x4c\x46\x02\x01 HTTP/1.1\r\n", b"\x01\x02", "protocol_unknown 1"),
        (b"\x05\x01\0", b"\x05\0", "protocol_unknown 1"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc", b"\x16\x03\x03\0\x7a", "encrypted 1"),
        (b"\x17\x03\x03\x02\0abc", b"\x17\x03\x03\0\x7a", "encrypted 1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04", b"\0\0\x12", "http2_not_read 1"),
        (b"GET /\r\n", b"<html>", "protocol_unknown 1"),
    ];
    for (first, second, expected) in cases {
        for split in [false, true] {
            for (one, two) in [(In, Out), (Out, In)] {
                let mut s = Socket::new();
                if split {
                    first.iter().for_each(|byte| _ = s.moves(one, &[*byte]));
                } else {
                    s.moves(one, first);
                }
                s.moves(two, second);
                // Nothing that follows is looked at.
                s.moves(one, b"GET /fake HTTP/1.1\r\n\r\n").moves(two, OK.as_bytes());
                s.state(crate::model::EventKind::Closed);
                assert_eq!(s.seen().lines(), [*expected], "{first:?} {split}");
            }
        }
    }
    let mut s = Socket::new();
    s.send("220 mail.example ESMTP\r\n").recv("EHLO x\r\n").send("250 ok\r\n");
    assert_eq!(s.seen().lines(), ["protocol_unknown 1"]);
}

/// What went through TLS, told on a socket whose ciphertext was told before it was read, or that was a tunnel.
#[test]
fn plaintext_of_tls_follows_what_was_before() {
    for (before, expected) in [(&b"\x16\x03\x01\x02\0\x01"[..], &["encrypted 1"][..]), (b"\x01\x02", &[]), (b"", &[])] {
        let mut earlier = Socket::new();
        if !before.is_empty() {
            earlier.recv(before);
        }
        let mut plain = Socket::new();
        plain.now = earlier.now;
        plain.recv("GET /tls HTTP/1.1\r\n\r\n").send(OK);
        plain.events.iter_mut().for_each(|event| event.tls = true);
        earlier.events.append(&mut plain.events);
        let seen = earlier.seen();
        assert_eq!(seen.exchanges.iter().filter(|exchange| exchange.tls).count(), 1, "{before:?}");
        let losses: Vec<_> = seen.lines().into_iter().filter(|line| !line.contains("/tls")).collect();
        assert_eq!(losses, expected, "{before:?}");
    }
}

#[test]
fn a_peer_that_is_known_late_counts_once() {
    let peer = || {
        let at = |port| (std::net::Ipv4Addr::LOCALHOST.into(), port);
        let endpoints = Endpoints::Tcp { local: at(443), peer: at(50_000) };
        ConnectionRef::new(Connection {
            socket: SocketId(7),
            endpoints,
            network_namespace: 0,
            tie: crate::model::Tie::Unknown,
        })
    };
    for (told_after, expected) in [(0, None), (1, None), (2, Some(1)), (4, Some(1))] {
        let mut s = Socket::new();
        s.recv("GET /a HTTP/1.1\r\n\r\n").send(OK).recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
        let (mut table, mut seen) = (Table::new(Limits::default()), Seen::default());
        for (at, mut event) in s.events.into_iter().enumerate() {
            if at == told_after {
                table.connection(peer(), &mut seen);
            }
            event.tls = true;
            table.event(event, &process(1), &mut seen);
        }
        table.connection(peer(), &mut seen);
        assert_eq!(seen.exchanges.len(), 2);
        assert_eq!(seen.losses.get("tls_peer_unknown").copied(), expected, "{told_after}");
    }
}

#[test]
fn a_socket_that_nobody_reads_counts_once_by_its_reason() {
    for (untied, expected) in [(false, "encrypted 1"), (true, "tls_peer_unknown 1")] {
        for kind in [crate::model::EventKind::Receive, crate::model::EventKind::Closed] {
            let mut s = Socket::new();
            s.state(kind).state(crate::model::EventKind::Closed);
            if let Some(event) = s.events.first_mut() {
                (event.encrypted, event.untied, event.length) = (true, untied, 100);
            }
            assert_eq!(s.seen().lines(), [expected], "{kind:?}");
        }
    }
}

#[test]
fn a_connection_that_never_answers_is_unknown_at_its_end() {
    let mut s = Socket::new();
    s.recv("garbage\r\n").recv("more\r\n").state(crate::model::EventKind::Closed);
    assert_eq!(s.seen().lines(), ["protocol_unknown 1"]);
}

#[test]
fn the_kernel_side_gives_up() {
    let mut s = Socket::new();
    s.recv("hello");
    s.events[0].opaque = true;
    assert_eq!(s.seen().lines(), ["protocol_unknown 1"]);
    let mut s = Socket::new();
    s.recv("GET / HTTP/1.1\r\n\r\n");
    s.events[0].opaque = true;
    assert_eq!(s.seen().lines(), ["response_not_observed 1"]);
    let mut s = Socket::new();
    s.recv("\x16\x03\x01\0");
    s.events[0].opaque = true;
    assert_eq!(s.seen().lines(), ["encrypted 1"]);
}

#[test]
fn proxy_protocol_headers_are_skipped() {
    let v2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x1f\x90\0\x50";
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 80\r\n"[..], b"PROXY UNKNOWN\r\n", v2] {
        let whole = [header, b"GET /a HTTP/1.1\r\n\r\n"].concat();
        for split in 0..whole.len() {
            let mut s = Socket::new();
            if split > 0 {
                s.recv(&whole[..split]);
            }
            s.recv(&whole[split..]).send(OK).recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
            assert_eq!(s.seen().lines(), ["GET /a 200 complete", "GET /b 200 complete"], "{header:?} {split}");
        }
        let mut s = Socket::new();
        whole.iter().for_each(|byte| _ = s.recv([*byte]));
        assert_eq!(s.send(OK).seen().lines(), ["GET /a 200 complete"], "{header:?}");
    }
}

#[test]
fn odd_heads_are_reported() {
    let mut s = Socket::new();
    s.recv(b"\r\nGET /\xff HTTP/1.1\nhOsT:  a \nX: \0\xff\r\n folded\r\nno colon\r\nCONTENT-length : 2\r\ntraceparent: 1\r\nTraceparent: 2\r\n\r\nab");
    s.send(b"HTTP/1.1 200\nA: \0\r\n b\nContent-Length: 2,2\n\nok").recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    let seen = s.seen();
    assert_eq!(seen.lines(), ["GET /\u{fffd} 200 complete", "GET /b 200 complete"]);
    let request = &seen.exchanges[0].request;
    assert_eq!(request.headers.traceparent, ["1", "2"]);
    assert_eq!((request.headers.host.as_ref().unwrap().as_ref(), request.body_size), (&b"a"[..], Some(2)));
    assert_eq!(request.target.as_ref(), b"/\xff");
}

#[test]
fn conflicting_lengths_end_with_the_turn() {
    let mut s = Socket::new();
    s.recv("POST /a HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc").send(OK);
    s.recv("GET /b HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabcd").wait(300);
    s.recv("GET /c HTTP/1.1\r\n\r\n").send(OK);
    let seen = s.seen();
    assert_eq!(seen.lines(), ["POST /a 200 complete", "GET /b 200 complete", "GET /c 200 complete"]);
    assert_eq!(seen.exchanges[0].request.body_size, None);
}

#[test]
fn garbage_where_a_head_should_stand() {
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n")
        .send(OK)
        .recv("garbage garbage\r\n\r\n")
        .send("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
    s.recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete", "GET /b 200 complete", "parse_error 1"]);
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n").send("HTTP/1.1 999 Odd\r\n\r\n").recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(s.seen().lines(), ["GET /b 200 complete", "parse_error 1"]);
    // A body where none may be, without an open request: nothing is lost by it.
    let mut s = Socket::new();
    s.recv("HEAD /a HTTP/1.1\r\n\r\n")
        .send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .recv("GET /b HTTP/1.1\r\n\r\n")
        .send(OK);
    assert_eq!(s.seen().lines(), ["HEAD /a 200 complete", "GET /b 200 complete"]);
}

#[test]
fn a_response_nobody_asked_for() {
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n")
        .send(OK)
        .wait(60_000)
        .send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n");
    s.state(crate::model::EventKind::LocalClosed).state(crate::model::EventKind::Closed);
    assert_eq!(s.seen().lines(), ["GET /a 200 complete"]);
}

#[test]
fn connections_that_were_open_before() {
    let next = |s: &mut Socket| {
        s.recv("GET /next HTTP/1.1\r\n\r\n").send(OK);
        s.recv("GET /last HTTP/1.1\r\n\r\n").send(OK).seen().lines()
    };
    // In the middle of a response, of an upload, between request and response.
    let mut s = Socket::new();
    s.send("the rest of a response").send("and more");
    assert_eq!(next(&mut s), ["GET /next 200 complete", "GET /last 200 complete"]);
    let mut s = Socket::new();
    s.recv("the rest of an upload").send(OK);
    assert_eq!(next(&mut s), ["GET /next 200 complete", "GET /last 200 complete", "request_not_observed 1"]);
    let mut s = Socket::new();
    s.send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
    assert_eq!(next(&mut s), ["GET /next 200 complete", "GET /last 200 complete", "request_not_observed 1"]);

    // By a forwarder that comes later: the first turn is not sure to begin with a message.
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n").send(OK);
    s.events.clear();
    assert_eq!(next(&mut s), ["GET /last 200 complete", "request_not_observed 1"]);
    let mut s = Socket::new();
    s.recv("POST /a HTTP/1.1\r\nContent-Length: 22\r\n\r\n").dropped().recv("GET /fake HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(next(&mut s), ["GET /next 200 complete", "GET /last 200 complete", "request_not_observed 1"]);
}

#[test]
fn a_program_that_wakes_itself_is_no_loss_but_http_between_its_processes_is_read() {
    let mut s = Socket::new();
    (0..4).for_each(|_| _ = s.recv("\0"));
    s.events.last_mut().unwrap().opaque = true;
    let mut bench = Bench::new(Limits::default());
    bench.table.connection(unix(s.id), &mut bench.seen);
    bench.feed(std::mem::take(&mut s.events));
    assert_eq!(bench.seen.lines(), [] as [&str; 0]);

    let mut s = Socket::new();
    s.recv("GET /pair HTTP/1.1\r\n\r\n").send(OK);
    bench.table.connection(unix(s.id), &mut bench.seen);
    bench.feed(s.events);
    assert_eq!(bench.seen.lines(), ["GET /pair 200 complete"]);
}
