//! The first line of a message.
//!
//! In: the bytes at which a message begins, possibly cut off. Out: where method, target, version or status stand,
//! or that these bytes begin no HTTP/1.0 or HTTP/1.1 message. The check is strict on purpose: it is what keeps
//! Redis, SMTP or random bytes from being taken for a request.

use super::HttpVersion;

/// Longest method taken for one. Registered methods have at most 17 bytes; a token without end is no method.
const MAX_METHOD: usize = 128;

/// Verdict on a first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<T> {
    /// It is one, and this is in it.
    Whole(T),
    /// It may become one: more bytes are needed.
    Partial,
    /// It is none.
    Invalid,
}

/// `method SP request-target SP HTTP-version CRLF` (RFC 9112 section 3), as positions in the bytes examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestLine {
    /// End of the method, which begins at 0.
    pub(super) method_end: usize,
    /// End of the target, which begins one after `method_end`.
    pub(super) target_end: usize,
    /// HTTP version.
    pub(super) version: HttpVersion,
    /// First byte after the line.
    pub(super) next: usize,
}

/// `HTTP-version SP status-code [SP reason] CRLF` (RFC 9112 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusLine {
    /// 100..=599.
    pub(super) status: u16,
    /// HTTP version.
    pub(super) version: HttpVersion,
    /// First byte after the line; `None` if the line's end lies beyond the bytes examined.
    pub(super) next: Option<usize>,
}

/// Characters of a token (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 128 {
        let c = byte as u8;
        #[allow(clippy::indexing_slicing, reason = "byte < 128 < 256, checked when compiled")]
        {
            table[byte] = c.is_ascii_alphanumeric()
                || matches!(
                    c,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        byte += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// Reads a request line. A bare LF ends the line too (RFC 9112 section 2.2 allows a recipient to take it).
pub(super) fn request_line(bytes: &[u8]) -> Line<RequestLine> {
    let Some(method_end) = bytes.iter().take(MAX_METHOD + 1).position(|&b| !is_token(b)) else {
        return if bytes.len() > MAX_METHOD { Line::Invalid } else { Line::Partial };
    };
    if method_end == 0 || bytes.get(method_end) != Some(&b' ') {
        return Line::Invalid;
    }
    let target = bytes.get(method_end + 1..).unwrap_or_default();
    let Some(target_length) = target.iter().position(|&b| b <= b' ' || b == 0x7f) else { return Line::Partial };
    if target_length == 0 || target.get(target_length) != Some(&b' ') {
        return Line::Invalid;
    }
    let target_end = method_end + 1 + target_length;
    let rest = bytes.get(target_end + 1..).unwrap_or_default();
    let (version, after) = match version(rest) {
        Line::Whole(found) => found,
        Line::Partial => return Line::Partial,
        Line::Invalid => return Line::Invalid,
    };
    let end = match (rest.get(after), rest.get(after + 1)) {
        (Some(b'\n'), _) => after + 1,
        (Some(b'\r'), Some(b'\n')) => after + 2,
        (Some(b'\r'), None) | (None, _) => return Line::Partial,
        _ => return Line::Invalid,
    };
    Line::Whole(RequestLine { method_end, target_end, version, next: target_end + 1 + end })
}

/// Reads a status line. Status codes outside of 100..=599 are invalid (RFC 9110 section 15).
pub(super) fn status_line(bytes: &[u8]) -> Line<StatusLine> {
    let (version, after) = match version(bytes) {
        Line::Whole(found) => found,
        Line::Partial => return Line::Partial,
        Line::Invalid => return Line::Invalid,
    };
    let rest = bytes.get(after..).unwrap_or_default();
    let mut status = 0_u16;
    for place in 0..5 {
        let Some(&byte) = rest.get(place) else { return Line::Partial };
        match (place, byte) {
            (0, b' ') => {}
            (1, b'1'..=b'5') | (2 | 3, b'0'..=b'9') => status = status * 10 + u16::from(byte - b'0'),
            (4, b' ' | b'\r' | b'\n') => {}
            _ => return Line::Invalid,
        }
    }
    let reason = rest.get(4..).unwrap_or_default();
    let next = memchr::memchr(b'\n', reason).map(|end| after + 4 + end + 1);
    Line::Whole(StatusLine { status, version, next })
}

/// Reads `HTTP/1.0` or `HTTP/1.1`; also gives its length.
fn version(bytes: &[u8]) -> Line<(HttpVersion, usize)> {
    const NAME: &[u8] = b"HTTP/1.";
    let given = bytes.get(..NAME.len()).unwrap_or(bytes);
    if !NAME.starts_with(given) {
        return Line::Invalid;
    }
    match bytes.get(NAME.len()) {
        None => Line::Partial,
        Some(b'0') => Line::Whole((HttpVersion::Http10, NAME.len() + 1)),
        Some(b'1') => Line::Whole((HttpVersion::Http11, NAME.len() + 1)),
        Some(_) => Line::Invalid,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_prefix_of_a_request_line_is_partial() {
        let line = b"M-SEARCH *?x=\xff HTTP/1.0\r\n";
        for end in 0..line.len() {
            assert_eq!(request_line(&line[..end]), Line::Partial, "{end}");
        }
        let Line::Whole(found) = request_line(line) else { panic!() };
        assert_eq!((&line[..found.method_end], found.version), (&b"M-SEARCH"[..], HttpVersion::Http10));
        assert_eq!((&line[found.method_end + 1..found.target_end], found.next), (&b"*?x=\xff"[..], line.len()));
    }

    #[test]
    fn every_prefix_of_a_status_line_is_partial_until_the_status_is_certain() {
        let line = b"HTTP/1.1 404 ";
        for end in 0..line.len() {
            assert_eq!(status_line(&line[..end]), Line::Partial, "{end}");
        }
        assert_eq!(
            status_line(line),
            Line::Whole(StatusLine { status: 404, version: HttpVersion::Http11, next: None })
        );
        for (whole, next) in
            [(&b"HTTP/1.1 200\r\nX"[..], 14), (b"HTTP/1.1 200 O\xff\x00K\n", 18), (b"HTTP/1.1 200 \r\n", 15)]
        {
            let Line::Whole(found) = status_line(whole) else { panic!("{whole:?}") };
            assert_eq!((found.status, found.next), (200, Some(next)));
        }
    }

    #[test]
    fn other_protocols_are_no_request_and_no_response() {
        let others: &[&[u8]] = &[
            b"*1\r\n$4\r\nPING\r\n",
            b"+PONG\r\n",
            b"PING\r\n",
            b"220 mail.example ESMTP\r\n",
            b"EHLO example\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x16\x03\x01\x02\x00",
            b"INVITE sip:a@b SIP/2.0\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.2\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET  / HTTP/1.1\r\n",
            b"GET /a b HTTP/1.1\r\n",
            b" GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1 \r\n",
            b"G(T / HTTP/1.1\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"HTTP/1.1 20 OK\r\n",
            b"HTTP/1.1 999 X\r\n",
            b"HTTP/1.1 099 X\r\n",
            b"HTTP/1.1 2000 X\r\n",
            b"HTTP/2 200 OK\r\n",
            b"RTSP/1.0 200 OK\r\n",
            b"HTTP/1.1  200 OK\r\n",
        ];
        for bytes in others {
            assert_eq!(request_line(bytes), Line::Invalid, "{bytes:?}");
            assert_eq!(status_line(bytes), Line::Invalid, "{bytes:?}");
        }
        assert_eq!(request_line(&[b'A'; 200]), Line::Invalid);
    }
}
