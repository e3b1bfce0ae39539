//! The traffic that must come out right.

use super::kit::*;
use crate::{
    exchange::*,
    model::{EventKind, ProcessId},
};

/// Checks what comes out, as server; then with both directions swapped, as client.
#[track_caller]
fn both_sides(play: impl Fn(&mut Socket, &dyn Fn(&mut Socket, &[u8]), &dyn Fn(&mut Socket, &[u8])), expected: &[&str]) {
    for side in [Side::Server, Side::Client] {
        let mut socket = Socket::new();
        let (request, response) = if side == Side::Server { (In, Out) } else { (Out, In) };
        play(&mut socket, &|s, b| _ = s.moves(request, b), &|s, b| _ = s.moves(response, b));
        let seen = socket.seen();
        assert_eq!(seen.lines(), expected, "{side:?}");
        assert!(seen.exchanges.iter().all(|exchange| exchange.side == side));
    }
}

#[test]
fn keep_alive_with_gaps() {
    both_sides(
        |s, request, response| {
            for n in 0..3 {
                request(s, format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
                response(s, format!("HTTP/1.1 20{n} OK\r\nContent-Length: 2\r\n\r\nok").as_bytes());
                s.wait(10_000);
            }
        },
        &["GET /0 200 complete", "GET /1 201 complete", "GET /2 202 complete"],
    );
}

#[test]
fn times_sizes_and_who() {
    let mut s = Socket::new();
    s.recv("POST /a HTTP/1.1\r\nHost: h\r\nUser-Agent: u\r\nContent-Length: 3\r\n\r\na").wait(5).recv("bc");
    s.events[0].queued_ns = 200_000;
    s.events[0].began.0 -= 100_000;
    (s.events[1].process, s.events[1].thread) = (ProcessId(2), 22);
    s.wait(10).send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").wait(20).send("1234");
    s.events[2].began.0 -= 300_000;
    let times: Vec<_> = s.events.iter().map(|event| event.time.0).collect();
    let seen = s.seen();
    let exchange = &seen.exchanges[0];
    assert_eq!(exchange.start.0, times[0] - 300_000);
    assert_eq!(exchange.queued.unwrap().as_nanos(), 200_000);
    assert_eq!(exchange.response_start.unwrap().0, times[2] - 300_000);
    assert_eq!(exchange.end.0, times[3]);
    assert_eq!((exchange.process.id, exchange.thread), (ProcessId(1), 11));
    assert_eq!((exchange.request.body_size, exchange.response.as_ref().unwrap().body_size), (Some(3), Some(4)));
    assert_eq!(exchange.request.headers.host.as_ref().unwrap(), "h");
    assert_eq!(exchange.request.headers.user_agent.as_ref().unwrap(), "u");
    assert!(!exchange.request.truncated);

    let mut s = Socket::new();
    s.send("GET / HTTP/1.0\r\n\r\n").wait(7).recv("HTTP/1.0 204 N\r\n\r\n");
    s.events[0].began.0 -= 100_000;
    s.events[0].queued_ns = 5;
    let times: Vec<_> = s.events.iter().map(|event| event.time.0).collect();
    let exchange = s.seen().exchanges.remove(0);
    assert_eq!(
        (exchange.start.0, exchange.response_start.unwrap().0, exchange.end.0),
        (times[0] - 100_000, times[1], times[1])
    );
    assert_eq!((exchange.queued, exchange.request.version), (None, HttpVersion::Http10));
}

#[test]
fn pipelined() {
    both_sides(
        |s, request, response| {
            request(
                s,
                b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nPOST /3 HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            );
            request(s, b"cGET /4 HTTP/1.1\r\n\r\n");
            response(
                s,
                b"HTTP/1.1 201 x\r\nContent-Length: 1\r\n\r\naHTTP/1.1 202 x\r\nContent-Length: 99\r\n\r\nHTTP/1.1 20",
            );
            request(s, b"GET /5 HTTP/1.1\r\n\r\n");
            response(s, b"3 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nHTTP/1.1 204 x\r\n\r\n");
            response(s, b"HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n");
        },
        &[
            "GET /1 201 complete",
            "HEAD /2 202 complete",
            "POST /3 203 complete",
            "GET /4 204 complete",
            "GET /5 205 complete",
        ],
    );
}

#[test]
fn a_pipelined_head_that_was_not_captured() {
    // It lies beyond, it is cut, the one before is cut.
    for filler in [4072, 4062, 4080] {
        let heads = format!("GET /1 HTTP/1.1\r\nX: {}\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", "x".repeat(filler));
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let mut s = Socket::new();
        s.recv(&heads).send(ok).send(ok).recv("GET /3 HTTP/1.1\r\n\r\n").send(ok);
        assert_eq!(
            s.seen().lines(),
            ["GET /1 200 complete", "GET /3 200 complete", "request_not_observed 1"],
            "{filler}"
        );
    }
}

#[test]
fn heads_in_pieces() {
    let request = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    both_sides(
        |s, send_request, send_response| {
            for byte in request {
                send_request(s, &[*byte]);
            }
            for byte in response {
                send_response(s, &[*byte]);
            }
        },
        &["GET /a 200 complete"],
    );
}

#[test]
fn a_request_head_beyond_what_is_captured() {
    for size in [4096, 16 * 1024, 60_000] {
        for capture in [4096, 64 * 1024] {
            let mut s = Socket::new();
            s.capture = capture;
            let head = format!("GET /long HTTP/1.1\r\nHost: h\r\nX: {}\r\nUser-Agent: late\r\n\r\n", "x".repeat(size));
            for part in head.as_bytes().chunks(8192) {
                s.recv(part);
            }
            s.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .recv("GET /next HTTP/1.1\r\n\r\n")
                .send("HTTP/1.1 204 x\r\n\r\n");
            let seen = s.seen();
            assert_eq!(seen.lines(), ["GET /long 200 complete", "GET /next 204 complete"], "{size} {capture}");
            let request = &seen.exchanges[0].request;
            assert_eq!(request.headers.host.as_ref().unwrap(), "h");
            let whole = size < 16 * 1024 && capture > 4096;
            assert_eq!((request.truncated, request.headers.user_agent.is_some()), (!whole, whole), "{size} {capture}");
        }
    }
}

#[test]
fn a_target_beyond_what_is_captured_is_counted() {
    let mut s = Socket::new();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send(ok).recv(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(5000))).send(ok);
    s.recv("GET /2 HTTP/1.1\r\n\r\n").send(ok);
    assert_eq!(s.seen().lines(), ["GET /0 200 complete", "GET /2 200 complete", "request_not_observed 1"]);
}

#[test]
fn a_response_head_beyond_what_is_captured() {
    let long = format!("X: {}\r\n", "x".repeat(5000));
    for (first, rest, body) in [
        ("Content-Length: 3000\r\n", "", 3000),
        ("", "Content-Length: 3000\r\n", 3000),
        ("Transfer-Encoding: chunked\r\n", "", 0),
    ] {
        let mut body = "b".repeat(body);
        if body.is_empty() {
            body = "5\r\nhello\r\n0\r\n\r\n".to_owned();
        }
        let mut s = Socket::new();
        s.recv("GET /a HTTP/1.1\r\n\r\n").send(format!("HTTP/1.1 503 No\r\n{first}{long}{rest}\r\n")).send(&body);
        let end = s.now;
        s.wait(50).recv("GET /b HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let seen = s.seen();
        assert_eq!(seen.lines(), ["GET /a 503 complete", "GET /b 200 complete"]);
        assert_eq!((seen.exchanges[0].end.0, seen.exchanges[0].response.as_ref().unwrap().body_size), (end, None));

        // Without a next request, silence ends it.
        let mut s = Socket::new();
        s.recv("GET /a HTTP/1.1\r\n\r\n").send(format!("HTTP/1.1 503 No\r\n{first}{long}{rest}\r\n")).send(&body);
        let seen = s.seen();
        assert_eq!((seen.lines(), seen.exchanges[0].end.0), (vec!["GET /a 503 complete".to_owned()], s.now));
    }
}

#[test]
fn head_and_body_apart_and_a_large_body() {
    let megabyte = vec![b'x'; 1 << 20];
    both_sides(
        |s, request, response| {
            request(s, b"GET /file HTTP/1.1\r\n\r\n");
            response(s, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100 << 20).as_bytes());
            for _ in 0..100 {
                response(s, &megabyte);
                s.unreadable().wait(10);
            }
            request(s, b"GET /next HTTP/1.1\r\n\r\n");
            response(s, b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n");
        },
        &["GET /file 200 complete", "GET /next 304 complete"],
    );
}

#[test]
fn the_end_is_the_last_byte_of_the_response() {
    let mut s = Socket::new();
    s.recv("GET /file HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    s.send(vec![0; 1_000_000]).unreadable().unseen(Out, 1_000_000).wait(30_000).send(vec![0; 1_000_000]).unreadable();
    let end = s.now;
    s.wait(60_000).recv("GET /next HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let seen = s.seen();
    assert_eq!(seen.lines(), ["GET /file 200 complete", "GET /next 200 complete"]);
    assert_eq!(seen.exchanges[0].end.0, end);
    assert_eq!(seen.exchanges[0].response.as_ref().unwrap().body_size, Some(3_000_000));
}

#[test]
fn chunked_responses() {
    let small =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n").send(small);
    let end = s.now;
    s.wait(1000).recv("GET /b HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let seen = s.seen();
    assert_eq!(seen.lines(), ["GET /a 200 complete", "GET /b 200 complete"]);
    assert_eq!((seen.exchanges[0].end.0, seen.exchanges[0].response.as_ref().unwrap().body_size), (end, Some(11)));
}

#[test]
fn a_chunked_response_beyond_what_is_captured_ends_with_its_last_chunk() {
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    for last in [
        vec![chunk.clone() + "0\r\n\r\n"],
        vec![chunk.clone(), "0\r\n\r\n".into()],
        vec![chunk.clone() + "0\r\n", "\r\n".into()],
    ] {
        for next in [true, false] {
            let mut s = Socket::new();
            s.recv("GET /a HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..10 {
                s.send(&chunk).wait(1000);
            }
            for part in &last {
                s.send(part);
            }
            let end = s.now;
            if next {
                s.wait(5).recv("GET /b HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            let seen = s.seen();
            let expected =
                if next { vec!["GET /a 200 complete", "GET /b 200 complete"] } else { vec!["GET /a 200 complete"] };
            assert_eq!(seen.lines(), expected);
            assert_eq!((seen.exchanges[0].end.0, seen.exchanges[0].response.as_ref().unwrap().body_size), (end, None));
        }
    }
}

#[test]
fn uploads_with_look_alikes() {
    let fake = "GET /fake HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = fake.repeat(2000);
    both_sides(
        |s, request, response| {
            request(s, format!("PUT /length HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
            for part in body.as_bytes().chunks(fake.len() * 50) {
                request(s, part);
            }
            response(s, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
            request(
                s,
                format!("PUT /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes(),
            );
            for part in body.as_bytes().chunks(fake.len() * 50) {
                request(s, part);
            }
            request(s, b"\r\n0\r\n\r\n");
            response(s, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
            request(s, b"GET /next HTTP/1.1\r\n\r\n");
            response(s, b"HTTP/1.1 203 OK\r\nContent-Length: 0\r\n\r\n");
        },
        &["PUT /length 201 complete", "PUT /chunked 202 complete", "GET /next 203 complete"],
    );
}

#[test]
fn expect_continue_and_early_hints() {
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    both_sides(
        |s, request, response| {
            request(s, b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
            response(s, b"HTTP/1.1 100 Continue\r\n\r\n");
            request(s, b"GET /");
            response(s, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
            // Refused at once: the body is never sent.
            request(s, b"POST /b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n");
            response(s, b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
            request(s, b"GET /c HTTP/1.1\r\n\r\n");
            response(s, ok);
        },
        &["POST /a 200 complete", "POST /b 417 complete", "GET /c 200 complete"],
    );
}

#[test]
fn the_final_response_starts_the_response() {
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.1\r\n\r\n").send("HTTP/1.1 103 Early Hints\r\n\r\n").wait(500).send("HTTP/1.1 204 x\r\n\r\n");
    let at = s.now;
    assert_eq!(s.seen().exchanges[0].response_start.unwrap().0, at);
}

#[test]
fn responses_without_a_body() {
    both_sides(
        |s, request, response| {
            for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
                request(s, format!("{method} /{status} HTTP/1.1\r\n\r\n").as_bytes());
                response(s, format!("HTTP/1.1 {status} x\r\nContent-Length: 1000\r\n\r\n").as_bytes());
            }
        },
        &["HEAD /200 200 complete", "GET /204 204 complete", "GET /304 304 complete", "HEAD /404 404 complete"],
    );
}

#[test]
fn close_delimited() {
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.0\r\n\r\n").send("HTTP/1.0 200 OK\r\n\r\nabc").wait(10).send("def");
    let end = s.now;
    s.wait(10).state(EventKind::LocalClosed).state(EventKind::PeerClosed).state(EventKind::Closed);
    let seen = s.seen();
    assert_eq!(seen.lines(), ["GET /a 200 complete"]);
    assert_eq!((seen.exchanges[0].end.0, seen.exchanges[0].response.as_ref().unwrap().body_size), (end, Some(6)));

    let mut s = Socket::new();
    s.send("GET /a HTTP/1.0\r\n\r\n").recv("HTTP/1.0 200 OK\r\n\r\nabc").state(EventKind::PeerClosed).recv("def");
    let end = s.now;
    s.state(EventKind::EndOfStream).wait(1000).state(EventKind::LocalClosed).state(EventKind::Closed);
    let seen = s.seen();
    assert_eq!((seen.lines(), seen.exchanges[0].end.0), (vec!["GET /a 200 complete".to_owned()], end));
}

#[test]
fn upgrades_and_tunnels_end_http() {
    both_sides(
        |s, request, response| {
            request(s, b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
            response(s, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello");
            request(s, b"GET /fake HTTP/1.1\r\n\r\n");
            response(s, b"HTTP/1.1 200 OK\r\n\r\n");
        },
        &["GET /chat 101 complete"],
    );
    both_sides(
        |s, request, response| {
            request(s, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
            response(s, b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n");
            request(s, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nX: y\r\n\r\n\x16\x03\x01");
            response(s, b"HTTP/1.1 200 Connected\r\nContent-Length: 7\r\n\r\n");
            request(s, b"\x16\x03\x01 GET /");
            response(s, b"HTTP/1.1 200 OK\r\n\r\n");
        },
        &["CONNECT a:443 407 complete", "CONNECT a:443 200 complete"],
    );
}

#[test]
fn http2_after_an_upgrade_is_counted() {
    let mut s = Socket::new();
    s.recv("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n")
        .send("HTTP/1.1 101 x\r\n\r\n")
        .recv("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .send("\0\0");
    assert_eq!(s.seen().lines(), ["GET / 101 complete", "http2_not_read 1"]);
}

#[test]
fn server_sent_events_that_the_client_ends() {
    let mut s = Socket::new();
    s.recv("GET /events HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..600 {
        s.wait(1000).send("f\r\ndata: hello!!\r\n\r\n\r\n");
    }
    s.state(EventKind::PeerClosed).send("f\r\ndata: hello!!\r\n\r\n\r\n").state(EventKind::LocalClosed);
    let end = s.now;
    let seen = s.state(EventKind::Closed).seen();
    // The size lines are not captured after a while, and the data ends like a trailer section: not reported by guess.
    assert_eq!(seen.lines(), ["response_not_observed 1"]);

    let mut s = Socket::new();
    s.recv("GET /events HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..600 {
        s.wait(1000).send("f\r\ndata: hello!!!\n\n\r\n");
    }
    s.state(EventKind::PeerClosed).send("f\r\ndata: hello!!!\n\n\r\n").state(EventKind::LocalClosed);
    assert_eq!(s.now, end);
    let seen = s.state(EventKind::Closed).seen();
    assert_eq!((seen.lines(), seen.exchanges[0].end.0), (vec!["GET /events 200 aborted by Peer".to_owned()], end));
}

#[test]
fn a_response_before_the_request_is_complete() {
    both_sides(
        |s, request, response| {
            // Nothing is sent between the body and the next request, so both are one turn: capture enough of it.
            s.capture = 1 << 20;
            request(s, b"PUT /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
            request(s, &[b'x'; 4000]);
            response(s, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
            for _ in 0..24 {
                request(s, &b"GET /fake HTTP/1.1\r\n\r\n".repeat(1000)[..4000]);
            }
            request(s, b"GET /next HTTP/1.1\r\n\r\n");
            response(s, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        },
        &["PUT /big 413 complete", "GET /next 200 complete"],
    );
    // Even before its head is.
    both_sides(
        |s, request, response| {
            request(s, b"GET /slow HTTP/1.1\r\nHost: ");
            response(s, b"HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n");
        },
        &["GET /slow 408 complete"],
    );
}

#[test]
fn prefork_and_passed_descriptors() {
    let mut s = Socket::new();
    for n in 1..=3 {
        s.recv(format!("GET /{n} HTTP/1.1\r\n\r\n")).send("HTTP/1.1 204 x\r\n\r\n");
        let at = s.events.len() - 2;
        s.events[at].process = ProcessId(n);
        s.events[at + 1].process = ProcessId(1);
    }
    let by: Vec<_> = s.seen().exchanges.iter().map(|exchange| exchange.process.id.0).collect();
    assert_eq!(by, [1, 2, 3]);
}

#[test]
fn ten_thousand_paths_and_methods() {
    let mut s = Socket::new();
    for n in 0..10_000 {
        s.recv(format!("m{n} /{n} HTTP/1.1\r\n\r\n")).send("HTTP/1.1 204 x\r\n\r\n");
    }
    let seen = s.seen();
    assert_eq!((seen.exchanges.len(), seen.lost()), (10_000, 0));
    assert!(
        seen.exchanges
            .iter()
            .enumerate()
            .all(|(n, e)| e.request.target == format!("/{n}") && e.request.method == format!("m{n}"))
    );
}
