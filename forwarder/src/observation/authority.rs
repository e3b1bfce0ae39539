//! `host[:port]` as it stands in `Host`, `X-Forwarded-Host`, `Forwarded` and request targets (RFC 3986 section 3.2).
//!
//! In: untrusted bytes. Out: host and port that look like such, or nothing.

/// Longest host name that is taken, in bytes (RFC 1035 section 3.1.2: 253 and a final dot).
const MAX_HOST: usize = 254;

/// A host and, where given, a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Name or address; IPv6 without brackets.
    pub host: &'a str,
    /// As given; `None` if absent.
    pub port: Option<u16>,
}

/// Splits `bytes`; user information (`user:password@`) is dropped. `None` if it is no host.
pub fn parse(bytes: &[u8]) -> Option<Authority<'_>> {
    let text = std::str::from_utf8(bytes).ok()?.trim_matches([' ', '\t']);
    let text = text.rsplit_once('@').map_or(text, |(_, after)| after);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            if !host.contains(':') {
                return None;
            }
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            // A bare IPv6 address is not allowed here, but some send it: it has more than one colon.
            Some((_, after)) if after.contains(':') => (text.parse::<std::net::Ipv6Addr>().ok().map(|_| text)?, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let valid = !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(is_host_byte);
    if !valid {
        return None;
    }
    let port = match port {
        None | Some("") => None, // RFC 3986: an empty port is as none
        Some(p) => Some(p.parse::<u16>().ok().filter(|p| *p != 0)?),
    };
    Some(Authority { host, port })
}

/// Characters of a registered name and of an IP literal (RFC 3986 section 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    // Ranges, not a list to search: this runs over every `Host`.
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'&'..=b'.' | b':' | b';' | b'=' | b'_' | b'~' | b'%' | b'!' | b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (given, host, port) in [
            ("example.com", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            (" example.com: ", "example.com", None),
            ("[::1]", "::1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("2001:db8::1", "2001:db8::1", None),
            ("user:pa@ss@h:1", "h", Some(1)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
        ] {
            assert_eq!(parse(given.as_bytes()), Some(Authority { host, port }), "{given}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for given in
            ["", ":80", "a b", "a/b", "h:0", "h:65536", "h:x", "[::1", "[::1]x", "[abc]", "a:b:c", "h\u{0}", "é", "@"]
        {
            assert_eq!(parse(given.as_bytes()), None, "{given:?}");
        }
        assert_eq!(parse(b"\xff"), None);
        assert_eq!(parse("a".repeat(255).as_bytes()), None);
    }
}
