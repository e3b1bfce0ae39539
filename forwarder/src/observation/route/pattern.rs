//! Path patterns as Beyla has them.
//!
//! In: patterns such as `/user/{id}`, `/user/:id`, `/static/*`; paths. Out: the first pattern that matches.

use super::{RouteId, names::Names};

#[derive(Debug)]
enum Segment {
    Literal(String),
    /// `{name}`, `:name`, or `*` before the end: one segment that is not empty.
    One,
}

#[derive(Debug)]
struct Pattern {
    id: Option<RouteId>,
    segments: Vec<Segment>,
    /// Ends in `*`: whatever follows, nothing included, as in Beyla.
    open: bool,
}

/// Patterns, taken apart; their order is kept.
#[derive(Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

impl Patterns {
    /// Compiles `patterns`, whose texts become names.
    pub fn new(patterns: &[String], names: &Names) -> Self {
        Self { patterns: patterns.iter().map(|text| Pattern::new(text, names.id(text))).collect() }
    }

    /// The same where nobody asks for a name.
    pub fn nameless(patterns: &[String]) -> Self {
        Self { patterns: patterns.iter().map(|text| Pattern::new(text, None)).collect() }
    }

    /// The first pattern that matches `path`; within it, its name, if there was room for it.
    pub fn find(&self, path: &[u8]) -> Option<Option<RouteId>> {
        self.patterns.iter().find(|pattern| pattern.matches(path)).map(|pattern| pattern.id)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

pub(super) fn split(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/')
}

impl Pattern {
    fn new(text: &str, id: Option<RouteId>) -> Self {
        let mut segments: Vec<_> = split(text.as_bytes())
            .map(|s| match s {
                b"*" => Segment::One,
                [b'{', .., b'}'] | [b':', _, ..] => Segment::One,
                literal => Segment::Literal(String::from_utf8_lossy(literal).into_owned()),
            })
            .collect();
        let open = text.ends_with("/*") || text == "*";
        if open {
            segments.pop();
        }
        Self { id, segments, open }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let mut parts = split(path);
        for segment in &self.segments {
            let Some(part) = parts.next() else { return false };
            let same = match segment {
                Segment::Literal(text) => text.as_bytes() == part,
                Segment::One => !part.is_empty(),
            };
            if !same {
                return false;
            }
        }
        self.open || parts.next().is_none()
    }
}
