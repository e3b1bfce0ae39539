//! Answers of an OTLP/gRPC server (OTLP specification, "OTLP/gRPC Response"; gRPC over HTTP/2, "Responses").
//!
//! In: HTTP status, headers, trailers and a bounded body. Out: how the call ended, and what that means.

use std::time::Duration;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::percent_decode_str;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::{
    pack::gunzip,
    response::{self, Answer, printable},
};

/// Longest pause that is believed; beyond it the batch has been given up anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Padding of metadata in base64 may be there or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Codes of gRPC that are told apart here.
const OK: u16 = 0;
const UNKNOWN: u16 = 2;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// Names of all codes, in their order.
#[rustfmt::skip]
const NAMES: [&str; 17] = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Status of gRPC; 2 (UNKNOWN) if it is none of the known ones.
    pub code: u16,
    /// What the server has to say; one line.
    pub message: String,
    /// `RetryInfo`: it wants to be asked again after this.
    pub retry: Option<Duration>,
    /// The response message.
    pub body: Vec<u8>,
}

// `google.rpc.Status` with details, and the one detail that matters.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Ended {
    /// Reads how it ended. `most`: bytes of a response, uncompressed; `None` if it is longer.
    pub fn read(status: u16, headers: &HeaderMap, trailers: &HeaderMap, body: &[u8], most: usize) -> Option<Self> {
        // Without a response message the status stands in the headers.
        let metadata = if trailers.contains_key("grpc-status") { trailers } else { headers };
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let is_grpc = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/grpc"));
        let Some(code) = text("grpc-status").and_then(|code| code.parse::<u16>().ok()) else {
            let what = match (status, is_grpc) {
                (200, true) => "the call ended without a status".to_owned(),
                (200, false) => "the answer is not gRPC".to_owned(),
                _ => format!("HTTP status {status}"),
            };
            return Some(Self { code: of_http(status), message: what, retry: None, body: Vec::new() });
        };
        let message = text("grpc-message").map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
        let retry = text("grpc-status-details-bin").and_then(retry);
        let code = if usize::from(code) < NAMES.len() { code } else { UNKNOWN };
        let body = if code == OK { unframed(body, most)? } else { Vec::new() };
        Some(Self { code, message: printable(&message.unwrap_or_default()), retry, body })
    }

    /// What it means.
    pub fn answer(&self) -> Answer {
        if self.code == OK {
            return response::taken(&self.body);
        }
        let what = self.what();
        match self.code {
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
            1 | 4 | 10 | 11 | UNAVAILABLE | 15 => Answer::Retry { after: self.retry, what },
            RESOURCE_EXHAUSTED if self.retry.is_some() => Answer::Retry { after: self.retry, what },
            UNAUTHENTICATED | PERMISSION_DENIED => Answer::Unauthorized { status: self.code, what },
            _ => Answer::Refused(what),
        }
    }

    /// Whether the credentials are the reason.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.code, UNAUTHENTICATED | PERMISSION_DENIED)
    }

    /// Whether nobody serves the method.
    pub fn is_unimplemented(&self) -> bool {
        self.code == UNIMPLEMENTED
    }

    /// For people.
    fn what(&self) -> String {
        let name = NAMES.get(usize::from(self.code)).copied().unwrap_or("UNKNOWN");
        if self.message.is_empty() { format!("status {name}") } else { format!("status {name}: {}", self.message) }
    }
}

/// Where a proxy answered in the server's place (gRPC, "HTTP to gRPC Status Code Mapping").
fn of_http(status: u16) -> u16 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The one message of a unary response; empty if there is none.
fn unframed(body: &[u8], most: usize) -> Option<Vec<u8>> {
    let Some(([compressed, length @ ..], rest)) = body.split_first_chunk::<5>() else { return Some(Vec::new()) };
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let message = rest.get(..length).unwrap_or_default();
    if *compressed == 1 { gunzip(message, most) } else { Some(message.to_vec()) }
}

/// The pause of a `RetryInfo` among the details of a status.
fn retry(details: &str) -> Option<Duration> {
    let bytes = BASE64.decode(details.trim()).ok()?;
    let details = Details::decode(bytes.as_slice()).ok()?.details;
    let info = details.iter().find(|any| any.type_url.rsplit('/').next() == Some("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(seconds.min(LONGEST_PAUSE.as_secs()), nanos))
}

#[cfg(test)]
mod tests;
