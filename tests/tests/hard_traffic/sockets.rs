//! Kinds of sockets, and the system calls that move bytes through them.

use spantap_tests::{
    expect::{Expected, span},
    script::{
        At, By, CONN, Data, How, LISTENER, Slot, Step, Until, connect, connect_at, read_bytes, read_end, read_head,
        send, send_how, serve, serve_at,
    },
};

use crate::case::{Case, Lost, get, ok, response};

fn mark(by: By) -> Step {
    Step::Read(CONN, Until::Mark("\r\n\r\n".to_owned()), by, 65536)
}

fn two(name: &str) -> Vec<Expected> {
    (0..2).map(|n| span("GET", format!("/{name}/{n}"), 200)).collect()
}

/// Two exchanges of which both ends use these calls.
fn calls(name: &str, how: How, by: By) -> Case {
    let path = format!("/{name}/{{n}}");
    let body = Step::Read(CONN, Until::Bytes(5), by, 65536);
    Case::new(
        name,
        serve([Step::Repeat(2, vec![mark(by), send_how(ok("hello"), how)]), read_end()]),
        connect([Step::Repeat(2, vec![send_how(get(&path), how), mark(by), body])]),
        two(name),
    )
}

fn addresses(name: &str, listen: At, dial: At) -> Case {
    let path = format!("/{name}/{{n}}");
    Case::new(
        name,
        serve_at(listen, [Step::Repeat(2, vec![read_head(), send(ok("hello"))]), read_end()]),
        connect_at(dial, [Step::Repeat(2, vec![send(get(&path)), read_head(), read_bytes(5)])]),
        two(name),
    )
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = vec![
        addresses("ipv6", At::V6, At::V6),
        addresses("ipv4_mapped_server", At::Mapped, At::V4),
        addresses("ipv4_mapped_client", At::V4, At::Mapped),
        addresses("unix_stream", At::Unix, At::Unix),
        calls("send_recv", How::Send, By::Recv),
        calls("writev_readv", How::Writev(3), By::Readv),
        calls("sendmsg_recvmsg", How::Sendmsg(3), By::Recvmsg),
        calls("sendmmsg", How::Sendmmsg(2), By::Recv),
        calls("peek", How::Write, By::Peek),
        calls("non_blocking", How::Write, By::NonBlocking),
    ];
    all.extend(descriptors());
    all.extend(partial_and_unreadable());
    all
}

fn descriptors() -> Vec<Case> {
    let copy: Slot = 1;
    let once = |name: &str| -> Vec<Step> { vec![send(get(&format!("/{name}/{{n}}"))), read_head(), read_bytes(5)] };
    // Each round a new connection, which gets the descriptor of the one before.
    let rounds = |name: &str, rounds: u32, pause: u64| {
        let steps: Vec<Step> =
            [vec![Step::Connect(CONN, At::V4)], once(name), vec![Step::Close(CONN), Step::Pause(pause)]].concat();
        Case::new(
            name,
            vec![
                Step::Listen(LISTENER, At::V4),
                Step::Repeat(
                    rounds,
                    vec![Step::Accept(LISTENER, CONN), read_head(), send(ok("hello")), read_end(), Step::Close(CONN)],
                ),
            ],
            vec![Step::Repeat(rounds, steps)],
            (0..rounds).map(|n| span("GET", format!("/{name}/{n}"), 200)).collect(),
        )
    };
    vec![
        // Read from one descriptor, written to another of the same connection; the first is closed in between.
        Case::new(
            "dup",
            serve([
                Step::Dup(CONN, copy),
                read_head(),
                Step::Send(copy, ok("hello").into(), How::Write),
                Step::Close(CONN),
                Step::Read(copy, Until::Mark("\r\n\r\n".to_owned()), By::Read, 65536),
                Step::Send(copy, ok("hello").into(), How::Write),
                Step::Read(copy, Until::End, By::Read, 65536),
            ]),
            connect([Step::Repeat(2, once("dup"))]),
            two("dup"),
        ),
        rounds("descriptor_reused_at_once", 50, 0),
        // About 500 a second.
        rounds("short_connections", 1000, 1),
    ]
}

fn partial_and_unreadable() -> Vec<Case> {
    let large = response("200 OK", "Content-Length: 4000000\r\n");
    vec![
        Case::new(
            "partial_writes",
            serve([
                read_head(),
                Step::Send(
                    CONN,
                    Data::Then(
                        Box::new(large.into()),
                        Box::new(Data::Fill { count: 4_000_000, with: "partial".to_owned() }),
                    ),
                    How::NonBlocking,
                ),
                read_head(),
                send(ok("hello")),
                read_end(),
            ]),
            connect([
                send(get("/partial_writes/0")),
                read_head(),
                read_bytes(4_000_000),
                send(get("/partial_writes/1")),
                read_head(),
                read_bytes(5),
            ]),
            two("partial_writes"),
        ),
        // The server's response cannot be read where it is sent: counted there, reported by the client.
        Case::new(
            "whole_response_by_splice",
            serve([read_head(), send_how(ok("hello"), How::Splice), read_end()]),
            connect([send(get("/whole_response_by_splice/0")), read_head(), read_bytes(5)]),
            Vec::new(),
        )
        .reported_or_lost(2)
        .lost(Lost::May(&["head_unreadable", "response_not_observed", "exchange_not_observed", "parse_error"])),
        Case::new(
            "whole_response_by_sendfile",
            serve([read_head(), send_how(ok("hello"), How::Sendfile), read_end()]),
            connect([send(get("/whole_response_by_sendfile/0")), read_head(), read_bytes(5)]),
            Vec::new(),
        )
        .reported_or_lost(2)
        .lost(Lost::May(&["head_unreadable", "response_not_observed", "exchange_not_observed", "parse_error"])),
    ]
}
