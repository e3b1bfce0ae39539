//! `http.route` from configured patterns. Without a pattern there is no route: a path is never made one
//! (semantic conventions: the URI path can not substitute it).
//!
//! In: patterns such as `/user/{id}`, `/user/:id`, `/static/*`; paths. Out: the first pattern that matches.

#[derive(Debug)]
enum Segment {
    Literal(String),
    /// `{name}`, `:name`, or `*` before the end: one segment that is not empty.
    One,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    segments: Vec<Segment>,
    /// Ends in `*`: whatever follows, empty included.
    open: bool,
}

/// The configured patterns, taken apart.
#[derive(Debug, Default)]
pub struct Routes {
    patterns: Vec<Pattern>,
}

impl Routes {
    /// Compiles `patterns`; their order is kept.
    pub fn new(patterns: &[String]) -> Self {
        let compile = |text: &String| {
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
            Pattern { text: text.clone(), segments, open }
        };
        Self { patterns: patterns.iter().map(compile).collect() }
    }

    /// Index of the first pattern that matches `path`.
    pub fn find(&self, path: &[u8]) -> Option<RouteId> {
        let at = self.patterns.iter().position(|p| p.matches(path))?;
        u32::try_from(at).ok().map(RouteId)
    }

    /// The pattern as the user wrote it.
    pub fn text(&self, id: RouteId) -> &str {
        self.patterns.get(id.0 as usize).map_or("", |p| p.text.as_str())
    }
}

/// A configured pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteId(pub u32);

fn split(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/')
}

impl Pattern {
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
        let next = parts.next();
        if self.open { next.is_some() } else { next.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route<'a>(routes: &'a Routes, path: &str) -> Option<&'a str> {
        routes.find(path.as_bytes()).map(|id| routes.text(id))
    }

    #[test]
    fn first_match_wins() {
        let r =
            Routes::new(&["/user/me", "/user/{id}", "/user/:id/posts", "/static/*", "/a/*/c", "/"].map(String::from));
        assert_eq!(route(&r, "/user/me"), Some("/user/me"));
        assert_eq!(route(&r, "/user/7"), Some("/user/{id}"));
        assert_eq!(route(&r, "/user/7/posts"), Some("/user/:id/posts"));
        assert_eq!(route(&r, "/user/"), None);
        assert_eq!(route(&r, "/user/7/"), None);
        assert_eq!(route(&r, "/static/"), Some("/static/*"));
        assert_eq!(route(&r, "/static/a/b.css"), Some("/static/*"));
        assert_eq!(route(&r, "/static"), None);
        assert_eq!(route(&r, "/a/b/c"), Some("/a/*/c"));
        assert_eq!(route(&r, "/a/b/d"), None);
        assert_eq!(route(&r, "/"), Some("/"));
        assert_eq!(route(&r, ""), Some("/"));
        assert_eq!(route(&r, "/other"), None);
    }

    #[test]
    fn no_patterns_no_route() {
        assert_eq!(Routes::new(&[]).find(b"/x"), None);
        let all = Routes::new(&["/*".into()]);
        assert!(all.find(b"/").is_some() && all.find(b"/x/y").is_some());
    }
}
