//! What an exchange's end means: `error.type` and span status, the same for spans and metrics.
//!
//! Rules: semantic conventions for HTTP ("Status", `error.type`) and for recording errors; the table stands in
//! docs/telemetry.md. A status code is never made up, and who left first decides what is an error.

use std::borrow::Cow;

use crate::exchange::{ClosedBy, Outcome, Side};

/// Value of `error.type`: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The status code, where it says that the exchange failed.
    Status(u16),
    /// Server: the client went away before it had the whole response. No fault of the server: the span's status stays unset.
    ClientDisconnected,
    /// Server: the server itself ended the connection. Client: the server did.
    ConnectionClosed,
    /// The connection was reset or timed out.
    ConnectionReset,
}

impl ErrorType {
    /// Value of the attribute.
    pub fn as_str(self) -> Cow<'static, str> {
        match self {
            Self::Status(code) => Cow::Owned(code.to_string()),
            Self::ClientDisconnected => "client_disconnected".into(),
            Self::ConnectionClosed => "connection_closed".into(),
            Self::ConnectionReset => "connection_reset".into(),
        }
    }

    /// Whether the span's status is Error.
    pub fn fails_span(self) -> bool {
        self != Self::ClientDisconnected
    }
}

/// `error.type` of an exchange; `None` if it did not fail.
pub fn error_type(side: Side, status: Option<u16>, outcome: Outcome) -> Option<ErrorType> {
    // A client's 4xx is its own error; a server that answers 4xx has done its job.
    let least = if side == Side::Server { 500 } else { 400 };
    if let Some(code) = status.filter(|code| *code >= least) {
        return Some(ErrorType::Status(code));
    }
    let (Outcome::Aborted(by) | Outcome::NoResponse(by)) = outcome else { return None };
    match (side, by) {
        (_, ClosedBy::Reset) => Some(ErrorType::ConnectionReset),
        (Side::Server, ClosedBy::Peer) => Some(ErrorType::ClientDisconnected),
        (Side::Server, ClosedBy::Local) | (Side::Client, ClosedBy::Peer) => Some(ErrorType::ConnectionClosed),
        // Cancelled by the caller: "not an error" (semantic conventions for HTTP client spans).
        (Side::Client, ClosedBy::Local) => None,
    }
}

/// Value of `spantap.outcome`; `None` for a complete exchange.
pub fn outcome_name(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Complete => None,
        Outcome::Aborted(_) => Some("aborted"),
        Outcome::NoResponse(_) => Some("no_response"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{ClosedBy::*, Outcome::*, Side::*};

    #[test]
    fn table_of_the_documentation() {
        let status = |s| Some(ErrorType::Status(s));
        for (side, code, outcome, want) in [
            (Server, Some(200), Complete, None),
            (Server, Some(404), Complete, None),
            (Server, Some(500), Complete, status(500)),
            (Client, Some(399), Complete, None),
            (Client, Some(404), Complete, status(404)),
            (Client, Some(503), Complete, status(503)),
            (Server, Some(200), Aborted(Peer), Some(ErrorType::ClientDisconnected)),
            (Server, Some(200), Aborted(Local), Some(ErrorType::ConnectionClosed)),
            (Server, Some(500), Aborted(Local), status(500)),
            (Client, Some(200), Aborted(Peer), Some(ErrorType::ConnectionClosed)),
            (Client, Some(200), Aborted(Local), None),
            (Client, Some(200), Aborted(Reset), Some(ErrorType::ConnectionReset)),
            (Server, None, NoResponse(Peer), Some(ErrorType::ClientDisconnected)),
            (Server, None, NoResponse(Local), Some(ErrorType::ConnectionClosed)),
            (Server, None, NoResponse(Reset), Some(ErrorType::ConnectionReset)),
            (Client, None, NoResponse(Peer), Some(ErrorType::ConnectionClosed)),
            (Client, None, NoResponse(Local), None),
        ] {
            assert_eq!(error_type(side, code, outcome), want, "{side:?} {code:?} {outcome:?}");
        }
    }
}
