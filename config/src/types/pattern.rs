//! In: a glob or a regular expression as the user wrote it. Out: a compiled matcher.

use globset::GlobBuilder;
use regex::{Regex, RegexBuilder, bytes};

/// Most characters of a pattern; its compiled form is bounded by [`MOST_COMPILED`].
const MOST_CHARACTERS: usize = 4096;
/// Most bytes of a compiled regular expression.
const MOST_COMPILED: usize = 1 << 20;

/// A compiled glob with the syntax that Beyla uses: `*` `?` `[a-z]` `[!a]` `{a,b}` and `\` as escape;
/// no character is special to `*`, so `*nginx` matches `/usr/sbin/nginx`.
///
/// The legacy sections of Beyla (`discovery.services`, `executable_name`) give regular expressions in the place of globs;
/// they are of this type, too, so that whoever matches need not know.
#[derive(Clone)]
pub struct Glob {
    /// As the user wrote it.
    pub pattern: String,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Glob(bytes::Regex),
    Regex(Regex),
}

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PatternError {
    /// What is wrong with it, on one line.
    pub reason: String,
}

impl std::fmt::Debug for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The compiled form would fill pages.
        f.debug_tuple(if self.is_regex() { "Regex" } else { "Glob" }).field(&self.pattern).finish()
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.is_regex() == other.is_regex()
    }
}

impl Glob {
    /// Compiles a glob. Fails on an unclosed class or alternative, above 4096 characters, and on what is nested too deeply.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        bounded(pattern)?;
        let glob = GlobBuilder::new(&single_stars(pattern))
            .literal_separator(false)
            .backslash_escape(true)
            .empty_alternates(true)
            .build()
            .map_err(|error| PatternError { reason: error.kind().to_string() })?;
        // Compiled here, because `compile_matcher` of the crate panics where the expression is too much for the engine.
        let matcher = bytes::RegexBuilder::new(glob.regex())
            .dot_matches_new_line(true)
            .size_limit(MOST_COMPILED)
            .build()
            .map_err(|_| PatternError { reason: "too large or nested too deeply".to_owned() })?;
        Ok(Self { pattern: pattern.to_owned(), matcher: Matcher::Glob(matcher) })
    }

    /// Compiles a regular expression, which matches anywhere in a text unless it is anchored. Fails on bad syntax, and on what would
    /// need more than a mebibyte.
    pub fn from_regex(pattern: &str) -> Result<Self, PatternError> {
        bounded(pattern)?;
        let regex = RegexBuilder::new(pattern).size_limit(MOST_COMPILED).build().map_err(|error| PatternError {
            // The message of a syntax error draws the pattern over several lines; its last line says what is wrong.
            reason: error.to_string().lines().last().unwrap_or("not a regular expression").trim().to_owned(),
        })?;
        Ok(Self { pattern: pattern.to_owned(), matcher: Matcher::Regex(regex) })
    }

    /// Whether `text` matches: as a whole for a glob, anywhere for a regular expression.
    pub fn matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.is_match(text.as_bytes()),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }

    /// Whether it was made from a regular expression.
    pub fn is_regex(&self) -> bool {
        matches!(self.matcher, Matcher::Regex(_))
    }
}

fn bounded(pattern: &str) -> Result<(), PatternError> {
    if pattern.chars().count() > MOST_CHARACTERS {
        return Err(PatternError { reason: format!("longer than {MOST_CHARACTERS} characters") });
    }
    Ok(())
}

/// Without separators `**` means what `*` means; the crate would take it as "any directories".
fn single_stars(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut escaped = false;
    let mut star = false;
    for c in pattern.chars() {
        if star && c == '*' {
            continue;
        }
        star = c == '*' && !escaped;
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Glob;

    #[test]
    fn globs_match_as_in_beyla() {
        for (pattern, yes, no) in [
            ("*nginx", vec!["/usr/sbin/nginx", "nginx"], vec!["/usr/sbin/nginx-debug", ""]),
            ("/usr/*/nginx", vec!["/usr/sbin/nginx", "/usr/a/b/nginx"], vec!["/usr/nginx", "/opt/usr/x/nginx"]),
            ("{*java,*node}", vec!["/bin/java", "node"], vec!["nodejs"]),
            ("{a,{b,c}}*", vec!["a", "bx", "c"], vec!["d"]),
            ("?[a-c][!x]", vec!["zby", "/c/"], vec!["zbx", "zdy", "by"]),
            ("a\\*b", vec!["a*b"], vec!["axb"]),
            ("**/x", vec!["a/x", "a/b/x", "/x"], vec!["x"]),
            ("a/**/b", vec!["a/x/b", "a//b"], vec!["a/b"]),
            ("*", vec!["", "/a b\nc", "ä"], vec![]),
            ("ä?", vec!["äb"], vec!["ä"]),
            ("a.b+(c)^$", vec!["a.b+(c)^$"], vec!["axb+(c)^$"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            yes.iter().for_each(|text| assert!(glob.matches(text), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!glob.matches(text), "{pattern} {text}"));
        }
    }

    #[test]
    fn patterns_that_mean_nothing_or_too_much_are_refused() {
        for pattern in ["[", "{a", "a}", "[z-a]", "\\"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
        assert!(Glob::new(&"*".repeat(5000)).is_err());
        assert!(Glob::new(&format!("{}a{}", "{".repeat(1000), "}".repeat(1000))).is_err());
        assert!(Glob::from_regex("(a{1000}){1000}").is_err());
        assert_eq!(Glob::from_regex("(a").unwrap_err().reason, "error: unclosed group");
    }
}
