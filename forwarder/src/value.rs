//! Values of attributes and what makes captured bytes fit to be one.
//!
//! In: bytes from outside. Out: bounded, valid UTF-8. One invalid byte makes a receiver refuse a whole OTLP request.

use std::{borrow::Cow, fmt::Write, net::IpAddr};

/// Value of an attribute of a metric or a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text.
    Str(Cow<'a, str>),
    /// Signed integer.
    Int(i64),
    /// Boolean.
    Bool(bool),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Str(v) => f.write_str(v),
            Value::Int(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
        }
    }
}

/// At most the first `max` bytes of `bytes` as text, never cut inside a character; invalid sequences become U+FFFD.
pub fn text(bytes: &[u8], max: usize) -> Cow<'_, str> {
    let mut end = max.min(bytes.len());
    if end < bytes.len() {
        // A character is at most four bytes: step back over its continuation bytes.
        for _ in 0..3 {
            if bytes.get(end).is_some_and(|b| b & 0xc0 == 0x80) && end > 0 {
                end -= 1;
            }
        }
    }
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
}

/// An IP address as text, without an allocation.
#[derive(Clone, Copy)]
pub struct IpText {
    bytes: [u8; 45], // longest: an IPv4-mapped IPv6 address in full
    len: usize,
}

impl IpText {
    /// Text of `address`, in the form of RFC 5952 for IPv6.
    pub fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 45], len: 0 };
        match address {
            // On every exchange: the formatting machinery of the standard library takes five times as long.
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        text.push(b'.');
                    }
                    if octet >= 100 {
                        text.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        text.push(b'0' + octet / 10 % 10);
                    }
                    text.push(b'0' + octet % 10);
                }
            }
            // Cannot fail: 45 bytes hold every address.
            IpAddr::V6(_) => {
                let _ = write!(text, "{address}");
            }
        }
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.bytes.get(..self.len).unwrap_or_default()).unwrap_or_default()
    }
}

impl Write for IpText {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let end = self.len + s.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl std::fmt::Debug for IpText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(text("aé".as_bytes(), 2), "a");
        assert_eq!(text("aé".as_bytes(), 3), "aé");
        assert_eq!(text("a😀b".as_bytes(), 4), "a");
        assert_eq!(text("a😀b".as_bytes(), 5), "a😀");
        assert_eq!(text(b"a\xffb", 9), "a\u{fffd}b");
        assert_eq!(text(b"\x80\x80\x80\x80\x80", 1).chars().count(), 0);
    }

    #[test]
    fn longest_addresses_fit() {
        for a in [
            "255.255.255.255",
            "0.0.0.0",
            "1.20.100.9",
            "10.0.205.110",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:255.255.255.255",
            "::1",
        ] {
            let ip: IpAddr = a.parse().expect("address");
            assert_eq!(IpText::new(ip).as_str(), a);
        }
    }
}
