//! Answers of an OTLP/HTTP server (OTLP specification, "OTLP/HTTP Response").
//!
//! In: status, `Retry-After`, a bounded body. Out: an [`Answer`]: taken, refused for good, or to be tried again.

mod json;

use std::time::{Duration, SystemTime};

use prost::Message;

/// Longest text of a server that is kept for the log, in bytes.
const MAX_MESSAGE: usize = 256;

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken, perhaps not all of it.
    Taken {
        /// Items that the server did not take.
        rejected: u64,
        /// What it has to say; often empty.
        message: String,
    },
    /// Never to be sent again.
    Refused(String),
    /// The credentials are refused: not to be sent again before they are taken.
    Unauthorized {
        /// Status of HTTP or of gRPC.
        status: u16,
        /// What the server says.
        what: String,
    },
    /// To be sent again, after the pause that the server asks for.
    Retry {
        /// `Retry-After`.
        after: Option<Duration>,
        /// What went wrong.
        what: String,
    },
}

// Both `ExportTraceServiceResponse` and `ExportMetricsServiceResponse` have this shape.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// What an OTLP/HTTP server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSaid {
    /// Status code.
    pub status: u16,
    /// `Retry-After`, as it was sent.
    pub retry_after: Option<String>,
    /// Whether the body is JSON by its content type.
    pub json: bool,
    /// Body, at most 4 MiB.
    pub body: Vec<u8>,
}

impl HttpSaid {
    /// What it means. `now` is for the date form of `Retry-After`.
    pub fn answer(&self, now: SystemTime) -> Answer {
        if (200..300).contains(&self.status) {
            return if self.json { json::taken(&self.body) } else { taken(&self.body) };
        }
        let said =
            if self.json { json::message(&self.body) } else { Status::decode(&*self.body).ok().map(|s| s.message) };
        let said = said.map(|text| printable(&text)).unwrap_or_default();
        let status = self.status;
        let what = if said.is_empty() { format!("status {status}") } else { format!("status {status}: {said}") };
        match status {
            429 | 502 | 503 | 504 => {
                Answer::Retry { after: self.retry_after.as_deref().and_then(|value| delay(value, now)), what }
            }
            401 | 403 => Answer::Unauthorized { status, what },
            _ => Answer::Refused(what),
        }
    }

    /// Whether the credentials are the reason.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

/// Reads the protobuf response of an export that was taken.
pub(super) fn taken(body: &[u8]) -> Answer {
    match ExportResponse::decode(body) {
        Ok(ExportResponse { partial_success: Some(partial) }) => Answer::Taken {
            rejected: u64::try_from(partial.rejected).unwrap_or(0),
            message: printable(&partial.error_message),
        },
        Ok(_) => Answer::Taken { rejected: 0, message: String::new() },
        // The status alone says success; a proxy in between may have answered.
        Err(_) => Answer::Taken { rejected: 0, message: NO_OTLP.into() },
    }
}

/// Said of a body that is none of the specification.
const NO_OTLP: &str = "the response is no OTLP message";

/// `Retry-After`: seconds or a date (RFC 9110 section 10.2.3).
fn delay(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// `text` on one line and short: it is a stranger's.
pub(super) fn printable(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, retry_after: Option<&str>, json: bool, body: &[u8]) -> Answer {
        let said = HttpSaid { status, retry_after: retry_after.map(str::to_owned), json, body: body.to_vec() };
        said.answer(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &[u8]) -> Answer {
        said(status, retry_after, false, body)
    }

    #[test]
    fn answers_in_json() {
        let all = Answer::Taken { rejected: 0, message: String::new() };
        let json = |status, body: &str| said(status, None, true, body.as_bytes());
        for body in ["", "{}", "{\"partialSuccess\":{}}", "{\"partialSuccess\":null}", "{\"unknown\":[1]}"] {
            assert_eq!(json(200, body), all, "{body}");
        }
        for body in [
            "{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"old\"}}",
            "{\"partialSuccess\":{\"rejectedDataPoints\":3,\"errorMessage\":\"old\"}}",
        ] {
            assert_eq!(json(200, body), Answer::Taken { rejected: 3, message: "old".into() });
        }
        for body in ["<html>", "{\"partialSuccess\":{\"rejectedSpans\":\"-1\"", "[1]"] {
            assert!(matches!(json(200, body), Answer::Taken { rejected: 0, message } if !message.is_empty()), "{body}");
        }
        let refused = |what: &str| Answer::Unauthorized { status: 401, what: what.into() };
        let said = json(401, "{\"code\":16,\"message\":\"no basic auth provided\"}");
        assert_eq!(said, refused("status 401: no basic auth provided"));
        assert_eq!(json(401, "{\"code\":"), refused("status 401"));
    }

    #[test]
    fn successes() {
        let all = Answer::Taken { rejected: 0, message: String::new() };
        assert_eq!(answer(200, None, b""), all);
        assert_eq!(answer(202, None, b"\x0a\x00"), all, "an empty partial success is none");
        let partial =
            ExportResponse { partial_success: Some(PartialSuccess { rejected: 3, error_message: "too\nold".into() }) };
        assert_eq!(
            answer(200, None, &partial.encode_to_vec()),
            Answer::Taken { rejected: 3, message: "too old".into() }
        );
        let odd =
            ExportResponse { partial_success: Some(PartialSuccess { rejected: -3, error_message: String::new() }) };
        assert_eq!(answer(200, None, &odd.encode_to_vec()), all);
        assert!(matches!(answer(200, None, b"<html>"), Answer::Taken { rejected: 0, message } if !message.is_empty()));
    }

    #[test]
    fn failures() {
        for status in [400, 404, 408, 413, 500, 501, 301, 307, 304, 101] {
            assert!(matches!(answer(status, Some("1"), b""), Answer::Refused(_)), "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert!(matches!(answer(status, None, b"\xff"), Answer::Retry { after: None, .. }), "{status}");
        }
        let said = Status { message: format!("bad{}", "é".repeat(300)) }.encode_to_vec();
        assert!(
            matches!(answer(400, None, &said), Answer::Refused(what) if what.starts_with("status 400: badé") && what.len() < 300)
        );
    }

    #[test]
    fn pauses() {
        let after = |value| match answer(503, Some(value), b"") {
            Answer::Retry { after, .. } => after.map(|d| d.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after(" 7 "), Some(7));
        assert_eq!(after("Sun, 09 Sep 2001 01:47:00 GMT"), Some(20));
        assert_eq!(after("Sun, 09 Sep 2001 01:46:00 GMT"), Some(0), "a date that has passed");
        assert_eq!(after("-1"), None);
        assert_eq!(after("soon"), None);
    }
}
