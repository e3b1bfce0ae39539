//! Header fields that were asked for by name.
//!
//! In: the field lines of a head as far as they were captured, names in lower case. Out: the values of the fields with
//! these names, in memory of their own.

use std::sync::Arc;

use bytes::Bytes;

use super::fields;

/// Values kept of one head at most; a field may come many times.
const MOST_VALUES: usize = 64;
/// Bytes kept of a value at most.
const MOST_BYTES: usize = 1024;

/// Names and values, in the order of the head.
pub type Captured = Vec<(Arc<str>, Bytes)>;

/// Names of the fields that are kept, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// Of requests.
    pub request: Vec<Arc<str>>,
    /// Of responses.
    pub response: Vec<Arc<str>>,
}

impl Capture {
    /// Those of the configuration.
    pub fn new(of: &spantap_config::Headers) -> Self {
        let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Self { request: names(&of.request), response: names(&of.response) }
    }
}

/// The fields of `lines` whose name is one of `names`.
pub(super) fn captured(lines: &Bytes, names: &[Arc<str>]) -> Captured {
    let mut found = Captured::new();
    if names.is_empty() {
        return found;
    }
    fields::each(lines, 0, |line| {
        for name in names {
            if found.len() < MOST_VALUES
                && let Some(value) = fields::value(line, name.as_bytes())
            {
                let value = fields::slice(lines, value);
                let kept = value.get(..MOST_BYTES.min(value.len())).unwrap_or_default();
                found.push((name.clone(), Bytes::copy_from_slice(kept)));
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &'static [u8], names: &[&str]) -> Vec<(String, String)> {
        let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        captured(&Bytes::from_static(lines), &names)
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn only_what_was_named() {
        let head = b"Host: a\r\nX-Request-ID : 7\r\nx-request-id:8\r\nX-Request-Idx: 9\r\nAccept: a,\r\n b\r\n\r\nx-request-id: body";
        assert_eq!(of(head, &[]), []);
        assert_eq!(
            of(head, &["x-request-id", "accept"]),
            [pair("x-request-id", "7"), pair("x-request-id", "8"), pair("accept", "a, b")]
        );
    }

    #[test]
    fn a_line_that_was_cut_is_left_out() {
        assert_eq!(of(b"a: 1\r\na: 2", &["a"]), [pair("a", "1")]);
    }

    #[test]
    fn sizes_are_bounded() {
        let head = format!("a: {}\r\n", "x".repeat(5000)).repeat(100);
        let found = captured(&head.into(), &["a".into()]);
        assert_eq!((found.len(), found.iter().map(|(_, value)| value.len()).max()), (MOST_VALUES, Some(MOST_BYTES)));
    }
}
