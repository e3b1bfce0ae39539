//! Bodies: chunked, huge, spliced, uploads, bodies that look like heads, early responses, 1xx, none at all.

use spantap_tests::{
    expect::span,
    script::{
        By, CONN, Data, How, Step, Until, connect, read_bytes, read_end, read_head, read_mark, send, send_how, serve,
        signal, wait,
    },
};

use crate::{
    case::{Case, get, ok, request, response},
    framing::{answer, ask, numbered, then},
};

/// What a look-alike in a body is: nothing must come of it.
const LOOK_ALIKE: &str = "GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n";
const LOOK_ALIKE_RESPONSE: &str = "HTTP/1.1 500 Evil\r\nContent-Length: 0\r\n\r\n";

pub(crate) fn cases() -> Vec<Case> {
    [bodies(), without_bodies()].concat()
}

fn bodies() -> Vec<Case> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let lookalikes = LOOK_ALIKE.len() as u64 * 1000;
    let read_aligned = |count: u64| Step::Read(CONN, Until::Bytes(count), By::Read, LOOK_ALIKE.len() * 10);
    let upload = request("POST", "/upload_look_alike/0", &format!("Content-Length: {lookalikes}\r\n"));
    let chunked_upload = request("POST", "/upload_chunked/0", "Transfer-Encoding: chunked\r\n");
    let big = 100 * 1024 * 1024;
    vec![
        Case::new(
            "chunked_response",
            serve(then(vec![
                vec![read_head(), send(response("200 OK", "Transfer-Encoding: chunked\r\n")), send(chunk("hello "))],
                vec![send(chunk("world")), wait("two"), send("0\r\nX-Trailer: x\r\n\r\n"), wait("end")],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![
                    send(get("/chunked_response/0")),
                    read_mark("world\r\n"),
                    signal("two"),
                    read_mark("X-Trailer: x\r\n\r\n"),
                    signal("end"),
                ],
                ask("/chunked_response/1"),
            ])),
            numbered("chunked_response", 2),
        ),
        Case::new(
            "sendfile_100_mb",
            serve(then(vec![
                vec![read_head(), send(response("200 OK", &format!("Content-Length: {big}\r\n")))],
                vec![Step::Send(CONN, Data::Fill { count: big, with: "sendfile".to_owned() }, How::Sendfile)],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(get("/sendfile_100_mb/0")), read_head(), read_bytes(big)],
                ask("/sendfile_100_mb/1"),
            ])),
            numbered("sendfile_100_mb", 2),
        ),
        Case::new(
            "upload_look_alike",
            serve(then(vec![
                vec![read_head(), read_aligned(lookalikes), send(ok("hello"))],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(upload), Step::Repeat(1000, vec![send(LOOK_ALIKE)]), read_head(), read_bytes(5)],
                ask("/upload_look_alike/1"),
            ])),
            vec![
                span("POST", "/upload_look_alike/0", 200).sizes(lookalikes as i64, 5),
                span("GET", "/upload_look_alike/1", 200),
            ],
        ),
        Case::new(
            "upload_chunked",
            serve(then(vec![
                vec![read_head(), read_mark("\r\n0\r\n\r\n"), send(ok("hello"))],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![
                    send(chunked_upload),
                    Step::Repeat(50, vec![send(format!("{:x}\r\n", LOOK_ALIKE.len())), send(LOOK_ALIKE), send("\r\n")]),
                ],
                vec![send("0\r\n\r\n"), read_head(), read_bytes(5)],
                ask("/upload_chunked/1"),
            ])),
            vec![span("POST", "/upload_chunked/0", 200), span("GET", "/upload_chunked/1", 200)],
        ),
        Case::new(
            "response_look_alike",
            serve(then(vec![
                vec![
                    read_head(),
                    send(response("200 OK", &format!("Content-Length: {}\r\n", LOOK_ALIKE_RESPONSE.len() * 40))),
                ],
                vec![Step::Repeat(40, vec![send(LOOK_ALIKE_RESPONSE)])],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(get("/response_look_alike/0")), read_head()],
                vec![Step::Read(
                    CONN,
                    Until::Bytes(LOOK_ALIKE_RESPONSE.len() as u64 * 40),
                    By::Read,
                    LOOK_ALIKE_RESPONSE.len(),
                )],
                ask("/response_look_alike/1"),
            ])),
            numbered("response_look_alike", 2),
        ),
        Case::new(
            "response_before_the_body_is_complete",
            serve(then(vec![
                vec![read_head(), read_bytes(10), send(ok("hello")), signal("early"), read_bytes(10)],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![
                    send(request("PUT", "/response_before_the_body_is_complete/0", "Content-Length: 20\r\n")),
                    send("0123456789"),
                ],
                vec![wait("early"), read_head(), read_bytes(5), send("0123456789")],
                ask("/response_before_the_body_is_complete/1"),
            ])),
            vec![
                span("PUT", "/response_before_the_body_is_complete/0", 200),
                span("GET", "/response_before_the_body_is_complete/1", 200),
            ],
        ),
        Case::new(
            "server_sent_events",
            serve([
                read_head(),
                send(response("200 OK", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")),
                Step::Repeat(5, vec![send(chunk("data: tick\n\n")), Step::Pause(300)]),
                send("0\r\n\r\n"),
                read_end(),
            ]),
            connect([send(get("/server_sent_events/0")), read_mark("\r\n0\r\n\r\n")]),
            vec![span("GET", "/server_sent_events/0", 200).took(1.45, 10.0)],
        ),
        Case::new(
            "splice_body",
            serve(then(vec![
                vec![read_head(), send(response("200 OK", "Content-Length: 100000\r\n"))],
                vec![send_how(Data::Fill { count: 100_000, with: "splice".to_owned() }, How::Splice)],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(get("/splice_body/0")), read_head(), read_bytes(100_000)],
                ask("/splice_body/1"),
            ])),
            numbered("splice_body", 2),
        ),
    ]
}

fn without_bodies() -> Vec<Case> {
    // A Content-Length that no body follows; the next exchange on the connection must come out right.
    let bodiless = |name: &str, method: &str, status: &str, code: i64| {
        let path = format!("/{name}/0");
        Case::new(
            name,
            serve(then(vec![
                vec![read_head(), send(response(status, "Content-Length: 1000\r\n"))],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![vec![send(request(method, &path, "")), read_head()], ask(&format!("/{name}/1"))])),
            vec![span(method, path, code), span("GET", format!("/{name}/1"), 200)],
        )
    };
    let upload = request("POST", "/expect_100_continue/0", "Content-Length: 4\r\nExpect: 100-continue\r\n");
    vec![
        bodiless("head_method", "HEAD", "200 OK", 200),
        bodiless("status_204", "GET", "204 No Content", 204),
        bodiless("status_304", "GET", "304 Not Modified", 304),
        Case::new(
            "expect_100_continue",
            serve(then(vec![
                vec![read_head(), send("HTTP/1.1 100 Continue\r\n\r\n"), read_bytes(4), send(ok("hello"))],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(upload), read_head(), send("body"), read_head(), read_bytes(5)],
                ask("/expect_100_continue/1"),
            ])),
            vec![span("POST", "/expect_100_continue/0", 200), span("GET", "/expect_100_continue/1", 200)],
        ),
        Case::new(
            "early_hints",
            serve(then(vec![
                vec![
                    read_head(),
                    send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"),
                    Step::Pause(100),
                    send(ok("hello")),
                ],
                answer(),
                vec![read_end()],
            ])),
            connect(then(vec![
                vec![send(get("/early_hints/0")), read_head(), read_head(), read_bytes(5)],
                ask("/early_hints/1"),
            ])),
            numbered("early_hints", 2),
        ),
        Case::new(
            "early_hints_in_one_write",
            serve([
                read_head(),
                send(format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n{}", ok("hello"))),
                read_end(),
            ]),
            connect([send(get("/early_hints_in_one_write/0")), read_head(), read_head(), read_head(), read_bytes(5)]),
            numbered("early_hints_in_one_write", 1),
        ),
    ]
}
