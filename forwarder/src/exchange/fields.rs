//! The field lines of a head.
//!
//! In: the bytes after the first line, possibly cut off. Out: the few fields that are used, those that frame the
//! body, and where the head ends. One tolerant reader for every head: what an odd client or server got through to
//! the other end is reported, so obsolete folding, NUL, invalid UTF-8, bare LF, white space before the colon and
//! lines without a colon cost at most the field they stand in, and there is no limit on the number of fields.

use bytes::Bytes;

use super::RequestHeaders;

/// Most `tracestate` fields kept of one head: more than that is no list anyone sent on purpose.
const MAX_TRACESTATE: usize = 32;

/// What the `Content-Length` fields say together (RFC 9112 section 6.3, rule 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ContentLength {
    /// No such field.
    #[default]
    Absent,
    /// One value, or the same value again.
    Bytes(u64),
    /// Not a number, or different numbers.
    Invalid,
}

/// What the `Transfer-Encoding` fields say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TransferEncoding {
    /// No such field.
    #[default]
    Absent,
    /// `chunked` is the last coding.
    Chunked,
    /// Something else is.
    Other,
}

/// The fields that frame a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BodyFields {
    /// `Content-Length`.
    pub(super) content_length: ContentLength,
    /// `Transfer-Encoding`.
    pub(super) transfer_encoding: TransferEncoding,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
}

/// Reads field lines from `start` to the empty line. `keep` takes the fields of a request that are used; none are
/// kept of a response. Gives the first byte after the head, or `None` if the empty line is not there: then a last
/// line without an end is left out, since it may be cut in its middle.
pub(super) fn read(
    source: &Bytes,
    start: usize,
    mut keep: Option<&mut RequestHeaders>,
    body: &mut BodyFields,
) -> Option<usize> {
    each(source, start, |line| match keep.as_deref_mut() {
        Some(headers) => of_request(line, source, headers, body),
        None => frames(line, body),
    })
}

/// Gives each field line from `start` to `take`, its end and folded lines included. The result is as for [`read`].
pub(super) fn each(source: &Bytes, start: usize, mut take: impl FnMut(&[u8])) -> Option<usize> {
    let mut at = start;
    loop {
        let rest = source.get(at..)?;
        match rest {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
        let mut end = memchr::memchr(b'\n', rest)? + 1;
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end += memchr::memchr(b'\n', rest.get(end..)?)? + 1;
        }
        take(rest.get(..end)?);
        at += end;
    }
}

/// The value, if `line` is a field of this name (given in lower case). Most lines are none of interest: their first
/// byte tells, and they are looked at no further.
pub(super) fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if !line.get(..name.len())?.eq_ignore_ascii_case(name) {
        return None;
    }
    let rest = line.get(name.len()..)?;
    let rest = if let [b':', rest @ ..] = rest { rest } else { rest.trim_ascii_start().strip_prefix(b":")? };
    Some(rest.trim_ascii())
}

/// Notes what `line` says, if it frames the body.
fn frames(line: &[u8], body: &mut BodyFields) {
    match line.first().map(u8::to_ascii_lowercase) {
        Some(b'c') => {
            if let Some(value) = value(line, b"content-length") {
                content_length(value, &mut body.content_length);
            }
        }
        Some(b't') => {
            if let Some(value) = value(line, b"transfer-encoding") {
                let last = value.rsplit(|&b| b == b',').next().unwrap_or_default().trim_ascii();
                let chunked = last.eq_ignore_ascii_case(b"chunked");
                body.transfer_encoding = if chunked { TransferEncoding::Chunked } else { TransferEncoding::Other };
            }
        }
        Some(b'e') => {
            if let Some(value) = value(line, b"expect") {
                body.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        _ => {}
    }
}

/// Notes what `line` says, if it frames the body or is used.
fn of_request(line: &[u8], source: &Bytes, headers: &mut RequestHeaders, body: &mut BodyFields) {
    let first = |name: &[u8], slot: &mut Option<Bytes>| {
        if slot.is_none()
            && let Some(value) = value(line, name)
        {
            *slot = Some(slice(source, value));
        }
    };
    match line.first().map(u8::to_ascii_lowercase) {
        Some(b'h') => first(b"host", &mut headers.host),
        Some(b'u') => first(b"user-agent", &mut headers.user_agent),
        Some(b'f') => first(b"forwarded", &mut headers.forwarded),
        Some(b'x') => {
            first(b"x-forwarded-for", &mut headers.x_forwarded_for);
            first(b"x-forwarded-host", &mut headers.x_forwarded_host);
            first(b"x-forwarded-proto", &mut headers.x_forwarded_proto);
        }
        Some(b't') => {
            if let Some(value) = value(line, b"traceparent") {
                if headers.traceparent.len() < 2 {
                    headers.traceparent.push(slice(source, value));
                }
            } else if let Some(value) = value(line, b"tracestate") {
                if headers.tracestate.len() < MAX_TRACESTATE {
                    headers.tracestate.push(slice(source, value));
                }
            } else {
                frames(line, body);
            }
        }
        _ => frames(line, body),
    }
}

fn content_length(value: &[u8], so_far: &mut ContentLength) {
    for item in value.split(|&b| b == b',') {
        let number = decimal(item.trim_ascii());
        *so_far = match (*so_far, number) {
            (ContentLength::Absent, Some(n)) => ContentLength::Bytes(n),
            (ContentLength::Bytes(before), Some(n)) if n == before => ContentLength::Bytes(n),
            _ => ContentLength::Invalid,
        };
    }
}

/// Digits only: no sign, no space; `None` beyond 2^64.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `part` of `source`, sharing its memory. Only a folded value is copied: each fold becomes one space (RFC 9112
/// section 5.2).
pub(super) fn slice(source: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    if memchr::memchr(b'\n', part).is_none() {
        return source.slice_ref(part);
    }
    let mut unfolded = Vec::with_capacity(part.len());
    for line in part.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
        if !unfolded.is_empty() && !line.is_empty() {
            unfolded.push(b' ');
        }
        unfolded.extend_from_slice(line);
    }
    unfolded.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn fields(text: &'static [u8]) -> (Option<usize>, RequestHeaders, BodyFields) {
        let (mut headers, mut body) = (RequestHeaders::default(), BodyFields::default());
        let end = read(&Bytes::from_static(text), 0, Some(&mut headers), &mut body);
        (end, headers, body)
    }

    #[test]
    fn odd_heads_keep_what_can_be_read() {
        let text = b"hOsT : a\r\nno colon\r\nX: \x00\xff\r\nUser-Agent:\r\n folded\r\n\tmore \r\ntraceparent: 1\r\nTRACEPARENT:2\n\
                     traceparent: 3\r\nTransfer-Encoding: gzip,\r\n chunked\r\nTracestate: a=1\r\ntracestate:\r\n\r\nbody";
        let (end, headers, body) = fields(text);
        assert_eq!(end, Some(text.len() - 4));
        assert_eq!(headers.host.unwrap(), "a");
        assert_eq!(headers.user_agent.unwrap(), "folded more");
        assert_eq!(headers.traceparent, ["1", "2"]);
        assert_eq!(headers.tracestate, ["a=1", ""]);
        assert_eq!(body.transfer_encoding, TransferEncoding::Chunked);
    }

    #[test]
    fn a_cut_head_keeps_its_whole_lines() {
        let (end, headers, body) = fields(b"Host: a\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: 1");
        assert_eq!((end, body.content_length), (None, ContentLength::Absent));
        assert_eq!(headers.host.unwrap(), "a");
        assert_eq!(headers.x_forwarded_for.unwrap(), "1.2.3.4");
    }

    #[test]
    fn content_lengths() {
        for (text, expected) in [
            (&b"Content-Length: 7\r\ncontent-length:7\r\n\r\n"[..], ContentLength::Bytes(7)),
            (b"Content-Length: 7, 7\r\n\r\n", ContentLength::Bytes(7)),
            (b"Content-Length: 7\r\nContent-Length: 8\r\n\r\n", ContentLength::Invalid),
            (b"Content-Length: +7\r\n\r\n", ContentLength::Invalid),
            (b"Content-Length:\r\n\r\n", ContentLength::Invalid),
            (b"Content-Length: 18446744073709551616\r\n\r\n", ContentLength::Invalid),
            (b"Content-Length: 18446744073709551615\r\n\r\n", ContentLength::Bytes(u64::MAX)),
        ] {
            assert_eq!(fields(text).2.content_length, expected, "{text:?}");
        }
    }
}
