//! In: `OTEL_EXPORTER_OTLP_HEADERS`, its twins in files, `OTEL_RESOURCE_ATTRIBUTES`. Out: names and values.
//!
//! Both variables are lists `name=value,name=value` with percent-encoded values, after the W3C Baggage header. They differ in what a bad
//! member costs: a header is left out alone, resource attributes are discarded as a whole (specification of the resource SDK).

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::{error::ConfigError, given::Given, types::Secret};

/// Headers that say how a request is framed; the exporter alone knows.
#[rustfmt::skip]
const FRAMING: [&str; 8] = [
    "connection", "content-encoding", "content-length", "content-type", "te", "trailer", "transfer-encoding", "upgrade",
];

/// Headers in their order, the last of a name wins; and what is wrong with each member that was left out, without its value.
pub(super) fn headers(text: &str) -> (Vec<(String, Secret)>, Vec<String>) {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    let mut flaws = Vec::new();
    for (index, member) in text.split(',').enumerate() {
        let member = member.trim();
        if member.is_empty() {
            continue;
        }
        match header(member) {
            Ok((name, value)) => {
                headers.retain(|(known, _)| *known != name);
                headers.push((name, value));
            }
            // A member without a name may be all secret: only its number is told.
            Err(flaw) => flaws.push(format!("member {}: {flaw}; left out", index + 1)),
        }
    }
    (headers, flaws)
}

fn header(member: &str) -> Result<(String, Secret), String> {
    // A colon before the sign is that of HTTP's own form; the sign may be the end of a value in base64.
    let halves = member.split_once('=').filter(|(name, _)| !name.contains(':'));
    let (name, value) =
        halves.ok_or("not of the form name=value (a colon separates nothing here: Authorization=Basic%20…)")?;
    checked(name, percent_decode_str(value.trim()).decode_utf8_lossy().into_owned())
}

/// Headers of a mapping of names to values, which are taken as they are.
pub(super) fn headers_of_map(given: &Given<'_>) -> Result<Vec<(String, Secret)>, ConfigError> {
    const EXPECTED: &str = "a mapping of header names to values";
    let mut headers: Vec<(String, Secret)> = Vec::new();
    let entries = given.entries().map_err(|_| given.invalid_as("something else", EXPECTED))?;
    for (entry, value) in entries {
        let text = value.text().map_err(|_| value.invalid_as("something else", "a single text"))?;
        let (name, secret) = checked(&entry.key, text.trim().to_owned()).map_err(|flaw| value.unsupported(flaw))?;
        headers.retain(|(known, _)| *known != name);
        headers.push((name, secret));
    }
    Ok(headers)
}

/// Headers of a text with one `name: value` a line; lines that are empty or begin with `#` say nothing.
pub(super) fn headers_of_file(text: &str) -> Result<Vec<(String, Secret)>, String> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        // Such a line may be all secret: only its number is told.
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("line {number} is not of the form name: value"))?;
        let (name, secret) = checked(name, value.trim().to_owned()).map_err(|flaw| format!("line {number}: {flaw}"))?;
        headers.retain(|(known, _)| *known != name);
        headers.push((name, secret));
    }
    Ok(headers)
}

/// A header that HTTP and the exporter allow.
fn checked(name: &str, value: String) -> Result<(String, Secret), String> {
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| "its name is no header name")?;
    if FRAMING.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
        return Err(format!("header {name} is the exporter's own"));
    }
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| format!("the value of {name} has control characters"))?;
    Ok((name.as_str().to_owned(), Secret(value)))
}

/// Attributes in their order, the last of a key wins; or why the whole text is of no use.
pub(crate) fn resource_attributes(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (index, member) in text.split(',').enumerate() {
        let member = member.trim();
        if member.is_empty() {
            continue;
        }
        let number = index + 1;
        let (key, value) =
            member.split_once('=').ok_or_else(|| format!("member {number} is not of the form key=value"))?;
        let decode =
            |text: &str| decoded(text.trim()).ok_or_else(|| format!("member {number} is not percent-encoded UTF-8"));
        let (key, value) = (decode(key)?, decode(value)?);
        if key.is_empty() {
            return Err(format!("member {number} has no key"));
        }
        attributes.retain(|(known, _)| *known != key);
        attributes.push((key, value));
    }
    Ok(attributes)
}

/// Strict: a `%` must begin an escape, an `=` must be one.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let first = parts.next()?;
    let hex = |part: &str| part.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    if first.contains('=') || !parts.all(|part| hex(part) && !part.contains('=')) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned())
}
