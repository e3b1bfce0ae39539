//! What proxies say about the original request: `Forwarded` (RFC 7239) before `X-Forwarded-*`.
//!
//! In: untrusted field values. Out: the values of the first (outermost) element, each checked for its form.

use super::{Scheme, authority, authority::Authority};

/// Values of the first element of `Forwarded`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// `for`.
    pub client: Option<&'a str>,
    /// `host`.
    pub host: Option<Authority<'a>>,
    /// `proto`.
    pub scheme: Option<Scheme>,
}

/// Reads the first element of a `Forwarded` field.
pub fn parse(field: &[u8]) -> Forwarded<'_> {
    let mut found = Forwarded::default();
    let mut rest = field;
    loop {
        let (pair, after, last) = next_pair(rest);
        if let Some(eq) = pair.iter().position(|b| *b == b'=') {
            let name = pair.get(..eq).unwrap_or_default().trim_ascii();
            let value = unquote(pair.get(eq + 1..).unwrap_or_default().trim_ascii());
            if name.eq_ignore_ascii_case(b"for") && found.client.is_none() {
                found.client = client(value);
            } else if name.eq_ignore_ascii_case(b"host") && found.host.is_none() {
                found.host = authority::parse(value);
            } else if name.eq_ignore_ascii_case(b"proto") && found.scheme.is_none() {
                found.scheme = Scheme::parse(value);
            }
        }
        if last {
            return found;
        }
        rest = after;
    }
}

/// The pair up to the next `;`, what follows it, and whether the element ends here (`,` or end of field).
fn next_pair(field: &[u8]) -> (&[u8], &[u8], bool) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in field.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' | b',' if !quoted => {
                return (field.get(..at).unwrap_or_default(), field.get(at + 1..).unwrap_or_default(), *byte == b',');
            }
            _ => {}
        }
    }
    (field, &[], true)
}

/// Content of a quoted string without escapes; nodes, hosts and schemes need none.
fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

/// First element of a comma-separated field such as `X-Forwarded-For`.
pub fn first(field: &[u8]) -> &[u8] {
    field.split(|b| *b == b',').next().unwrap_or_default().trim_ascii()
}

/// Address of a client as proxies write it: an IP address with or without port, a name, or an obfuscated
/// identifier (RFC 7239 section 6.3). `unknown` and everything else is none.
pub fn client(value: &[u8]) -> Option<&str> {
    let found = authority::parse(value)?;
    let plain = found.host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:%".contains(&b));
    (plain && !found.host.eq_ignore_ascii_case("unknown")).then_some(found.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_element_counts() {
        let f = parse(br#"for=192.0.2.43;proto=HTTPS;host="a.example:8443", for=198.51.100.17;host=b"#);
        assert_eq!(f.client, Some("192.0.2.43"));
        assert_eq!(f.scheme, Some(Scheme::Https));
        assert_eq!(f.host, Some(Authority { host: "a.example", port: Some(8443) }));
    }

    #[test]
    fn ipv6_quoting_and_obfuscation() {
        assert_eq!(parse(br#"For="[2001:db8:cafe::17]:4711""#).client, Some("2001:db8:cafe::17"));
        assert_eq!(parse(b"for=_hidden").client, Some("_hidden"));
        assert_eq!(parse(b"for=unknown;proto=gopher"), Forwarded::default());
        assert_eq!(parse(br#"by="a,b;c";for=h"#).client, Some("h"));
        assert_eq!(parse(br#"by="\",for=x"#).client, None);
    }

    #[test]
    fn nonsense_gives_nothing() {
        for bytes in [&b""[..], b";;;", b"=", b"for", b"for=", b"for=<script>", b"\xff\xfe;for=\xff", b"\"\\"] {
            assert_eq!(parse(bytes), Forwarded::default());
        }
        assert_eq!(client(b"10.0.0.1:80"), Some("10.0.0.1"));
        assert_eq!(first(b" 1.2.3.4 , 5.6.7.8"), b"1.2.3.4");
    }
}
