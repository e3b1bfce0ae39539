//! The head of a message: first line and fields.
//!
//! In: the bytes at which a message begins. Out: a request or response head, or why there is none (yet).

use bytes::Bytes;

use super::{
    HttpVersion, Request, RequestHeaders,
    fields::{self, BodyFields},
    line::{self, Line},
};

/// Result of reading a head.
#[derive(Debug)]
pub(super) enum Head<T> {
    /// It is there; second: its length in bytes. `None`: it was cut off and the caller wanted what there is.
    Whole(T, Option<usize>),
    /// The bytes end inside of it. `first_line`: the first line is there and is valid.
    Partial {
        /// What makes these bytes more than a guess.
        first_line: bool,
    },
    /// These bytes begin no such message.
    Invalid,
}

/// What a request head says.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// All but the body's size.
    pub(super) request: Request,
    /// How its body is framed.
    pub(super) body: BodyFields,
    /// Its field lines.
    pub(super) fields: Bytes,
}

/// What a response head says.
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// 100..=599.
    pub(super) status: u16,
    /// Version of the status line.
    pub(super) version: HttpVersion,
    /// How its body is framed.
    pub(super) body: BodyFields,
    /// Its field lines.
    pub(super) fields: Bytes,
}

/// Reads the head of a request. With `cut`, no more bytes of it will come: what is there is taken, if that is at
/// least the request line.
pub(super) fn request(bytes: &Bytes, cut: bool) -> Head<RequestHead> {
    let found = match line::request_line(bytes) {
        Line::Whole(found) => found,
        Line::Partial => return Head::Partial { first_line: false },
        Line::Invalid => return Head::Invalid,
    };
    let (mut headers, mut body) = (RequestHeaders::default(), BodyFields::default());
    let end = fields::read(bytes, found.next, Some(&mut headers), &mut body);
    if end.is_none() && !cut {
        return Head::Partial { first_line: true };
    }
    let request = Request {
        method: method(bytes, found.method_end),
        target: bytes.slice(found.method_end + 1..found.target_end),
        version: found.version,
        headers,
        body_size: None,
        truncated: end.is_none(),
    };
    Head::Whole(RequestHead { request, body, fields: lines(bytes, found.next, end) }, end)
}

/// Reads the head of a response; `cut` as for [`request`], at least the status must be there.
pub(super) fn response(bytes: &Bytes, cut: bool) -> Head<ResponseHead> {
    let found = match line::status_line(bytes) {
        Line::Whole(found) => found,
        Line::Partial => return Head::Partial { first_line: false },
        Line::Invalid => return Head::Invalid,
    };
    let mut body = BodyFields::default();
    let end = found.next.and_then(|next| fields::read(bytes, next, None, &mut body));
    if end.is_none() && !cut {
        return Head::Partial { first_line: true };
    }
    let fields = found.next.map_or(Bytes::new(), |next| lines(bytes, next, end));
    Head::Whole(ResponseHead { status: found.status, version: found.version, body, fields }, end)
}

/// The field lines from `start` to the end of the head, or of what there is of it.
fn lines(bytes: &Bytes, start: usize, end: Option<usize>) -> Bytes {
    let end = end.unwrap_or(bytes.len());
    if start < end && end <= bytes.len() { bytes.slice(start..end) } else { Bytes::new() }
}

/// The usual methods need no share of the event's memory.
fn method(bytes: &Bytes, end: usize) -> Bytes {
    match bytes.get(..end).unwrap_or_default() {
        b"GET" => Bytes::from_static(b"GET"),
        b"POST" => Bytes::from_static(b"POST"),
        b"PUT" => Bytes::from_static(b"PUT"),
        b"HEAD" => Bytes::from_static(b"HEAD"),
        b"DELETE" => Bytes::from_static(b"DELETE"),
        b"PATCH" => Bytes::from_static(b"PATCH"),
        b"OPTIONS" => Bytes::from_static(b"OPTIONS"),
        _ => bytes.slice(..end),
    }
}

/// Whether the empty line that ends a head begins at or after `from`; what lies before was searched already.
pub(super) fn has_end(bytes: &[u8], from: usize) -> bool {
    let tail = bytes.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', tail).any(|at| matches!(tail.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_head() {
        let text = Bytes::from_static(b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
        let Head::Whole(head, Some(length)) = request(&text, false) else { panic!() };
        assert_eq!((length, head.request.target.as_ref()), (text.len() - 3, &b"/a?b"[..]));
        assert_eq!(head.body.content_length, fields::ContentLength::Bytes(3));
        assert!(!head.request.truncated);
        for end in 0..length {
            let cut = text.slice(..end);
            assert!(matches!(request(&cut, false), Head::Partial { first_line } if first_line == (end >= 20)), "{end}");
            match request(&cut, true) {
                Head::Whole(head, None) => {
                    assert!(end >= 20 && head.request.truncated && head.request.target == "/a?b")
                }
                other => assert!(end < 20 && matches!(other, Head::Partial { first_line: false }), "{end}"),
            }
        }
    }

    #[test]
    fn more_than_a_hundred_fields() {
        let mut text = b"GET / HTTP/1.1\r\n".to_vec();
        for n in 0..500 {
            text.extend_from_slice(format!("X-{n}: {n}\r\n").as_bytes());
        }
        text.extend_from_slice(b"Host: last\r\n\r\n");
        let Head::Whole(head, Some(_)) = request(&text.into(), false) else { panic!() };
        assert_eq!(head.request.headers.host.unwrap(), "last");
    }

    #[test]
    fn the_end_is_found_from_anywhere_before_it() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
        assert!((0..=text.len() - 3).all(|from| has_end(text, from)));
        assert!(!has_end(&text[..text.len() - 1], 0) && has_end(b"a\n\n", 0));
    }

    /// A header name or value as a strict reader takes it.
    fn field() -> impl Strategy<Value = String> {
        let names = prop::sample::select(vec![
            "Host",
            "hOST",
            "User-Agent",
            "Traceparent",
            "X-A",
            "Forwarded",
            "x-forwarded-for",
        ]);
        (names, "[ -~]{0,30}").prop_map(|(name, value)| format!("{name}:{value}\r\n"))
    }

    proptest! {
        /// Whatever the strict reader of the `httparse` crate takes is read the same here.
        #[test]
        fn agrees_with_httparse(method in "[A-Z-]{1,12}", target in "/[!-~]{0,40}", fields in prop::collection::vec(field(), 0..20)) {
            let text = format!("{method} {target} HTTP/1.1\r\n{}\r\nrest", fields.concat());
            let mut slots = [httparse::EMPTY_HEADER; 32];
            let mut strict = httparse::Request::new(&mut slots);
            if let Ok(httparse::Status::Complete(expected)) = strict.parse(text.as_bytes()) {
                let Head::Whole(head, length) = request(&Bytes::from(text.clone()), false) else { panic!("{text:?}") };
                prop_assert_eq!(length, Some(expected));
                prop_assert_eq!(&head.request.method, strict.method.unwrap());
                prop_assert_eq!(&head.request.target, strict.path.unwrap());
                let first = |name: &str| strict.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.trim_ascii());
                prop_assert_eq!(head.request.headers.host.as_deref(), first("host"));
                prop_assert_eq!(head.request.headers.user_agent.as_deref(), first("user-agent"));
                prop_assert_eq!(head.request.headers.forwarded.as_deref(), first("forwarded"));
                prop_assert_eq!(head.request.headers.x_forwarded_for.as_deref(), first("x-forwarded-for"));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut: bool) {
            let bytes = Bytes::from(bytes);
            let _ = (request(&bytes, cut), response(&bytes, cut));
            for first in ["GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n"] {
                let bytes = Bytes::from([first.as_bytes(), &bytes].concat());
                let _ = (request(&bytes, cut), response(&bytes, cut));
            }
        }
    }
}
