//! In: `routes`, and `routes` of a discovery entry. Out: path patterns, and what becomes of the paths that none matches.

use crate::{
    error::ConfigError,
    given::Given,
    settings::Settings,
    types::{IgnoreMode, Routes, ServiceRoutes, Unmatched},
};

/// Patterns of one list at most: each is tried for each request.
const MOST_PATTERNS: usize = 1000;
/// Bytes of a pattern at most; a longer one could not match what is kept of a path.
const MOST_BYTES: usize = 1024;
/// Bytes of the patterns of one list of a discovery entry: the agent tells them with each process.
const MOST_OF_SERVICE: usize = 8192;
/// Different segments of one position at most, whatever is asked for.
const MOST_SEGMENTS: usize = 1000;

/// Reads `routes`. Without the section, as in Beyla, routes are found by the heuristic.
pub(crate) fn routes(settings: &Settings<'_>) -> Result<Routes, ConfigError> {
    const UNMATCHED: [(&str, Unmatched); 5] = [
        ("unset", Unmatched::Unset),
        ("path", Unmatched::Path),
        ("wildcard", Unmatched::Wildcard),
        ("heuristic", Unmatched::Heuristic),
        ("low-cardinality", Unmatched::LowCardinality),
    ];
    const MODES: [(&str, IgnoreMode); 3] =
        [("all", IgnoreMode::All), ("traces", IgnoreMode::Traces), ("metrics", IgnoreMode::Metrics)];
    let mut routes = Routes { unmatched: Unmatched::Heuristic, ..Routes::default() };
    if let Some(given) = settings.get("routes.patterns") {
        routes.patterns = patterns(&given)?;
    }
    if let Some(given) = settings.get("routes.ignored_patterns") {
        routes.ignored = patterns(&given)?;
    }
    if let Some(given) = settings.get("routes.ignore_mode") {
        routes.ignore_mode = given.word(&MODES)?;
    }
    if let Some(given) = settings.get("routes.unmatched") {
        routes.unmatched = given.word(&UNMATCHED)?;
    }
    if let Some(given) = settings.get("routes.wildcard_char") {
        let mut characters = given.text()?.chars();
        routes.wildcard = match (characters.next(), characters.next()) {
            (Some(one), None) if one.is_ascii_graphic() && one != '/' => one,
            _ => return Err(given.invalid("a single character such as \"*\", not a slash")),
        };
    }
    if let Some(given) = settings.get("routes.max_path_segment_cardinality") {
        routes.max_segments = given.number(1, MOST_SEGMENTS)?;
    }
    Ok(routes)
}

/// Reads `routes` of a discovery entry.
pub(crate) fn of_service(given: &Given<'_>) -> Result<ServiceRoutes, ConfigError> {
    let mut routes = ServiceRoutes::default();
    for (entry, value) in given.entries()? {
        let place = match entry.key.as_str() {
            "incoming" => &mut routes.incoming,
            "outgoing" => &mut routes.outgoing,
            _ => {
                return Err(ConfigError::UnknownKey {
                    place: given.at(entry.key_at),
                    key: value.key.clone(),
                    hint: Some("known here: incoming or outgoing".to_owned()),
                });
            }
        };
        if !value.is_null() {
            *place = patterns(&value)?;
            if place.iter().map(String::len).sum::<usize>() > MOST_OF_SERVICE {
                return Err(value.invalid_as("a longer list", &format!("at most {MOST_OF_SERVICE} bytes of patterns")));
            }
        }
    }
    Ok(routes)
}

fn patterns(given: &Given<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(items) = given.nodes() else { return Err(given.invalid("a list of path patterns")) };
    if items.len() > MOST_PATTERNS {
        return Err(given.invalid_as(&format!("{} patterns", items.len()), &format!("at most {MOST_PATTERNS}")));
    }
    let mut patterns = Vec::with_capacity(items.len());
    for item in items {
        let pattern = item.text()?;
        if !pattern.starts_with('/') || pattern.len() > MOST_BYTES {
            let expected = format!("a path pattern such as /user/{{id}} or /static/*, at most {MOST_BYTES} bytes");
            return Err(item.invalid(&expected));
        }
        patterns.push(pattern.to_owned());
    }
    Ok(patterns)
}
