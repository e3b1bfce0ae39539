//! The JSON forms of what a server answers (OTLP specification, "JSON Protobuf Encoding"); unknown fields are ignored.
//!
//! In: a bounded body. Out: an [`Answer`], or the message of a `google.rpc.Status`.

use serde::Deserialize;

use super::{Answer, NO_OTLP, printable};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExportResponse {
    partial_success: Option<PartialSuccess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    rejected_spans: Number,
    rejected_data_points: Number,
    error_message: Option<String>,
}

/// 64-bit integers come as strings or as numbers.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(i64),
    #[default]
    None,
}

impl Number {
    fn get(&self) -> u64 {
        match self {
            Self::Text(text) => text.parse().unwrap_or(0),
            Self::Plain(number) => u64::try_from(*number).unwrap_or(0),
            Self::None => 0,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Status {
    message: Option<String>,
}

/// Reads the response of an export that was taken.
pub(super) fn taken(body: &[u8]) -> Answer {
    if body.is_empty() {
        return Answer::Taken { rejected: 0, message: String::new() };
    }
    match serde_json::from_slice::<ExportResponse>(body) {
        Ok(response) => {
            let partial = response.partial_success.unwrap_or_default();
            let rejected = partial.rejected_spans.get().max(partial.rejected_data_points.get());
            Answer::Taken { rejected, message: printable(&partial.error_message.unwrap_or_default()) }
        }
        Err(_) => Answer::Taken { rejected: 0, message: NO_OTLP.into() },
    }
}

/// The message of a status.
pub(super) fn message(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Status>(body).ok()?.message
}
