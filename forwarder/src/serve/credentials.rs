//! Who may ask: Basic authentication (RFC 7617).
//!
//! In: a user name and a password, later `Authorization` fields. Out: whether they agree, in a time that does not tell how far.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

/// What a request must bring. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Credentials(Vec<u8>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Credentials {
    /// `username` has no colon.
    pub fn new(username: &str, password: &str) -> Self {
        Self(format!("{username}:{password}").into_bytes())
    }

    /// Whether `field`, an `Authorization`, carries them.
    pub fn admit(&self, field: &[u8]) -> bool {
        let Some((scheme, token)) = field.split_at_checked(6) else { return false };
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return false;
        }
        // The length alone is told by the time that this takes.
        STANDARD.decode(token.trim_ascii()).is_ok_and(|given| given.ct_eq(&self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_pair_is_admitted() {
        let credentials = Credentials::new("scraper", "pa:ss");
        let field = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(credentials.admit(field("scraper:pa:ss").as_bytes()));
        assert!(credentials.admit(field("scraper:pa:ss").replace("Basic", "bAsIc ").as_bytes()));
        for pair in ["", ":", "scraper", "scraper:", "scraper:pa:sS", "scraper:pa:ss ", "Scraper:pa:ss"] {
            assert!(!credentials.admit(field(pair).as_bytes()), "{pair}");
        }
        for field in ["", "Basic", "Basic ", "Basic ====", "Bearer c2NyYXBlcjpwYTpzcw==", "\u{e9}\u{e9}\u{e9}x"] {
            assert!(!credentials.admit(field.as_bytes()), "{field}");
        }
        assert_eq!(format!("{credentials:?}"), "[redacted]");
    }
}
