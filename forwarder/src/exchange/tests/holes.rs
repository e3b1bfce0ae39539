//! Missing events: what is lost is counted, what remains is paired right.

use super::kit::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Five exchanges with one event for each message; the events numbered in `dropped` are missing.
fn exchanges_without(dropped: &[usize], client: bool) -> Vec<String> {
    let mut s = Socket::new();
    let (request, response) = if client { (Out, In) } else { (In, Out) };
    for n in 0..5 {
        s.moves(request, format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        s.moves(response, format!("HTTP/1.1 20{n} OK\r\nContent-Length: 2\r\n\r\nok").as_bytes());
    }
    let mut at = 0;
    s.events.retain(|_| {
        at += 1;
        !dropped.contains(&(at - 1))
    });
    s.seen().lines()
}

/// The exchanges of [`exchanges_without`] that are reported, then losses.
fn expected(reported: &[u32], losses: &[&str]) -> Vec<String> {
    let lines = reported.iter().map(|n| format!("GET /{n} 20{n} complete"));
    lines.chain(losses.iter().map(|&loss| loss.to_owned())).collect()
}

#[test]
fn missing_messages_are_counted_by_turns() {
    for client in [false, true] {
        let case = |dropped: &[usize], reported: &[u32], losses: &[&str]| {
            assert_eq!(exchanges_without(dropped, client), expected(reported, losses), "{dropped:?} {client}");
        };
        case(&[], &[0, 1, 2, 3, 4], &[]);
        // A response.
        case(&[3], &[0, 2, 3, 4], &["response_not_observed 1"]);
        // A request.
        case(&[2], &[0, 2, 3, 4], &["request_not_observed 1"]);
        // A response and the request after it. Where the next response begins cannot be told, so 2 is lost.
        case(&[3, 4], &[0, 3, 4], &["exchange_not_observed 1", "response_not_observed 1"]);
        // An exchange; the request after it may be the rest of the missing one.
        case(&[2, 3], &[0, 3, 4], &["exchange_not_observed 1", "request_not_observed 1"]);
        case(&[3, 4, 5], &[0, 4], &["exchange_not_observed 1", "request_not_observed 1", "response_not_observed 1"]);
        case(&[2, 3, 4], &[0, 3, 4], &["exchange_not_observed 2"]);
        case(&[2, 4, 6], &[0, 4], &["request_not_observed 3"]);
        case(&[1, 3, 5], &[3, 4], &["response_not_observed 3"]);
        // At the beginning. What is before the first event counts the agent.
        case(&[0], &[1, 2, 3, 4], &["request_not_observed 1"]);
        case(&[0, 1, 2, 3], &[3, 4], &["request_not_observed 1"]);
        case(&[0, 1, 2, 3, 5], &[3, 4], &["exchange_not_observed 1"]);
    }
}

#[test]
fn turns_missing_before_the_direction_of_requests_is_known_are_counted() {
    for (request, response) in [(In, Out), (Out, In)] {
        let mut s = Socket::new();
        for n in 0..4 {
            s.moves(request, format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            s.moves(response, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").moves(response, b"ok");
        }
        // The first that is told is the rest of a response, which tells nothing; then an exchange is missing.
        let mut at = 0;
        s.events.retain(|_| {
            at += 1;
            at == 3 || at > 6
        });
        // Whether what comes then is the beginning of a request cannot be told.
        let expected = ["GET /3 200 complete", "exchange_not_observed 1", "request_not_observed 1"];
        assert_eq!(s.seen().lines(), expected);
    }
}

#[test]
fn a_hole_within_a_known_body_is_body() {
    let body = vec![b'x'; 9000];
    for framing in ["Content-Length: 27000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n6978\r\n"] {
        let mut s = Socket::new();
        s.recv(format!("POST /a HTTP/1.1\r\n{framing}"));
        s.recv(&body).unseen(In, 9000).recv(&body);
        if framing.contains("chunked") {
            s.recv("\r\n0\r\n\r\n");
        }
        s.send(format!("HTTP/1.1 200 OK\r\n{framing}")).send(&body).unseen(Out, 9000).send(&body);
        if framing.contains("chunked") {
            s.send("\r\n0\r\n\r\n");
        }
        s.recv("GET /b HTTP/1.1\r\n\r\n").send(OK);
        let seen = s.seen();
        assert_eq!(seen.lines(), ["POST /a 200 complete", "GET /b 200 complete"], "{framing}");
        if framing.contains("Length") {
            assert_eq!(seen.exchanges[0].request.body_size, Some(27000));
        }
    }
}

#[test]
fn an_upload_that_ends_unseen_is_still_answered() {
    let mut s = Socket::new();
    s.recv("POST /a HTTP/1.1\r\nContent-Length: 9000\r\n\r\n")
        .unseen(In, 9000)
        .send(OK)
        .recv("GET /b HTTP/1.1\r\n\r\n")
        .send(OK);
    let seen = s.seen();
    assert_eq!(seen.lines(), ["POST /a 200 complete", "GET /b 200 complete"]);
    assert_eq!(seen.exchanges[0].request.body_size, Some(9000));
}

#[test]
fn a_response_that_ends_unseen_has_no_duration() {
    for framing in ["Content-Length: 9000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2328\r\n"] {
        let mut s = Socket::new();
        s.recv("GET /a HTTP/1.1\r\n\r\n").send(format!("HTTP/1.1 200 OK\r\n{framing}"));
        s.unseen(Out, if framing.contains("chunked") { 9007 } else { 9000 });
        s.recv("GET /b HTTP/1.1\r\n\r\n").send(OK).recv("GET /c HTTP/1.1\r\n\r\n").send(OK);
        assert_eq!(
            s.seen().lines(),
            ["GET /b 200 complete", "GET /c 200 complete", "response_not_observed 1"],
            "{framing}"
        );
    }
    let mut s = Socket::new();
    s.recv("GET /a HTTP/1.0\r\n\r\n").send("HTTP/1.0 200 OK\r\n\r\nabc").send("def").dropped();
    s.state(crate::model::EventKind::LocalClosed);
    let (sent, received) = (s.moved[1], s.moved[0]);
    (s.events[2].offset, s.events[2].opposite_offset) = (sent, received);
    assert_eq!(s.state(crate::model::EventKind::Closed).seen().lines(), ["response_not_observed 1"]);
}

#[test]
fn a_message_that_cannot_be_read_is_counted() {
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send(OK).recv("GET /1 HTTP/1.1\r\n\r\n").unreadable().send(OK);
    s.recv("GET /2 HTTP/1.1\r\n\r\n").send(OK).unreadable().recv("GET /3 HTTP/1.1\r\n\r\n").send(OK);
    let expected = ["GET /0 200 complete", "GET /3 200 complete", "request_not_observed 1", "response_not_observed 1"];
    assert_eq!(s.seen().lines(), expected);
}

#[test]
fn the_rest_of_a_message_is_never_a_message() {
    // The heads are lost, the bodies look like heads.
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send(OK);
    s.recv("POST /1 HTTP/1.1\r\nContent-Length: 22\r\n\r\n").dropped().recv("GET /fake HTTP/1.1\r\n\r\n");
    s.send("HTTP/1.1 201 OK\r\nContent-Length: 19\r\n\r\n").dropped().send("HTTP/1.1 500 X\r\n\r\nab");
    s.recv("GET /2 HTTP/1.1\r\n\r\n").send(OK).recv("GET /3 HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(
        s.seen().lines(),
        ["GET /0 200 complete", "GET /2 200 complete", "GET /3 200 complete", "exchange_not_observed 1"]
    );
}

#[test]
fn a_lost_interim_response_loses_no_exchange() {
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send(OK);
    s.recv("POST /1 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    s.send("HTTP/1.1 100 Continue\r\n\r\n").dropped().recv("ab").send(OK).recv("GET /2 HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(s.seen().lines(), ["GET /0 200 complete", "POST /1 200 complete", "GET /2 200 complete"]);
}

#[test]
fn after_a_hole_pipelined_requests_are_not_paired_by_guess() {
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").send(OK).send(OK).dropped();
    s.recv("GET /3 HTTP/1.1\r\n\r\n").send(OK).send(OK).recv("GET /4 HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(s.seen().lines(), ["GET /0 200 complete", "response_not_observed 4"]);
}

#[test]
fn a_body_whose_head_was_lost_is_no_request() {
    // Whether the 100 is where a response can be sure to begin, or not.
    for known in [true, false] {
        let mut s = Socket::new();
        s.recv("GET /0 HTTP/1.1\r\n\r\n").send(OK);
        if !known {
            s.recv("GET /1 HTTP/1.1\r\n\r\n").dropped().send(OK).dropped();
        }
        s.recv("POST /2 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 22\r\n\r\n").dropped();
        s.send("HTTP/1.1 100 Continue\r\n\r\n").recv("GET /fake HTTP/1.1\r\n\r\n").send(OK);
        s.recv("GET /3 HTTP/1.1\r\n\r\n").send(OK);
        let seen = s.seen();
        let reported: Vec<_> = seen.exchanges.iter().map(line).collect();
        assert_eq!(reported, ["GET /0 200 complete", "GET /3 200 complete"], "{known} {:?}", seen.losses);
        assert!(seen.lost() > u64::from(!known), "{:?}", seen.losses);
    }
}
