//! Whether a segment of a path is a word of its program, or something that varies from request to request.
//!
//! In: one segment. Out: yes or no, by rules on its characters alone (docs/routes.md). The rules err towards "varies":
//! a word that is taken for an id costs detail, an id that is taken for a word costs a series.

/// Segments with digits that are words all the same.
#[rustfmt::skip]
const WITH_DIGITS: &[&str] = &[
    "oauth1", "oauth2", "s3", "web3", "ipv4", "ipv6", "http2", "http3", "mp3", "mp4", "base64", "md5", "sha1", "sha256", "sha512", "utf8",
    "k8s", "i18n", "l10n", "a11y", "2fa", "u2f", "p2p", "b2b", "b2c", "h2", "gzip2", "log4j",
];

/// Longest segment and longest piece of it that may be words, in bytes.
const LONGEST: usize = 64;
const LONGEST_PIECE: usize = 24;

/// Whether `segment` is a word, or several joined by `-`, `_`, `.` or by capitals.
pub fn is_word(segment: &[u8]) -> bool {
    if segment.is_empty() {
        return true; // of a doubled or a final slash
    }
    let Ok(text) = std::str::from_utf8(segment) else { return false };
    if text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return false;
    }
    // An id of hexadecimal letters alone, whose pieces might pass for words.
    if text.len() >= 8 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return false;
    }
    text.split(['-', '_', '.']).all(is_piece)
}

fn is_piece(piece: &str) -> bool {
    if piece.bytes().any(|b| b.is_ascii_digit()) {
        return is_version(piece) || WITH_DIGITS.iter().any(|known| known.eq_ignore_ascii_case(piece));
    }
    // What `getUserById` is made of; an id of mixed case falls into many short parts.
    let parts: Vec<&str> = camel(piece).collect();
    if parts.len() >= 3 && 2 * piece.len() < 5 * parts.len() {
        return false;
    }
    parts.into_iter().all(is_lowercase_word)
}

/// `v1`, `v2beta1`, `v1alpha`
fn is_version(piece: &str) -> bool {
    let Some(rest) = piece.strip_prefix(['v', 'V']) else { return false };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, stage) = rest.split_at(digits);
    let stage = ["alpha", "beta", "rc"].iter().find_map(|name| stage.strip_prefix(name)).unwrap_or(stage);
    (1..=3).contains(&number.len()) && stage.len() <= 2 && stage.bytes().all(|b| b.is_ascii_digit())
}

/// Cuts before each capital that follows a small letter.
fn camel(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let small_then_capital =
            |pair: &[u8]| matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase());
        let end = bytes.windows(2).position(small_then_capital).map_or(rest.len(), |at| at + 1);
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

/// Whether letters could be spoken: vowels and consonants take turns, and pairs that no language has are rare.
fn is_lowercase_word(part: &str) -> bool {
    const MOST_IN_A_ROW: usize = 5;
    if part.len() > LONGEST_PIECE {
        return false;
    }
    if part.len() <= 3 {
        return true;
    }
    let letters = part.bytes().map(|b| b.to_ascii_lowercase());
    let vowel = |b: u8| b"aeiouy".contains(&b);
    let (mut vowels, mut in_a_row, mut odd, mut before) = (0_usize, 0_usize, 0_usize, None);
    for letter in letters {
        vowels += usize::from(vowel(letter));
        in_a_row = if before.is_some_and(|b| vowel(b) == vowel(letter)) { in_a_row + 1 } else { 1 };
        if in_a_row > MOST_IN_A_ROW {
            return false;
        }
        odd += usize::from(before.is_some_and(|b| is_odd(b, letter)));
        before = Some(letter);
    }
    // Short words without vowels are abbreviations: html, grpc, xml.
    let spoken = part.len() <= 5 || vowels * 9 >= part.len();
    spoken && odd <= usize::from(part.len() >= 6 || vowels == 0)
}

/// Pairs of letters that hardly stand in a word.
fn is_odd(first: u8, second: u8) -> bool {
    match first {
        b'q' => second != b'u' && second != b'l',
        b'j' => !b"aeious".contains(&second),
        b'v' => !b"aeiouyrlvnp".contains(&second),
        b'x' => !b"aeiouyctphlmx".contains(&second),
        b'z' => !b"aeiouyzhlwi".contains(&second),
        b'w' => b"jqvxz".contains(&second),
        b'k' | b'g' | b'f' | b'p' | b'b' | b'c' | b'm' | b'h' | b'd' | b't' => b"jqxzv".contains(&second),
        _ => b"qjx".contains(&first) && b"qjx".contains(&second),
    }
}

#[cfg(test)]
mod tests {
    use super::is_word;

    #[test]
    fn words_of_programs() {
        for word in [
            "",
            "api",
            "v1",
            "v2beta1",
            "users",
            "getUserById",
            "health",
            "index.html",
            "main.css",
            "order-items",
            "oauth2",
            "graphql",
            "html",
            "grpc",
            "xml",
            "checkout",
            "rhythm",
            "strengths",
            "queue",
            "admin",
            "wp-login.php",
            "favicon.ico",
            "robots.txt",
            "subscriptions",
            "authentication",
            "internationalization",
            ".well-known",
            "openid-configuration",
            "jwks.json",
            "SOAP",
            "sitemap.xml",
            "application_settings",
            "k8s",
            "swagger-ui",
            "actuator",
            "prometheus",
            "metrics",
            "wishlist",
            "ListBuckets",
            "PutObject",
            "pkg.Service",
            "advertisements",
            "request",
            "quickstart",
            "exchange",
            "example",
        ] {
            assert!(is_word(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn ids() {
        for id in [
            "7",
            "123456",
            "user7",
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            "deadbeef",
            "facadefeed",
            "507f1f77bcf86cd799439011",
            "CfMkAGbE_aivhFydEpaRafPuGWbmHfG",
            "C2fMkAGb3E_aivhFyd5EpaRafP123uGWbmHfG",
            "dQw4w9WgXcQ",
            "eyJhbGciOiJIUzI1NiJ9",
            "2024-01-01",
            "10.0.0.1",
            "a%20b",
            "caf\u{e9}",
            "x@y.com",
            "main.3f4a9c.js",
            "xkcdqzvbnm",
            "qwrtpsdfg",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "a,b",
            "~root",
            "WkQzRgHj",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "1.2.3",
            "page=2",
            "+4915112345",
            "abc-123",
        ] {
            assert!(!is_word(id.as_bytes()), "{id}");
        }
        assert!(!is_word(b"\xff"));
    }
}
