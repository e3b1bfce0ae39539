//! Where messages begin and end: keep-alive, pipelining, pieces, chunks, bodies that look like heads, 1xx, no bodies.

use spantap_tests::{
    expect::{Expected, span},
    script::{
        By, CONN, Data, How, Step, Until, connect, read_bytes, read_end, read_head, read_mark, send, send_how, serve,
        signal, wait,
    },
};

use crate::case::{Case, get, ok, request, response};

/// What a look-alike in a body is: nothing must come of it.
const LOOK_ALIKE: &str = "GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n";
const LOOK_ALIKE_RESPONSE: &str = "HTTP/1.1 500 Evil\r\nContent-Length: 0\r\n\r\n";

/// One request answered with `hello`, from both ends; the server waits for the client to leave.
fn answer() -> Vec<Step> {
    vec![read_head(), send(ok("hello"))]
}

fn ask(path: &str) -> Vec<Step> {
    vec![send(get(path)), read_head(), read_bytes(5)]
}

fn then(steps: Vec<Vec<Step>>) -> Vec<Step> {
    steps.concat()
}

fn numbered(case: &str, count: usize) -> Vec<Expected> {
    (0..count).map(|n| span("GET", format!("/{case}/{n}"), 200)).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    [exchanges(), pieces(), bodies(), without_bodies()].concat()
}

fn exchanges() -> Vec<Case> {
    let all = |case: &str, count: usize| -> String { (0..count).map(|n| get(&format!("/{case}/{n}"))).collect() };
    let read_all = |count| Step::Repeat(count, vec![read_head(), read_bytes(5)]);
    vec![
        Case::new(
            "keep_alive",
            serve([Step::Repeat(5, answer()), read_end()]),
            connect([Step::Repeat(5, ask("/keep_alive/{n}"))]),
            numbered("keep_alive", 5),
        ),
        // The idle time between requests belongs to none of them.
        Case::new(
            "idle_gaps",
            serve([Step::Repeat(3, answer()), read_end()]),
            connect([Step::Repeat(3, then(vec![ask("/idle_gaps/{n}"), vec![Step::Pause(600)]]))]),
            numbered("idle_gaps", 3).into_iter().map(|e| e.took(0.0, 0.5)).collect(),
        ),
        Case::new(
            "pipelined_one_write",
            serve([Step::Repeat(3, vec![read_head()]), Step::Repeat(3, vec![send(ok("hello"))]), read_end()]),
            connect([send(all("pipelined_one_write", 3)), read_all(3)]),
            numbered("pipelined_one_write", 3),
        ),
        Case::new(
            "pipelined_one_response_write",
            serve([Step::Repeat(3, vec![read_head()]), send(ok("hello").repeat(3)), read_end()]),
            connect([send(all("pipelined_one_response_write", 3)), read_all(3)]),
            numbered("pipelined_one_response_write", 3),
        ),
        Case::new(
            "pipelined_separate_writes",
            serve([
                wait("sent"),
                Step::Repeat(4, vec![read_head()]),
                Step::Repeat(4, vec![send(ok("hello"))]),
                read_end(),
            ]),
            connect([Step::Repeat(4, vec![send(get("/pipelined_separate_writes/{n}"))]), signal("sent"), read_all(4)]),
            numbered("pipelined_separate_writes", 4),
        ),
        Case::new(
            "pipelined_within_capture",
            serve([Step::Repeat(50, vec![read_head()]), Step::Repeat(50, vec![send(ok("hello"))]), read_end()]),
            connect([send(all("pipelined_within_capture", 50)), read_all(50)]),
            numbered("pipelined_within_capture", 50),
        ),
        // More than is captured of one call: what was not seen is counted.
        Case::new(
            "pipelined_beyond_capture",
            serve([Step::Repeat(400, vec![read_head()]), Step::Repeat(400, vec![send(ok("hello"))]), read_end()]),
            connect([send(all("pipelined_beyond_capture", 400)), read_all(400)]),
            Vec::new(),
        )
        .reported_or_lost(800),
    ]
}

/// Sends in pieces that the other side has read one by one.
fn send_pieces(pieces: &[&str], got: &str) -> Vec<Step> {
    let each = |(n, piece): (usize, &&str)| [send(*piece), wait(&format!("{got}{n}"))];
    pieces.iter().enumerate().flat_map(each).collect()
}

fn read_pieces(pieces: &[&str], got: &str) -> Vec<Step> {
    let each = |(n, piece): (usize, &&str)| [read_bytes(piece.len() as u64), signal(&format!("{got}{n}"))];
    pieces.iter().enumerate().flat_map(each).collect()
}

fn pieces() -> Vec<Case> {
    let head = ["G", "ET /head_split/0 HT", "TP/1.1\r\nHost: case.test\r", "\n", "\r\n"];
    let answered = ["HT", "TP/1.1 20", "0 OK\r\nContent-Length: 5\r\n", "\r\n", "he", "llo"];
    let filler = |bytes: usize| format!("X-Filler: {}\r\n", "f".repeat(bytes));
    let large = |name: &str, bytes: usize| {
        let path = format!("/{name}/0");
        let first = send(request("GET", &path, &filler(bytes)));
        Case::new(
            name,
            serve(then(vec![answer(), answer(), vec![read_end()]])),
            connect(then(vec![vec![first, read_head(), read_bytes(5)], ask(&format!("/{name}/1"))])),
            numbered(name, 2),
        )
    };
    let split_large = request("GET", "/large_head_in_pieces/0", &filler(20_000));
    let split_large: Vec<&str> =
        split_large.as_bytes().chunks(4000).filter_map(|c| std::str::from_utf8(c).ok()).collect();
    // The length of the body stands where it is not captured: the next request must be found, or counted.
    let hidden = request("POST", "/hidden_length/0", &format!("{}Content-Length: 1000\r\n", filler(20_000)));
    let body = Data::Fill { count: 1000, with: "body ".to_owned() };
    vec![
        Case::new(
            "head_split",
            serve(then(vec![read_pieces(&head, "got"), vec![send(ok("hello"))], answer(), vec![read_end()]])),
            connect(then(vec![send_pieces(&head, "got"), vec![read_head(), read_bytes(5)], ask("/head_split/1")])),
            numbered("head_split", 2),
        ),
        Case::new(
            "response_head_split",
            serve(then(vec![vec![read_head()], send_pieces(&answered, "have"), answer(), vec![read_end()]])),
            connect(then(vec![
                vec![send(get("/response_head_split/0"))],
                read_pieces(&answered, "have"),
                ask("/response_head_split/1"),
            ])),
            numbered("response_head_split", 2),
        ),
        large("head_of_6_kb", 6_000),
        large("head_of_20_kb", 20_000),
        Case::new(
            "large_head_in_pieces",
            serve(then(vec![read_pieces(&split_large, "got"), vec![send(ok("hello"))], answer(), vec![read_end()]])),
            connect(then(vec![
                send_pieces(&split_large, "got"),
                vec![read_head(), read_bytes(5)],
                ask("/large_head_in_pieces/1"),
            ])),
            numbered("large_head_in_pieces", 2),
        ),
        Case::new(
            "hidden_length",
            serve(then(vec![vec![read_head(), read_bytes(1000), send(ok("hello"))], answer(), vec![read_end()]])),
            connect(then(vec![
                vec![send(hidden), Step::Send(CONN, body, How::Write), read_head(), read_bytes(5)],
                ask("/hidden_length/1"),
            ])),
            Vec::new(),
        )
        .reported_or_lost(4),
        Case::new(
            "response_head_and_body_apart",
            serve([
                read_head(),
                send(response("200 OK", "Content-Length: 5\r\n")),
                wait("head"),
                send("hello"),
                read_end(),
            ]),
            connect([send(get("/response_head_and_body_apart/0")), read_head(), signal("head"), read_bytes(5)]),
            vec![span("GET", "/response_head_and_body_apart/0", 200)],
        ),
        // The end of a request is the last byte of its response; what follows is idle time.
        Case::new(
            "ends_at_the_last_byte",
            serve([
                read_head(),
                send(response("200 OK", "Content-Length: 10\r\n")),
                send("hello"),
                Step::Pause(500),
                send("world"),
                read_end(),
            ]),
            connect([send(get("/ends_at_the_last_byte/0")), read_head(), read_bytes(10), Step::Pause(800)]),
            vec![span("GET", "/ends_at_the_last_byte/0", 200).took(0.49, 1.0)],
        ),
    ]
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
