//! What the outcome of an empty export means.
//!
//! In: an answer, or why there is none. Out: a check with the way out. Names of headers are told, values never.

mod failure;

use std::time::{Duration, SystemTime};

use spantap_doctor::{Check, Group, Lack};

pub(super) use self::failure::failed;
use crate::export::{client::Said, response::Answer};

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// URL without user information and query.
    pub(super) shown: String,
    /// Names of the configured headers.
    pub(super) headers: String,
    /// Whether a certificate counts.
    pub(super) verified: bool,
    /// Whether gRPC is spoken.
    pub(super) grpc: bool,
    /// Time from the beginning to the outcome.
    pub(super) took: Duration,
}

impl Asked {
    fn headers(&self) -> String {
        if self.headers.is_empty() { "without headers".to_owned() } else { format!("with headers: {}", self.headers) }
    }
}

#[cfg(test)]
fn asked() -> Asked {
    Asked {
        shown: "https://h/v1/traces".into(),
        headers: "authorization".into(),
        verified: true,
        grpc: false,
        took: Duration::from_millis(12),
    }
}

/// An answer came.
pub(super) fn answered(id: &str, asked: &Asked, said: &Said) -> Check {
    let Asked { shown, took, .. } = asked;
    let milliseconds = took.as_millis();
    let answer = said.answer(SystemTime::now());
    let waits = matches!(answer, Answer::Retry { .. });
    let what = match answer {
        Answer::Taken { message, .. } if message.is_empty() => return taken(id, asked),
        Answer::Taken { message, .. } => {
            return Check::degraded(
                Group::Destinations,
                id,
                format!("{shown} answered in {milliseconds} ms, but {message}"),
                "make sure that an OTLP receiver is there, and not a web server or a proxy's page",
            );
        }
        Answer::Refused(what) | Answer::Unauthorized { what, .. } | Answer::Retry { what, .. } => what,
    };
    let finding = format!("{shown} answered {what} in {milliseconds} ms, {}", asked.headers());
    if waits {
        let fix = "the receiver, or what is behind it, is not ready or too busy; Spantap tries again by itself";
        return Check::degraded(Group::Destinations, id, finding, fix);
    }
    Check::failed(Group::Destinations, id, Lack::Thing, finding, way_out(said))
}

fn way_out(said: &Said) -> &'static str {
    if said.is_unauthorized() {
        return "the credentials are missing or wrong: OTEL_EXPORTER_OTLP_HEADERS=\"Authorization=…\" (values percent-encoded), \
                or spantap.otlp.headers or headers_file in the file";
    }
    match said {
        Said::Http(said) => match said.status {
            404 | 405 => {
                "the path is wrong: OTEL_EXPORTER_OTLP_ENDPOINT takes the base, /v1/traces or /v1/metrics is added to it; an \
                 endpoint of a signal with a path is used as it is"
            }
            300..=399 => "use the address that it leads to; only redirects (307, 308) within one origin are followed",
            400 | 415 => {
                "make sure that the receiver takes OTLP over HTTP in this protocol; https:// where it asks for TLS"
            }
            _ => "see the receiver's log",
        },
        Said::Grpc(ended) if ended.is_unimplemented() => {
            "make sure that a receiver of OTLP over gRPC is there, and that it has a pipeline for this signal"
        }
        Said::Grpc(_) => "see the receiver's log",
    }
}

fn taken(id: &str, asked: &Asked) -> Check {
    let finding = format!("{} took an empty export in {} ms, {}", asked.shown, asked.took.as_millis(), asked.headers());
    if asked.verified || !asked.shown.starts_with("https:") {
        return Check::ok(Group::Destinations, id, finding);
    }
    Check::degraded(
        Group::Destinations,
        id,
        format!("{finding}; its certificate was not verified (insecure_skip_verify)"),
        "set OTEL_EXPORTER_OTLP_CERTIFICATE to the authority's certificate instead",
    )
}

/// The answer was larger than is read.
pub(super) fn too_long(id: &str, asked: &Asked, status: u16) -> Check {
    let finding = format!("{} answered status {status} with more than 4 MiB", asked.shown);
    Check::failed(Group::Destinations, id, Lack::Thing, finding, "make sure that an OTLP receiver is there")
}

/// There was no answer in time.
pub(super) fn silent(id: &str, asked: &Asked, limit: Duration) -> Check {
    Check::failed(
        Group::Destinations,
        id,
        Lack::Thing,
        format!("{} did not answer within {} ms", asked.shown, limit.as_millis()),
        "make sure that address and port are right, that no firewall drops the way there, and that the receiver is well; \
         Spantap would start and try again",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use spantap_doctor::State;

    use super::*;
    use crate::export::response::HttpSaid;

    fn said(status: u16, body: &[u8]) -> Said {
        Said::Http(HttpSaid { status, retry_after: None, json: false, body: body.to_vec() })
    }

    fn status(status: u16) -> Check {
        answered("destinations.traces", &asked(), &said(status, b""))
    }

    #[test]
    fn statuses() {
        let fine = status(200);
        assert_eq!(fine.finding, "https://h/v1/traces took an empty export in 12 ms, with headers: authorization");
        for (code, state, mentions) in [
            (202, State::Ok, ""),
            (401, State::Failed, "credentials"),
            (403, State::Failed, "credentials"),
            (404, State::Failed, "path"),
            (308, State::Failed, "address that it leads to"),
            (415, State::Failed, "protocol"),
            (500, State::Failed, "log"),
            (429, State::Degraded, "busy"),
            (503, State::Degraded, "not ready"),
        ] {
            let check = status(code);
            assert_eq!(check.state, state, "{code}");
            assert!(check.fix.unwrap_or_default().contains(mentions), "{code}");
        }
        assert_eq!(answered("x", &asked(), &said(200, b"<html>")).state, State::Degraded);
        let unverified = Asked { verified: false, ..asked() };
        assert_eq!(taken("x", &unverified).state, State::Degraded);
        assert!(silent("x", &asked(), Duration::from_secs(4)).finding.contains("4000 ms"));
    }
}
