//! How long the body of a message is: RFC 9112 section 6.3.
//!
//! In: method, status and the fields that frame a body. Out: a [`Framing`].

use super::{
    HttpVersion,
    fields::{BodyFields, ContentLength, TransferEncoding},
};

/// Where a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// With its head.
    NoBody,
    /// So many bytes after its head.
    Length(u64),
    /// After the last chunk and the trailer section.
    Chunked,
    /// With the connection.
    UntilClose,
    /// The head does not tell: when the other direction speaks, or with the connection.
    Unknown,
    /// With its head, and so does HTTP on this connection (101, CONNECT).
    Upgrade,
}

/// Rules 1, 2, 4 to 6 and 8, for responses. `method` is that of the request, `None` if it was not seen.
pub(super) fn of_response(method: Option<&[u8]>, status: u16, version: HttpVersion, body: &BodyFields) -> Framing {
    match status {
        101 => return Framing::Upgrade,
        100..=199 | 204 | 304 => return Framing::NoBody,
        200..=299 if method == Some(b"CONNECT") => return Framing::Upgrade,
        _ if method == Some(b"HEAD") => return Framing::NoBody,
        _ => {}
    }
    match (body.transfer_encoding, body.content_length) {
        // Faulty by RFC 9112 section 6.1; who sent it closes, or does not and then the next request tells.
        (TransferEncoding::Chunked | TransferEncoding::Other, _) if version == HttpVersion::Http10 => Framing::Unknown,
        (TransferEncoding::Chunked, _) => Framing::Chunked,
        (TransferEncoding::Other, _) => Framing::UntilClose,
        (TransferEncoding::Absent, ContentLength::Bytes(length)) => of_length(length),
        (TransferEncoding::Absent, ContentLength::Invalid) => Framing::Unknown,
        (TransferEncoding::Absent, ContentLength::Absent) => Framing::UntilClose,
    }
}

/// Rules 3 to 7, for requests.
pub(super) fn of_request(method: &[u8], version: HttpVersion, body: &BodyFields) -> Framing {
    // What follows a CONNECT is a message only if the answer refuses the tunnel.
    if method == b"CONNECT" {
        return Framing::Unknown;
    }
    match (body.transfer_encoding, body.content_length) {
        (TransferEncoding::Chunked, _) if version == HttpVersion::Http11 => Framing::Chunked,
        (TransferEncoding::Chunked | TransferEncoding::Other, _) => Framing::Unknown,
        (TransferEncoding::Absent, ContentLength::Bytes(length)) => of_length(length),
        (TransferEncoding::Absent, ContentLength::Invalid) => Framing::Unknown,
        (TransferEncoding::Absent, ContentLength::Absent) => Framing::NoBody,
    }
}

fn of_length(length: u64) -> Framing {
    if length == 0 { Framing::NoBody } else { Framing::Length(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_9112_section_6_3() {
        let fields = |content_length, transfer_encoding| BodyFields {
            content_length,
            transfer_encoding,
            ..BodyFields::default()
        };
        let (absent, length, invalid) = (ContentLength::Absent, ContentLength::Bytes(9), ContentLength::Invalid);
        let (none, chunked, other) = (TransferEncoding::Absent, TransferEncoding::Chunked, TransferEncoding::Other);
        let (v10, v11) = (HttpVersion::Http10, HttpVersion::Http11);
        for (method, status, version, cl, te, expected) in [
            ("HEAD", 200, v11, length, none, Framing::NoBody),
            ("GET", 204, v11, length, none, Framing::NoBody),
            ("GET", 304, v11, length, none, Framing::NoBody),
            ("GET", 100, v11, length, none, Framing::NoBody),
            ("GET", 101, v11, absent, none, Framing::Upgrade),
            ("CONNECT", 200, v11, length, none, Framing::Upgrade),
            ("CONNECT", 407, v11, length, none, Framing::Length(9)),
            ("GET", 200, v11, length, none, Framing::Length(9)),
            ("GET", 200, v11, ContentLength::Bytes(0), none, Framing::NoBody),
            ("GET", 200, v11, length, chunked, Framing::Chunked),
            ("GET", 200, v11, invalid, chunked, Framing::Chunked),
            ("GET", 200, v10, length, chunked, Framing::Unknown),
            ("GET", 200, v11, absent, other, Framing::UntilClose),
            ("GET", 200, v11, invalid, none, Framing::Unknown),
            ("GET", 200, v10, absent, none, Framing::UntilClose),
        ] {
            assert_eq!(
                of_response(Some(method.as_bytes()), status, version, &fields(cl, te)),
                expected,
                "{method} {status}"
            );
        }
        assert_eq!(of_response(None, 200, v11, &fields(length, none)), Framing::Length(9));
        for (method, version, cl, te, expected) in [
            ("GET", v11, absent, none, Framing::NoBody),
            ("POST", v11, absent, none, Framing::NoBody),
            ("GET", v11, length, none, Framing::Length(9)),
            ("POST", v11, length, chunked, Framing::Chunked),
            ("POST", v10, length, chunked, Framing::Unknown),
            ("POST", v11, absent, other, Framing::Unknown),
            ("POST", v11, invalid, none, Framing::Unknown),
            ("CONNECT", v11, absent, none, Framing::Unknown),
        ] {
            assert_eq!(of_request(method.as_bytes(), version, &fields(cl, te)), expected, "{method}");
        }
    }
}
