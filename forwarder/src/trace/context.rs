//! W3C Trace Context, Level 2: `traceparent` (section 3.2) and `tracestate` (section 3.3).
//!
//! In: untrusted field values. Out: a context that is valid, or none; a `tracestate` that may be handed on, or an empty one.

use bytes::Bytes;

/// Flag of a trace that somebody keeps.
pub const FLAG_SAMPLED: u8 = 0x01;
/// Flag of a trace id whose last seven bytes are random.
pub const FLAG_RANDOM: u8 = 0x02;
/// Members of a `tracestate` at most (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// Length up to which a `tracestate` is handed on (section 3.3.1.5 asks for 512 at least).
const MAX_STATE: usize = 512;
/// Members longer than this go first when a `tracestate` is too long (section 3.3.1.5).
const LONG_MEMBER: usize = 128;

/// A context that arrived with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Not zero.
    pub trace_id: [u8; 16],
    /// Not zero.
    pub span_id: [u8; 8],
    /// The two flags that are defined; others are cleared.
    pub flags: u8,
}

/// The context of the one `traceparent`; none if there are several or it is invalid.
pub fn parse(fields: &[Bytes]) -> Option<TraceContext> {
    let [field] = fields else { return None };
    let field = field.trim_ascii();
    let dashes = [2, 35, 52].iter().all(|at| field.get(*at) == Some(&b'-'));
    let version = *hex::<1>(field.get(..2)?)?.first()?;
    // Later versions may append fields; version 00 may not, ff is forbidden.
    let length = match version {
        0 => field.len() == 55,
        0xff => false,
        _ => matches!(field.get(55), None | Some(b'-')),
    };
    if !dashes || !length {
        return None;
    }
    let context = TraceContext {
        trace_id: hex(field.get(3..35)?)?,
        span_id: hex(field.get(36..52)?)?,
        flags: *hex::<1>(field.get(53..55)?)?.first()? & (FLAG_SAMPLED | FLAG_RANDOM),
    };
    (context.trace_id != [0; 16] && context.span_id != [0; 8]).then_some(context)
}

/// `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// All `tracestate` fields as one, shortened by whole members if needed; empty if any member is invalid.
pub fn trace_state(fields: &[Bytes]) -> String {
    let mut members = Vec::new();
    for member in fields.iter().flat_map(|f| f.split(|b| *b == b',')).map(<[u8]>::trim_ascii) {
        if member.is_empty() {
            continue; // allowed (section 3.3.1.1)
        }
        match std::str::from_utf8(member) {
            Ok(text) if is_member(text) && members.len() < MAX_MEMBERS => members.push(text),
            _ => return String::new(),
        }
    }
    let length = |members: &[&str]| members.iter().map(|m| m.len() + 1).sum::<usize>().saturating_sub(1);
    if length(&members) > MAX_STATE {
        members.retain(|m| m.len() <= LONG_MEMBER);
    }
    while length(&members) > MAX_STATE {
        members.pop();
    }
    members.join(",")
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_ok = (1..=256).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b));
    let value_ok = (1..=256).contains(&value.len())
        && value.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'=')
        && !value.ends_with(' ');
    key_ok && value_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn one(field: &str) -> Option<TraceContext> {
        parse(&[Bytes::copy_from_slice(field.as_bytes())])
    }

    #[test]
    fn valid_contexts() {
        for (field, flags) in [
            (format!("00-{ID}-00"), 0),
            (format!("00-{ID}-01"), 1),
            (format!(" 00-{ID}-03\t"), 3),
            (format!("00-{ID}-ff"), 3),
            (format!("cc-{ID}-01"), 1),
            (format!("cc-{ID}-01-what-the-future-brings"), 1),
            (format!("01-{ID}-01-"), 1),
        ] {
            assert_eq!(one(&field).map(|c| c.flags), Some(flags), "{field}");
        }
    }

    #[test]
    fn invalid_contexts() {
        for field in [
            String::new(),
            ID.into(),
            format!("00-{ID}"),
            format!("00-{ID}-"),
            format!("00-{ID}-0"),
            format!("00-{ID}-01-"),
            format!("00-{ID}-01-extra"),
            format!("ff-{ID}-01"),
            format!("0-{ID}-01"),
            format!("0x-{ID}-01"),
            format!("cc-{ID}-01x"),
            format!("cc-{ID}-0"),
            format!("00-{}-01", ID.to_uppercase()),
            format!("00-{ID}-0A"),
            format!("00_{ID}-01"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01".into(),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".into(),
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033310-01".into(),
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01".into(),
        ] {
            assert_eq!(one(&field), None, "{field}");
        }
        let twice = Bytes::from(format!("00-{ID}-01"));
        assert_eq!(parse(&[twice.clone(), twice]), None);
        assert_eq!(parse(&[]), None);
    }

    fn state(fields: &[&str]) -> String {
        trace_state(&fields.iter().map(|f| Bytes::copy_from_slice(f.as_bytes())).collect::<Vec<_>>())
    }

    #[test]
    fn states_are_combined_in_order() {
        assert_eq!(state(&["foo=1,bar=2", "baz=3"]), "foo=1,bar=2,baz=3");
        assert_eq!(state(&[" foo=1 \t,\t,,bar=2", ""]), "foo=1,bar=2");
        assert_eq!(state(&["t@v=a b!;~,0_-*/=x"]), "t@v=a b!;~,0_-*/=x");
    }

    #[test]
    fn one_bad_member_voids_the_state() {
        for bad in ["foo", "=1", "foo=", "foo =1", "FOO=1", "-a=1", "f.o=1", "foo=bar=baz", "foo=a\u{7f}", "foo=é"] {
            assert_eq!(state(&["ok=1", bad]), "", "{bad}");
        }
        assert_eq!(state(&[&format!("{}=1", "a".repeat(257))]), "");
        assert_eq!(state(&[&format!("a={}", "1".repeat(257))]), "");
    }

    #[test]
    fn limits() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&[&many(32)]), many(32));
        assert_eq!(state(&[&many(33)]), "");
        let long = format!("long={}", "x".repeat(200));
        let short: Vec<_> = (0..6).map(|i| format!("k{i}={}", "y".repeat(80))).collect();
        let kept = state(&[&long, &short.join(",")]);
        assert!(kept.starts_with("k0=") && kept.len() <= MAX_STATE && kept.contains("k5="), "{kept}");
        let ten: Vec<_> = (0..10).map(|i| format!("k{i}={}", "y".repeat(80))).collect();
        let kept = state(&[&ten.join(",")]);
        assert!(kept.contains("k5=") && !kept.contains("k6=") && kept.len() <= MAX_STATE);
    }
}
