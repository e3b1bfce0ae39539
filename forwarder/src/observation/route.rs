//! `http.route` and `url.template`: names of requests with little cardinality.
//!
//! In: configured patterns, paths. Out: numbers of routes and their texts; what is not to be reported.
//!
//! # Layout
//! `pattern` matches what was configured · `learned` makes routes of paths that no pattern matches, with `words` telling
//! words from ids · `names` keeps the texts.

pub mod learned;
pub mod names;
pub mod pattern;
pub mod words;

use std::sync::Arc;

use spantap_config::IgnoreMode;

use self::{names::Names, pattern::Patterns};

/// A route by its number in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteId(pub u32);

/// What of an exchange is not reported because its path is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored {
    /// No span.
    pub traces: bool,
    /// No measurement.
    pub metrics: bool,
}

/// The configured patterns of all services.
#[derive(Debug, Default)]
pub struct Routes {
    names: Arc<Names>,
    patterns: Patterns,
    ignored: Patterns,
    ignores: Ignored,
}

impl Routes {
    /// Compiles `patterns`; their order is kept. Nothing is ignored.
    pub fn new(patterns: &[String]) -> Self {
        let names = Arc::<Names>::default();
        Self { patterns: Patterns::new(patterns, &names), names, ..Self::default() }
    }

    /// As configured, with names that may be known already.
    pub fn configured(of: &spantap_config::Routes, names: Arc<Names>) -> Self {
        let (traces, metrics) = match of.ignore_mode {
            IgnoreMode::All => (true, true),
            IgnoreMode::Traces => (true, false),
            IgnoreMode::Metrics => (false, true),
        };
        Self {
            patterns: Patterns::new(&of.patterns, &names),
            ignored: Patterns::nameless(&of.ignored),
            ignores: Ignored { traces, metrics },
            names,
        }
    }

    /// The first pattern that matches `path`.
    pub fn find(&self, path: &[u8]) -> Option<RouteId> {
        self.patterns.find(path)?
    }

    /// What of a request for `path` is not reported.
    pub fn ignored(&self, path: &[u8]) -> Ignored {
        if self.ignored.find(path).is_some() { self.ignores } else { Ignored::default() }
    }

    /// The text of a route: a pattern as the user wrote it, or what was made of a path.
    pub fn text(&self, id: RouteId) -> &str {
        self.names.text(id)
    }

    /// The texts, to be shared.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
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
        assert_eq!(route(&r, "/static"), Some("/static/*"), "as in Beyla");
        assert_eq!(route(&r, "/statics"), None);
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

    #[test]
    fn ignored_as_the_mode_says() {
        for (mode, want) in
            [(IgnoreMode::All, (true, true)), (IgnoreMode::Traces, (true, false)), (IgnoreMode::Metrics, (false, true))]
        {
            let of = spantap_config::Routes {
                ignored: vec!["/health".into(), "/v1/*".into()],
                ignore_mode: mode,
                ..Default::default()
            };
            let routes = Routes::configured(&of, Arc::default());
            for (path, hit) in [("/health", true), ("/v1/x/y", true), ("/healthy", false), ("/", false)] {
                let Ignored { traces, metrics } = routes.ignored(path.as_bytes());
                assert_eq!((traces, metrics), if hit { want } else { (false, false) }, "{path}");
            }
        }
    }

    #[test]
    fn names_outlive_the_patterns() {
        let first = Routes::new(&["/a".into()]);
        let of = spantap_config::Routes { patterns: vec!["/b".into(), "/a".into()], ..Default::default() };
        let second = Routes::configured(&of, first.names().clone());
        assert_eq!(first.find(b"/a"), second.find(b"/a"), "the series go on");
        assert_eq!(
            second.find(b"/b").map(|id| first.text(id)),
            Some("/b"),
            "and who reads with the old ones sees the new"
        );
    }
}
