//! Who does the I/O: inherited and passed connections, forks, io_uring, short lives, connections older than Spantap.

use spantap_tests::{
    compiled,
    expect::span,
    host,
    script::{
        CONN, Data, How, LISTENER, Script, Slot, Step, connect, read_bytes, read_end, read_head, send, serve, signal,
        wait,
    },
    servers,
};

use crate::case::{Case, Lost, Start, get, ok, response};

/// Where a passed connection arrives in the child.
const PASSED: Slot = 1;

fn ask(path: &str) -> Vec<Step> {
    vec![send(get(path)), read_head(), read_bytes(5)]
}

fn answer_on(slot: Slot) -> Script {
    use spantap_tests::script::{By, Until};
    vec![
        Step::Read(slot, Until::Mark("\r\n\r\n".to_owned()), By::Read, 65536),
        Step::Send(slot, ok("hello").into(), How::Write),
        Step::Read(slot, Until::End, By::Read, 65536),
    ]
}

pub(crate) fn cases() -> Vec<Case> {
    [handed_on(), others(), older()].concat()
}

fn handed_on() -> Vec<Case> {
    let take: Script = [vec![Step::Take(CONN, PASSED)], answer_on(PASSED)].concat();
    vec![
        // vfork and exec between accept and read: the child does the I/O, and is the one reported.
        Case::new(
            "exec_between_accept_and_read",
            serve([Step::Inherit(CONN, answer_on(CONN))]),
            connect(ask("/exec_between_accept_and_read/0")),
            vec![span("GET", "/exec_between_accept_and_read/0", 200)],
        ),
        // Over the Unix socket runs one byte that is no HTTP.
        Case::new(
            "descriptor_passed",
            serve([Step::Pass(CONN, take)]),
            connect(ask("/descriptor_passed/0")),
            vec![span("GET", "/descriptor_passed/0", 200)],
        )
        .lost(Lost::May(&["protocol_unknown"])),
    ]
}

fn others() -> Vec<Case> {
    let python = servers::python().unwrap_or_default();
    let forks = compiled::subjects().join("fork_server.py").display().to_string();
    let connections = |name: &str, count: u32| -> Script {
        use spantap_tests::script::At;
        let path = format!("/{name}/{{n}}");
        vec![Step::Repeat(
            count,
            [vec![Step::Connect(CONN, At::V4)], ask(&path), vec![Step::Shutdown(CONN), read_end(), Step::Close(CONN)]]
                .concat(),
        )]
    };
    let spans =
        |name: &str, count: u32| (0..count).map(|n| span("GET", format!("/{name}/{n}"), 200)).collect::<Vec<_>>();
    let uring = compiled::c_program("uring_server");
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|s| s.trim() == "2");
    let no_uring = match &uring {
        Err(error) => Some(format!("{error:#}")),
        Ok(_) => disabled.then(|| "io_uring is disabled on this machine".to_owned()),
    };
    vec![
        Case::new("fork_after_accept", Vec::new(), connections("fork_after_accept", 4), spans("fork_after_accept", 4))
            .served_by(python.clone(), &[&forks, "after-accept", "4"])
            .unless(host::lacks("python3")),
        Case::new("prefork", Vec::new(), connections("prefork", 6), spans("prefork", 6))
            .served_by(python, &[&forks, "prefork", "6"])
            .unless(host::lacks("python3")),
        Case::new("io_uring", Vec::new(), connect([Step::Repeat(3, ask("/io_uring/{n}"))]), spans("io_uring", 3))
            .served_by(uring.unwrap_or_default(), &["3"])
            .unless(no_uring),
        // Started at its turn: connects, asks once and is gone after some 50 ms.
        Case::new(
            "lives_50_ms",
            serve([read_head(), send(ok("hello")), read_end()]),
            connect([vec![Step::Pause(25)], ask("/lives_50_ms/0"), vec![Step::Pause(20)]].concat()),
            vec![span("GET", "/lives_50_ms/0", 200)],
        )
        .start(Start::ClientFresh),
    ]
}

fn older() -> Vec<Case> {
    let answer = || [read_head(), send(ok("hello"))];
    let half = response("200 OK", "Content-Length: 10\r\n");
    vec![
        // Requests before the start are nobody's; those after it are reported, on the same connection.
        Case::new(
            "connection_older_than_spantap",
            serve([Step::Repeat(3, answer().to_vec()), read_end()]),
            connect(
                [
                    ask("/connection_older_than_spantap/before"),
                    vec![signal("early"), wait("observed")],
                    ask("/connection_older_than_spantap/after"),
                    ask("/connection_older_than_spantap/after"),
                ]
                .concat(),
            ),
            vec![span("GET", "/connection_older_than_spantap/after", 200).times(2)],
        )
        .start(Start::BeforeSpantap),
        // Spantap starts between a request and its response: nothing is invented, and the next exchange is right.
        Case::new(
            "request_older_than_spantap",
            serve([
                read_head(),
                signal("early"),
                wait("observed"),
                send(ok("hello")),
                read_head(),
                send(ok("hello")),
                read_end(),
            ]),
            connect([ask("/request_older_than_spantap/before"), ask("/request_older_than_spantap/after")].concat()),
            vec![span("GET", "/request_older_than_spantap/after", 200)],
        )
        .start(Start::BeforeSpantap)
        .lost(Lost::May(&["request_not_observed"])),
        // Spantap starts in the middle of a body.
        Case::new(
            "body_older_than_spantap",
            serve([
                read_head(),
                send(half),
                send("hello"),
                signal("early"),
                wait("observed"),
                Step::Send(CONN, Data::Text("world".to_owned()), How::Write),
                read_head(),
                send(ok("hello")),
                read_end(),
            ]),
            connect(
                [
                    vec![send(get("/body_older_than_spantap/before")), read_head(), read_bytes(10)],
                    ask("/body_older_than_spantap/after"),
                ]
                .concat(),
            ),
            vec![span("GET", "/body_older_than_spantap/after", 200)],
        )
        .start(Start::BeforeSpantap)
        .lost(Lost::May(&["request_not_observed", "response_not_observed"])),
    ]
}

/// The listener of a server that also is its own client, in a network namespace of its own.
pub(crate) fn alone(name: &str, port: u16) -> Script {
    use spantap_tests::script::{At, By, Until};
    let client: Slot = 2;
    let exchange = vec![
        Step::Send(client, get(&format!("/{name}/{{n}}")).into(), How::Write),
        read_head(),
        send(ok("hello")),
        Step::Read(client, Until::Mark("hello".to_owned()), By::Read, 65536),
    ];
    vec![
        Step::Listen(LISTENER, At::Port(port)),
        wait("both"),
        Step::Connect(client, At::Port(port)),
        Step::Accept(LISTENER, CONN),
        Step::Repeat(5, exchange),
    ]
}
