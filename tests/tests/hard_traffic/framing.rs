//! Where messages begin and end: keep-alive, pipelining, messages in pieces.

use spantap_tests::{
    expect::{Expected, span},
    script::{CONN, Data, How, Step, connect, read_bytes, read_end, read_head, send, serve, signal, wait},
};

use crate::case::{Case, get, ok, request, response};

/// One request answered with `hello`, from both ends; the server waits for the client to leave.
pub(crate) fn answer() -> Vec<Step> {
    vec![read_head(), send(ok("hello"))]
}

pub(crate) fn ask(path: &str) -> Vec<Step> {
    vec![send(get(path)), read_head(), read_bytes(5)]
}

pub(crate) fn then(steps: Vec<Vec<Step>>) -> Vec<Step> {
    steps.concat()
}

pub(crate) fn numbered(case: &str, count: usize) -> Vec<Expected> {
    (0..count).map(|n| span("GET", format!("/{case}/{n}"), 200)).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    [exchanges(), pieces()].concat()
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
        .beyond_sight(800),
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
