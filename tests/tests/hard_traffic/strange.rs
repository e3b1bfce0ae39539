//! What is no HTTP, what is odd HTTP, trace context, and many different names.

use spantap_tests::{
    expect::{Expected, span},
    script::{CONN, Data, How, Step, connect, read_bytes, read_end, read_head, send, serve},
};

use crate::case::{Case, Lost, get, ok, request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

pub(crate) fn cases() -> Vec<Case> {
    [other_protocols(), odd_heads(), trace_context(), many()].concat()
}

/// One exchange with this request head.
fn one(name: &str, head: Data, due: Expected) -> Case {
    Case::new(
        name,
        serve([read_head(), send(ok("hello")), read_end()]),
        connect([Step::Send(CONN, head, How::Write), read_head(), read_bytes(5)]),
        vec![due],
    )
}

fn other_protocols() -> Vec<Case> {
    // Both ends say some rounds of this; nothing may be reported, and the connection must be counted.
    let talk = |name: &str, ask: Vec<u8>, answer: Vec<u8>, counted: &'static str| {
        let (asked, answered) = (ask.len() as u64, answer.len() as u64);
        Case::new(
            name,
            serve([
                Step::Repeat(20, vec![read_bytes(asked), Step::Send(CONN, Data::Bytes(answer), How::Write)]),
                read_end(),
            ]),
            connect([Step::Repeat(20, vec![Step::Send(CONN, Data::Bytes(ask), How::Write), read_bytes(answered)])]),
            Vec::new(),
        )
        .lost(Lost::Must(counted))
    };
    let noise = |seed: u32, count: usize| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    };
    let postgres = [&[0, 0, 0, 41, 0, 3, 0, 0][..], b"user\0alice\0database\0shop\0\0\0\0\0\0\0\0\0"].concat();
    let client_hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &noise(7, 194)].concat();
    let server_hello = [&[0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3][..], &noise(9, 84)].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    vec![
        talk("redis", b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".to_vec(), b"$5\r\nvalue\r\n".to_vec(), "protocol_unknown"),
        talk("postgresql", postgres, b"R\0\0\0\x08\0\0\0\0".to_vec(), "protocol_unknown"),
        talk("random_bytes", noise(1, 700), noise(2, 900), "protocol_unknown"),
        talk("smtp", b"EHLO client.test\r\n".to_vec(), b"250 mail.test\r\n".to_vec(), "protocol_unknown"),
        talk("tls", client_hello, server_hello, "encrypted"),
        talk("http2_preface", preface, settings.to_vec(), "http2_not_read"),
    ]
}

fn odd_heads() -> Vec<Case> {
    let bytes = |parts: &[&[u8]]| Data::Bytes(parts.concat());
    vec![
        one(
            "odd_case",
            "GET /odd_case/0 HTTP/1.1\r\nhOsT: case.test\r\nCONTENT-length:0\r\n\r\n".into(),
            span("GET", "/odd_case/0", 200),
        ),
        one(
            "absolute_form",
            "GET http://case.test/absolute_form/0?q=1 HTTP/1.1\r\nHost: case.test\r\n\r\n".into(),
            span("GET", "/absolute_form/0", 200),
        ),
        one(
            "method_in_lower_case",
            "get /method_in_lower_case/0 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            span("get", "/method_in_lower_case/0", 200),
        ),
        one(
            "unknown_method",
            "FROBNICATE /unknown_method/0 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            span("FROBNICATE", "/unknown_method/0", 200),
        ),
        one("no_fields", "GET /no_fields/0 HTTP/1.1\r\n\r\n".into(), span("GET", "/no_fields/0", 200)),
        // Obsolete or broken heads that servers may still answer: reported, or counted; never silently dropped.
        one(
            "obsolete_folding",
            "GET /obsolete_folding/0 HTTP/1.1\r\nX-Folded: a\r\n b\r\nHost: case.test\r\n\r\n".into(),
            span("GET", "/", 200),
        )
        .reported_or_lost(2),
        one("nul_byte", bytes(&[b"GET /nul_byte/0 HTTP/1.1\r\nHost: a\0b\r\n\r\n"]), span("GET", "/", 200))
            .reported_or_lost(2),
        one(
            "invalid_utf8_in_field",
            bytes(&[b"GET /invalid_utf8_in_field/0 HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\r\n\r\n"]),
            span("GET", "/invalid_utf8_in_field/0", 200),
        ),
        one(
            "invalid_utf8_in_path",
            bytes(&[b"GET /invalid_utf8_in_path/\xff HTTP/1.1\r\nHost: a\r\n\r\n"]),
            span("GET", "/", 200),
        )
        .reported_or_lost(2),
    ]
}

fn trace_context() -> Vec<Case> {
    let with = |name: &str, fields: &str, adopted: bool| {
        let path = format!("/{name}/0");
        let due = span("GET", path.clone(), 200);
        let (trace, parent) = if adopted { (TRACE, PARENT) } else { ("", "") };
        one(name, request("GET", &path, fields).into(), due.clone())
            .sides(vec![due.clone().parent(trace, parent)], vec![due])
    };
    let valid = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    vec![
        with("traceparent", &valid, true),
        with(
            "traceparent_odd_case",
            &format!("TraceParent:   00-{TRACE}-{PARENT}-01\r\ntracestate: a=1,b=2\r\n"),
            true,
        ),
        with(
            "traceparent_of_a_later_version",
            &format!("traceparent: cc-{TRACE}-{PARENT}-01-what-the-future-brings\r\n"),
            true,
        ),
        with("traceparent_not_sampled", &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n"), true).unsampled(),
        with("traceparent_twice", &valid.repeat(2), false),
        with("traceparent_zero", &format!("traceparent: 00-{}-{PARENT}-01\r\n", "0".repeat(32)), false),
        with("traceparent_upper_case", &format!("traceparent: 00-{}-{PARENT}-01\r\n", TRACE.to_uppercase()), false),
        with("traceparent_version_ff", &format!("traceparent: ff-{TRACE}-{PARENT}-01\r\n"), false),
        with("traceparent_too_long", &format!("traceparent: 00-{TRACE}-{PARENT}-01-more\r\n"), false),
    ]
}

fn many() -> Vec<Case> {
    let named = |name: &str, count: u32, head: String, due: Vec<Expected>| {
        Case::new(
            name,
            serve([Step::Repeat(count, vec![read_head(), send(ok("hello"))]), read_end()]),
            connect([Step::Repeat(count, vec![send(head), read_head(), read_bytes(5)])]),
            due,
        )
    };
    let methods = "M{n} /many_methods/0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    vec![
        named(
            "many_paths",
            10_000,
            get("/many_paths/{n}"),
            (0..10_000).map(|n| span("GET", format!("/many_paths/{n}"), 200)).collect(),
        ),
        named("many_methods", 500, methods, (0..500).map(|n| span(&format!("M{n}"), "/many_methods/0", 200)).collect()),
    ]
}
