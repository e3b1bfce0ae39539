//! In: the text of a scalar. Out: a duration, a truth value, ranges of ports and of process ids — or what was expected instead.

use std::time::Duration;

use crate::types::{PidRange, PortRange};

/// Longest duration that is taken: ten years. Beyond it is a mistake, and sums with a clock could overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// What a duration looks like, for messages.
const DURATION: &str = "a duration with its unit, such as 500ms, 15s, 1m30s or 2h";

/// A duration in the syntax of Go: decimal numbers, each with its unit (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`). Negative ones
/// are refused. A number without unit is refused, too, but for zero: Beyla's YAML would take it as nanoseconds, which nobody means.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    rest = rest.strip_prefix('+').unwrap_or(rest);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{DURATION}; a number without unit would be nanoseconds"));
    }
    if rest.is_empty() {
        return Err(DURATION.to_owned());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        nanos = amount(number, unit)
            .and_then(|part| nanos.checked_add(part))
            .filter(|total| *total <= LONGEST.as_nanos())
            .ok_or_else(|| DURATION.to_owned())?;
        rest = after;
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DURATION.to_owned())
}

/// Nanoseconds of one number with its unit.
fn amount(number: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let value: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = value.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes().take(18) {
        scale /= 10;
        nanos = nanos.checked_add(u128::from(digit.checked_sub(b'0')?).checked_mul(scale)?)?;
    }
    Some(nanos)
}

/// Truth as YAML 1.1, Go and people write it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" | "on" => Some(true),
        "false" | "f" | "0" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// `443`, `80,443,8000-8999`: ports from 1 to 65535.
pub(crate) fn ports(text: &str) -> Option<Vec<PortRange>> {
    ranges(text, 1, u32::from(u16::MAX))?
        .into_iter()
        .map(|(first, last)| Some(PortRange { first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? }))
        .collect()
}

/// `1234`, `1234,2000-2100`: process ids from 1 to the largest that a kernel gives (2^22).
pub(crate) fn pids(text: &str) -> Option<Vec<PidRange>> {
    Some(ranges(text, 1, 1 << 22)?.into_iter().map(|(first, last)| PidRange { first, last }).collect())
}

fn ranges(text: &str, least: u32, most: u32) -> Option<Vec<(u32, u32)>> {
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (whole(first)?, whole(last)?);
            (least <= first && first <= last && last <= most).then_some((first, last))
        })
        .collect()
}

/// Digits only: `parse` alone would take `+80`.
fn whole(text: &str) -> Option<u32> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
