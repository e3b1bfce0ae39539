//! The member `ot` of a `tracestate`: threshold and random number of a trace (OpenTelemetry specification, "TraceState
//! handling": `th` with 1 to 14, `rv` with 14 hexadecimal digits).
//!
//! In: a valid `tracestate`. Out: what it says; the same with another threshold.

/// Bits of thresholds and random numbers.
pub(super) const BITS: u32 = 56;
/// The largest random number.
pub(super) const MAX: u64 = (1 << BITS) - 1;
/// Bytes of the value at most (the specification's bound for `ot`).
const MAX_VALUE: usize = 256;
/// Bytes of a `tracestate` at most, as for those that arrive.
const MAX_STATE: usize = 512;

/// The random number that `state` carries.
pub(super) fn random(state: &str) -> Option<u64> {
    let digits = entries(own(state)?).find_map(|(key, value)| (key == "rv").then_some(value))?;
    (digits.len() == 14).then(|| hexadecimal(digits)).flatten()
}

/// `state` with `threshold` as its own; unknown entries of ours and the members of others stay. A member that was changed
/// comes first (W3C Trace Context, section 3.3.1.1).
pub(super) fn with_threshold(state: &str, threshold: u64) -> String {
    let mut out = format!("ot=th:{}", digits(threshold));
    for (key, value) in own(state).into_iter().flat_map(entries).filter(|(key, _)| *key != "th") {
        if out.len() + key.len() + value.len() + 2 <= MAX_VALUE {
            out.extend([";", key, ":", value]);
        }
    }
    for member in state.split(',').filter(|member| !member.is_empty() && !member.starts_with("ot=")).take(31) {
        if out.len() + member.len() < MAX_STATE {
            out.extend([",", member]);
        }
    }
    out
}

fn own(state: &str) -> Option<&str> {
    state.split(',').find_map(|member| member.strip_prefix("ot="))
}

/// Keys and values; what is neither is left out.
fn entries(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(';').filter_map(|entry| entry.split_once(':'))
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let valid = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// 14 digits without the zeros at the end; one zero for zero.
fn digits(threshold: u64) -> String {
    let all = format!("{:014x}", threshold.min(MAX));
    match all.trim_end_matches('0') {
        "" => "0".to_owned(),
        some => some.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers() {
        for (state, want) in [
            ("ot=rv:000000000000ff", Some(255)),
            ("a=1,ot=th:8;rv:ffffffffffffff,b=2", Some(MAX)),
            ("ot=rv:ff", None),
            ("ot=rv:0000000000000FF", None),
            ("ot=rv:+0000000000001", None),
            ("xot=rv:000000000000ff", None),
            ("", None),
        ] {
            assert_eq!(random(state), want, "{state}");
        }
    }

    #[test]
    fn thresholds_are_written() {
        for (state, threshold, want) in [
            ("", 0, "ot=th:0"),
            ("", 1 << 55, "ot=th:8"),
            ("", 0xe6_6600_0000_0000, "ot=th:e666"),
            ("", 1, "ot=th:00000000000001"),
            ("a=1,ot=th:c;rv:000000000000ff;x:y,b=2", 1 << 55, "ot=th:8;rv:000000000000ff;x:y,a=1,b=2"),
            ("a=1,ot=rubbish", 0, "ot=th:0,a=1"),
        ] {
            assert_eq!(with_threshold(state, threshold), want);
        }
        let long = (0..31).map(|n| format!("k{n}={}", "x".repeat(20))).collect::<Vec<_>>().join(",");
        let written = with_threshold(&long, 0);
        assert!(written.len() <= MAX_STATE && written.starts_with("ot=th:0,k0=") && !written.ends_with(','));
    }
}
