//! Routes of one service, from the paths that it is asked for.
//!
//! In: paths that no pattern matches, with whether they were found. Out: one of at most [`ROUTES`] routes, and `/**`,
//! whatever paths come. What was answered with 404 teaches nothing: strangers looking for holes do not use up the room.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use spantap_config::{Routes as Configured, Unmatched};

use super::{RouteId, names::Names, pattern::split, words::is_word};
use crate::value::text;

/// Routes of a service at most, beside `/**`.
pub const ROUTES: usize = 500;
/// Segments that are looked at; what follows is `**`.
const DEPTH: usize = 10;
/// Different words in one position, beyond which the position varies (heuristic).
const WORDS: usize = 100;
/// Longest path that is a route itself (`path`), in bytes.
const LONGEST_PATH: usize = 512;
/// What fits everything.
const ANYTHING: &str = "/**";

/// What was learned of a service.
#[derive(Debug)]
pub struct Learned {
    names: Arc<Names>,
    unmatched: Unmatched,
    wildcard: char,
    most: usize,
    root: Node,
    given: usize,
}

#[derive(Debug, Default)]
struct Node {
    words: FxHashMap<Box<str>, Node>,
    /// For segments that vary.
    any: Option<Box<Node>>,
    /// So many words came that this position varies.
    varies: bool,
    route: Option<RouteId>,
}

impl Node {
    fn count(&self) -> usize {
        1 + self.words.values().map(Self::count).sum::<usize>() + self.any.as_ref().map_or(0, |any| any.count())
    }
}

impl Learned {
    /// Nothing learned yet; `of` says what to do with paths.
    pub fn new(of: &Configured, names: Arc<Names>) -> Self {
        let most = if of.unmatched == Unmatched::LowCardinality { of.max_segments } else { WORDS };
        Self { names, unmatched: of.unmatched, wildcard: of.wildcard, most, root: Node::default(), given: 0 }
    }

    /// Whether what was learned holds under `of`, too.
    pub fn serves(&self, of: &Configured) -> bool {
        let new = Self::new(of, self.names.clone());
        (self.unmatched, self.wildcard, self.most) == (new.unmatched, new.wildcard, new.most)
    }

    /// Route of `path`; `found`: the service knew it (no 404).
    pub fn route(&mut self, path: &[u8], found: bool) -> Option<RouteId> {
        // `OPTIONS *`, CONNECT: there is no path.
        if path.first() != Some(&b'/') {
            return None;
        }
        match self.unmatched {
            Unmatched::Unset => None,
            Unmatched::Wildcard => self.anything(),
            Unmatched::Path => self.as_it_is(path, found),
            Unmatched::Heuristic | Unmatched::LowCardinality => self.reduced(path, found),
        }
    }

    fn anything(&self) -> Option<RouteId> {
        self.names.id(ANYTHING)
    }

    fn as_it_is(&mut self, path: &[u8], found: bool) -> Option<RouteId> {
        let path = text(path, LONGEST_PATH);
        if let Some(known) = self.root.words.get(&*path) {
            return known.route;
        }
        if !found || self.given >= ROUTES || !self.names.take_node() {
            return self.anything();
        }
        self.given += 1;
        let route = self.names.id(&path).or_else(|| self.anything());
        self.root.words.insert(path.into(), Node { route, ..Node::default() });
        route
    }

    fn reduced(&mut self, path: &[u8], found: bool) -> Option<RouteId> {
        let mut node = &mut self.root;
        let mut taken: [Option<&str>; DEPTH] = [None; DEPTH];
        let mut depth = 0;
        for segment in split(path).take(DEPTH) {
            let word = std::str::from_utf8(segment).ok();
            // Looked up before it is judged: most were seen before, and only words are kept.
            let known = word.is_some_and(|word| node.words.contains_key(word));
            let word = match word.filter(|_| known || !node.varies && is_word(segment)) {
                Some(word) if known => Some(word),
                Some(_) if !found => return self.names.id(ANYTHING),
                Some(word) if node.words.len() < self.most => {
                    if !self.names.take_node() {
                        return self.names.id(ANYTHING);
                    }
                    node.words.insert(word.into(), Node::default());
                    Some(word)
                }
                Some(_) => {
                    // One too many: from now on all of them are one.
                    self.names.give_back(node.words.values().map(Node::count).sum());
                    node.words = FxHashMap::default();
                    node.varies = true;
                    None
                }
                None => None,
            };
            if let Some(place) = taken.get_mut(depth) {
                *place = word;
            }
            depth += 1;
            node = match word {
                Some(word) => node.words.get_mut(word)?,
                None => {
                    if node.any.is_none() {
                        if !found || !self.names.take_node() {
                            return self.names.id(ANYTHING);
                        }
                        node.any = Some(Box::default());
                    }
                    node.any.as_mut()?
                }
            };
        }
        let more = split(path).nth(DEPTH).is_some();
        // A path of exactly so many segments and a longer one end in the same node; the longer one is told by its own.
        if more && node.any.is_none() {
            if !found || !self.names.take_node() {
                return self.names.id(ANYTHING);
            }
            node.any = Some(Box::default());
        }
        let node = if more { node.any.as_mut()? } else { node };
        if let Some(route) = node.route {
            return Some(route);
        }
        if !found || self.given >= ROUTES {
            return self.names.id(ANYTHING);
        }
        let mut route = String::new();
        for word in taken.iter().take(depth) {
            route.push('/');
            match word {
                Some(word) => route.push_str(word),
                None => route.push(self.wildcard),
            }
        }
        if more {
            route.push_str(ANYTHING);
        }
        self.given += 1;
        node.route = self.names.id(&route).or_else(|| self.names.id(ANYTHING));
        node.route
    }
}

impl Drop for Learned {
    fn drop(&mut self) {
        // The root has no place of its own.
        self.names.give_back(self.root.count() - 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn learned(unmatched: Unmatched) -> Learned {
        Learned::new(&Configured { unmatched, ..Configured::default() }, Arc::default())
    }

    fn route(of: &mut Learned, path: &str, found: bool) -> String {
        let names = of.names.clone();
        of.route(path.as_bytes(), found).map_or(String::new(), |id| names.text(id).to_owned())
    }

    #[test]
    fn modes() {
        for (mode, want) in [
            (Unmatched::Unset, ["", "", ""]),
            (Unmatched::Path, ["/a/7", "/a/8", ""]),
            (Unmatched::Wildcard, ["/**", "/**", ""]),
            (Unmatched::Heuristic, ["/a/*", "/a/*", ""]),
            (Unmatched::LowCardinality, ["/a/*", "/a/*", ""]),
        ] {
            let mut of = learned(mode);
            assert_eq!(["/a/7", "/a/8", "*"].map(|path| route(&mut of, path, true)), want, "{mode:?}");
        }
    }

    #[test]
    fn paths_are_reduced() {
        let mut of = Learned::new(
            &Configured { unmatched: Unmatched::Heuristic, wildcard: '#', ..Configured::default() },
            Arc::default(),
        );
        for (path, want) in [
            ("/", "/"),
            ("/users/17", "/users/#"),
            ("/users/17/", "/users/#/"),
            ("/users//17", "/users//#"),
            ("/document/d/CfMkAGbE_aivhFydEpaRafPuGWbmHfG/edit", "/document/d/#/edit"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/i/j"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l", "/a/b/c/d/e/f/g/h/i/j/**"),
        ] {
            assert_eq!(route(&mut of, path, true), want);
        }
    }

    #[test]
    fn what_is_not_found_teaches_nothing() {
        let mut of = learned(Unmatched::Heuristic);
        assert_eq!(route(&mut of, "/users/7", true), "/users/*");
        assert_eq!(route(&mut of, "/users/8", false), "/users/*", "a known route of something that is not there");
        assert_eq!(route(&mut of, "/wp-login.php", false), "/**");
        assert_eq!(route(&mut of, "/users/8/edit", false), "/**");
        assert_eq!(of.given, 1);
        assert_eq!(of.root.count(), 3);
    }

    #[test]
    fn a_position_with_many_words_varies() {
        let mut of = learned(Unmatched::LowCardinality);
        let words: Vec<String> = (b'a'..=b'z').map(|c| format!("/repo/{}ork/x", char::from(c))).collect();
        let routes: Vec<String> = words.iter().map(|path| route(&mut of, path, true)).collect();
        assert_eq!(routes.iter().filter(|r| *r != "/repo/*/x").count(), 10);
        assert_eq!(route(&mut of, "/repo/aork/x", true), "/repo/*/x", "the first ones as well");
    }

    #[test]
    fn room_is_shared_and_given_back() {
        let names: Arc<Names> = Arc::default();
        let of = Configured { unmatched: Unmatched::Heuristic, ..Configured::default() };
        for _ in 0..2000 {
            let mut learned = Learned::new(&of, names.clone());
            for n in 0..90_u8 {
                let (a, b) = (char::from(b'a' + n % 26), char::from(b'a' + n / 26));
                learned.route(format!("/{a}{b}/x/y").as_bytes(), true);
            }
        }
        assert!(names.take_node(), "2000 services of 270 nodes came and went");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Whatever paths come, a service has a bounded number of routes.
        #[test]
        fn routes_are_bounded(
            seed in any::<u64>(),
            mode in prop::sample::select(vec![Unmatched::Path, Unmatched::Wildcard, Unmatched::Heuristic, Unmatched::LowCardinality]),
        ) {
            use rand::{RngExt, SeedableRng};
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let mut of = learned(mode);
            let mut routes = HashSet::new();
            let parts = ["api", "users", "Orders", "17", "", "..", "%2f", "\u{e9}", "getById", "deadbeefcafe"];
            for _ in 0..4000 {
                let mut path = String::new();
                for _ in 0..random.random_range(1..14) {
                    path.push('/');
                    match random.random_range(0..3) {
                        0 => path.push_str(parts[random.random_range(0..parts.len())]),
                        1 => path.extend((0..random.random_range(1..4)).map(|_| char::from(random.random_range(b'a'..=b'z')))),
                        _ => path.extend((0..random.random_range(1..9)).map(|_| char::from(random.random_range(b' '..=b'~')))),
                    }
                }
                let found = random.random_range(0..10) > 0;
                let id = of.route(path.as_bytes(), found).unwrap();
                routes.insert(id);
            }
            prop_assert!(routes.len() <= ROUTES + 1, "{}", routes.len());
            prop_assert_eq!(of.names.text(*routes.iter().next().unwrap()).chars().next(), Some('/'));
        }

        #[test]
        fn any_bytes_are_taken(path in prop::collection::vec(any::<u8>(), 0..300), found: bool) {
            let mut of = learned(Unmatched::Heuristic);
            let route = of.route(&path, found);
            prop_assert_eq!(route.is_some(), path.first() == Some(&b'/'));
        }
    }
}
