//! How exchanges and connections end: closes, resets, deaths, half-closes, switches of protocol.

use spantap_tests::{
    expect::span,
    script::{CONN, Data, How, Step, connect, read_bytes, read_end, read_head, send, serve, signal, wait},
};

use crate::case::{Case, Lost, get, ok, request, response};

fn ask(path: &str) -> Vec<Step> {
    vec![send(get(path)), read_head(), read_bytes(5)]
}

pub(crate) fn cases() -> Vec<Case> {
    [orderly(), cut_off(), switched()].concat()
}

fn orderly() -> Vec<Case> {
    vec![
        Case::new(
            "http10_close_delimited",
            serve([
                read_head(),
                send("HTTP/1.0 200 OK\r\n\r\nhello "),
                Step::Pause(300),
                send("world"),
                Step::Close(CONN),
            ]),
            connect([send("GET /http10_close_delimited/0 HTTP/1.0\r\n\r\n"), read_end()]),
            vec![span("GET", "/http10_close_delimited/0", 200).took(0.29, 5.0)],
        ),
        Case::new(
            "http11_close_delimited",
            serve([read_head(), send(response("200 OK", "Connection: close\r\n")), send("hello"), Step::Close(CONN)]),
            connect([send(get("/http11_close_delimited/0")), read_end()]),
            vec![span("GET", "/http11_close_delimited/0", 200)],
        ),
        Case::new(
            "connection_close",
            serve([
                read_head(),
                send(response("404 Not Found", "Content-Length: 0\r\nConnection: close\r\n")),
                Step::Close(CONN),
            ]),
            connect([send(request("GET", "/connection_close/0", "Connection: close\r\n")), read_end()]),
            vec![span("GET", "/connection_close/0", 404)],
        ),
        Case::new(
            "half_close",
            serve([read_head(), read_end(), send(ok("hello")), Step::Close(CONN)]),
            connect([send(get("/half_close/0")), Step::Shutdown(CONN), read_head(), read_bytes(5), read_end()]),
            vec![span("GET", "/half_close/0", 200)],
        ),
        Case::new(
            "status_500",
            serve([read_head(), send(response("500 Internal Server Error", "Content-Length: 0\r\n")), read_end()]),
            connect([send(get("/status_500/0")), read_head()]),
            vec![span("GET", "/status_500/0", 500)],
        ),
        // The response waits in the server until the client reads: that time belongs to the exchange.
        Case::new(
            "slow_client",
            serve([
                read_head(),
                send(response("200 OK", "Content-Length: 8000000\r\n")),
                Step::Send(CONN, Data::Fill { count: 8_000_000, with: "slow".to_owned() }, How::Write),
                read_end(),
            ]),
            connect([send(get("/slow_client/0")), Step::Pause(700), read_head(), read_bytes(8_000_000)]),
            vec![span("GET", "/slow_client/0", 200).took(0.69, 20.0)],
        ),
    ]
}

fn cut_off() -> Vec<Case> {
    let part = response("200 OK", "Content-Length: 100000\r\n") + &"x".repeat(1000);
    vec![
        Case::new(
            "client_resets_before_the_response",
            serve([read_head(), signal("read"), read_end()]),
            connect([send(get("/client_resets_before_the_response/0")), wait("read"), Step::Reset(CONN)]),
            vec![span("GET", "/client_resets_before_the_response/0", 0).without_response()],
        ),
        Case::new(
            "client_closes_before_the_response",
            serve([read_head(), signal("read"), read_end(), Step::Close(CONN)]),
            connect([send(get("/client_closes_before_the_response/0")), wait("read"), Step::Close(CONN)]),
            vec![span("GET", "/client_closes_before_the_response/0", 0).without_response()],
        ),
        Case::new(
            "server_dies_before_the_response",
            serve([read_head(), Step::Exit]),
            connect([send(get("/server_dies_before_the_response/0")), read_end()]),
            vec![span("GET", "/server_dies_before_the_response/0", 0).without_response()],
        ),
        Case::new(
            "server_dies_in_the_body",
            serve([read_head(), send(part.clone()), wait("some"), Step::Exit]),
            connect([
                send(get("/server_dies_in_the_body/0")),
                read_head(),
                read_bytes(1000),
                signal("some"),
                read_end(),
            ]),
            vec![span("GET", "/server_dies_in_the_body/0", 200).aborted()],
        ),
        Case::new(
            "server_resets_in_the_body",
            serve([read_head(), send(part.clone()), wait("some"), Step::Reset(CONN)]),
            connect([
                send(get("/server_resets_in_the_body/0")),
                read_head(),
                read_bytes(1000),
                signal("some"),
                read_end(),
            ]),
            vec![span("GET", "/server_resets_in_the_body/0", 200).aborted()],
        ),
        Case::new(
            "client_leaves_in_the_body",
            serve([read_head(), send(part), read_end(), Step::Close(CONN)]),
            connect([send(get("/client_leaves_in_the_body/0")), read_head(), read_bytes(1000), Step::Reset(CONN)]),
            vec![span("GET", "/client_leaves_in_the_body/0", 200).aborted()],
        ),
        Case::new(
            "chunked_response_cut_off",
            serve([
                read_head(),
                send(response("200 OK", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n"),
                wait("some"),
                Step::Close(CONN),
            ]),
            connect([
                send(get("/chunked_response_cut_off/0")),
                read_head(),
                read_bytes(10),
                signal("some"),
                read_end(),
            ]),
            vec![span("GET", "/chunked_response_cut_off/0", 200).aborted()],
        ),
        // The server refuses the upload half-way and closes: the response was complete.
        Case::new(
            "refused_upload",
            serve([
                read_head(),
                read_bytes(10),
                send(response("413 Content Too Large", "Content-Length: 0\r\nConnection: close\r\n")),
                Step::Shutdown(CONN),
                read_end(),
            ]),
            connect([
                send(request("POST", "/refused_upload/0", "Content-Length: 100000\r\n")),
                send("0123456789"),
                read_head(),
                read_end(),
                Step::Close(CONN),
            ]),
            vec![span("POST", "/refused_upload/0", 413)],
        ),
        // The second of two pipelined requests is never answered.
        Case::new(
            "pipelined_and_cut_off",
            serve([read_head(), read_head(), send(ok("hello")), wait("one"), Step::Close(CONN)]),
            connect([
                send(get("/pipelined_and_cut_off/0") + &get("/pipelined_and_cut_off/1")),
                read_head(),
                read_bytes(5),
                signal("one"),
                read_end(),
            ]),
            vec![
                span("GET", "/pipelined_and_cut_off/0", 200),
                span("GET", "/pipelined_and_cut_off/1", 0).without_response(),
            ],
        ),
    ]
}

fn switched() -> Vec<Case> {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    // A text frame whose payload begins as a request does, and one of binary noise.
    let frames = Data::Then(
        Box::new(Data::Bytes(vec![0x81, 0x10])),
        Box::new(Data::Then(Box::new("GET / HTTP/1.1\r\n".into()), Box::new(Data::Bytes((0..=255).collect())))),
    );
    let tls = Data::Bytes([&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 500]].concat());
    vec![
        Case::new(
            "websocket",
            serve([
                read_head(),
                send(response("101 Switching Protocols", upgrade)),
                Step::Repeat(5, vec![read_bytes(274), Step::Send(CONN, frames.clone(), How::Write)]),
                read_end(),
            ]),
            connect([
                send(request("GET", "/websocket/0", upgrade)),
                read_head(),
                Step::Repeat(5, vec![Step::Send(CONN, frames, How::Write), read_bytes(274)]),
            ]),
            vec![span("GET", "/websocket/0", 101)],
        ),
        Case::new(
            "upgrade_not_taken",
            serve([read_head(), send(ok("hello")), read_head(), send(ok("hello")), read_end()]),
            connect(
                [
                    vec![send(request("GET", "/upgrade_not_taken/0", upgrade)), read_head(), read_bytes(5)],
                    ask("/upgrade_not_taken/1"),
                ]
                .concat(),
            ),
            vec![span("GET", "/upgrade_not_taken/0", 200), span("GET", "/upgrade_not_taken/1", 200)],
        ),
        // What runs through a tunnel is not addressed to the proxy, even where it can be read.
        Case::new(
            "connect_tunnel",
            serve([
                read_head(),
                send("HTTP/1.1 200 Connection Established\r\n\r\n"),
                read_bytes(511),
                Step::Send(CONN, tls.clone(), How::Write),
                read_head(),
                send(ok("hello")),
                read_end(),
            ]),
            connect([
                send("CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n"),
                read_head(),
                Step::Send(CONN, tls, How::Write),
                read_bytes(511),
                send(get("/connect_tunnel/inside")),
                read_head(),
                read_bytes(5),
            ]),
            // The target of CONNECT has no path.
            vec![span("CONNECT", "", 200)],
        )
        .lost(Lost::Nothing),
    ]
}
