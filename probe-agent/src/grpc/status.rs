//! How a call ended, as the other end tells it.
//!
//! In: the fields of the trailers, or of a head that comes alone. Out: [`Status`], whose text can be shown.

use std::fmt;

use http::HeaderMap;
use percent_encoding::percent_decode;

use super::CallError;

/// Characters of a message that are kept: whoever wrote it may mean harm, and it is shown in the log.
const MAX_MESSAGE: usize = 500;

/// A status code of gRPC (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>); numbers that are not among
/// them are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    /// The call went well.
    pub const OK: Self = Self(0);
    /// Who asks may not.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Another version of the protocol.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// Another agent has the stream.
    pub const ABORTED: Self = Self(10);
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// What the other end says of a call. `message` has no control characters and at most 500 characters and an ellipsis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

/// The status in these fields, if they have one.
///
/// # Errors
/// `grpc-status` that is no number.
pub(super) fn of_fields(fields: &HeaderMap) -> Result<Option<Status>, CallError> {
    let Some(code) = fields.get("grpc-status") else { return Ok(None) };
    let code = code.to_str().ok().and_then(|code| code.parse().ok()).map(Code);
    let code = code.ok_or(CallError::Protocol("a status that is no number"))?;
    let message = fields.get("grpc-message").map(|message| shown(message.as_bytes())).unwrap_or_default();
    Ok(Some(Status { code, message }))
}

/// Percent-decoded, and fit for a terminal.
fn shown(message: &[u8]) -> String {
    let text = percent_decode(message).decode_utf8_lossy();
    let mut shown: String =
        text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(code: &'static str, message: &[u8]) -> Result<Option<Status>, CallError> {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static(code));
        fields.insert("grpc-message", HeaderValue::from_bytes(message).unwrap());
        of_fields(&fields)
    }

    #[test]
    fn codes_have_names_and_messages_are_decoded() {
        let denied = status("7", b"user 5 may not %28spantap.agent_uids%29 \xc3%a4").unwrap().unwrap();
        assert_eq!(denied.code, Code::PERMISSION_DENIED);
        assert_eq!(denied.to_string(), "PERMISSION_DENIED: user 5 may not (spantap.agent_uids) ä");
        assert_eq!(status("99", b"").unwrap().unwrap().to_string(), "code 99: ");
        assert_eq!(of_fields(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn nonsense_is_refused_or_made_harmless() {
        for code in ["", "-1", "4294967296", "ok"] {
            assert!(matches!(status(code, b""), Err(CallError::Protocol(_))), "{code}");
        }
        let message = status("2", b"%1b[2J%0a%ff%").unwrap().unwrap().message;
        assert_eq!(message, "\u{fffd}[2J\u{fffd}\u{fffd}%");
        assert_eq!(status("2", &[b'a'; 10_000]).unwrap().unwrap().message.chars().count(), MAX_MESSAGE + 1);
    }
}
