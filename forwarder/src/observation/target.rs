//! Request targets (RFC 9112 section 3.2) and the redaction of their queries.
//!
//! In: target bytes as sent. Out: authority, path and query, bounded, with secret values replaced.

use std::borrow::Cow;

use super::{Scheme, authority, authority::Authority};
use crate::value::text;

/// Longest path and longest query that are kept, in bytes.
pub const MAX_PART: usize = 2048;
/// What stands in the place of a secret value.
const REDACTED: &str = "REDACTED";

/// A target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Scheme of an absolute target.
    pub scheme: Option<Scheme>,
    /// Authority of an absolute target or of CONNECT.
    pub authority: Option<Authority<'a>>,
    /// The authority carried user information, which is never kept.
    pub userinfo: bool,
    /// Path as sent; empty for CONNECT.
    pub path: &'a [u8],
    /// What follows the first `?`.
    pub query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Takes `target` apart.
    pub fn parse(target: &'a [u8], connect: bool) -> Self {
        if connect {
            let userinfo = target.contains(&b'@');
            return Self { scheme: None, authority: authority::parse(target), userinfo, path: b"", query: None };
        }
        if target.first() == Some(&b'/') {
            return Self::origin(target);
        }
        let Some(colon) = target.windows(3).take(16).position(|w| w == b"://") else { return Self::origin(target) };
        let rest = target.get(colon + 3..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let host = rest.get(..end).unwrap_or_default();
        let mut parsed = Self::origin(rest.get(end..).unwrap_or_default());
        if parsed.path.is_empty() {
            parsed.path = b"/";
        }
        parsed.scheme = Scheme::parse(target.get(..colon).unwrap_or_default());
        parsed.authority = authority::parse(host);
        parsed.userinfo = host.contains(&b'@');
        parsed
    }

    fn origin(target: &'a [u8]) -> Self {
        let (path, query) = match target.iter().position(|b| *b == b'?') {
            Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
            None => (target, None),
        };
        Self { scheme: None, authority: None, userinfo: false, path, query }
    }
}

/// Names of query parameters whose values are secret, matched without regard to ASCII case.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    names: Vec<String>,
}

impl Redactor {
    /// A redactor for `names`.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.to_vec() }
    }

    fn is_secret(&self, name: &[u8]) -> bool {
        if name.contains(&b'%') || name.contains(&b'+') {
            let decoded = percent_decode(name);
            return self.names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(&decoded));
        }
        self.names.iter().any(|n| n.len() == name.len() && n.as_bytes().eq_ignore_ascii_case(name))
    }

    /// `query`, at most [`MAX_PART`] bytes of it, with the values of secret parameters replaced by `REDACTED`.
    /// `;` separates parameters as `&` does: older servers read it so.
    pub fn redact<'a>(&self, query: &'a [u8]) -> Cow<'a, str> {
        // Cutting first is safe: a name that is cut has no value left.
        let query = text(query, MAX_PART);
        let secret =
            |parameter: &str| parameter.split_once('=').is_some_and(|(name, _)| self.is_secret(name.as_bytes()));
        if !query.split(['&', ';']).any(secret) {
            return query;
        }
        let mut out = String::with_capacity(query.len());
        for parameter in query.split_inclusive(['&', ';']) {
            match parameter.split_once('=') {
                Some((name, value)) if self.is_secret(name.as_bytes()) => {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(REDACTED);
                    out.extend(value.chars().next_back().filter(|c| matches!(c, '&' | ';')));
                }
                _ => out.push_str(parameter),
            }
        }
        Cow::Owned(out)
    }
}

fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if let (b'%', Some(hex)) = (byte, after.get(..2))
            && let Some(value) = std::str::from_utf8(hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok())
        {
            out.push(value);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_targets() {
        let t = Target::parse(b"/a/b?x=1?2", false);
        assert_eq!((t.path, t.query, t.authority), (&b"/a/b"[..], Some(&b"x=1?2"[..]), None));
        let t = Target::parse(b"http://u:p@h:81?q", false);
        assert_eq!((t.path, t.query, t.userinfo), (&b"/"[..], Some(&b"q"[..]), true));
        assert_eq!(t.authority, Some(Authority { host: "h", port: Some(81) }));
        assert_eq!(t.scheme, Some(Scheme::Http));
        assert_eq!(Target::parse(b"HTTPS://h/p", false).scheme, Some(Scheme::Https));
        assert_eq!(Target::parse(b"*", false).path, b"*");
        assert_eq!(Target::parse(b"", false).path, b"");
        let t = Target::parse(b"h:443", true);
        assert_eq!((t.path, t.authority), (&b""[..], Some(Authority { host: "h", port: Some(443) })));
        // The target of an origin-form request may hold a URL; it is not the authority.
        assert_eq!(Target::parse(b"/r?u=http://x/", false).authority, None);
    }

    #[test]
    fn secret_values_are_replaced() {
        let r = Redactor::new(&["sig".into(), "X-Amz-Signature".into()]);
        for (query, want) in [
            ("a=1&b=2", "a=1&b=2"),
            ("sig=abc", "sig=REDACTED"),
            ("a=1&SIG=abc&b=2", "a=1&SIG=REDACTED&b=2"),
            ("a=1;sig=abc;b", "a=1;sig=REDACTED;b"),
            ("x-amz-signature=a=b=c&z=", "x-amz-signature=REDACTED&z="),
            ("s%69g=abc", "s%69g=REDACTED"),
            ("sig", "sig"),
            ("sig=", "sig=REDACTED"),
            ("sig=é&sig=x", "sig=REDACTED&sig=REDACTED"),
            ("%=&%zz=%&sig=%", "%=&%zz=%&sig=REDACTED"),
        ] {
            assert_eq!(r.redact(query.as_bytes()), want);
        }
        let long = format!("{}&sig=secret", "a".repeat(MAX_PART - 10));
        assert!(!r.redact(long.as_bytes()).contains("secret"));
        assert_eq!(r.redact(&[0xff; 5000]).chars().count(), MAX_PART);
    }
}
