//! What the Collector's debug exporter printed (`verbosity: normal`).
//!
//! In: its lines. Out: spans and series as far as these lines tell.

use std::collections::BTreeMap;

/// One printed span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Attributes of its resource; a value with a blank in it is cut there.
    pub resource: BTreeMap<String, String>,
    /// Its own attributes, likewise.
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// Whether it is of a server: only those have `url.path`, and clients `url.full`.
    pub fn is_server(&self) -> bool {
        self.attributes.contains_key("url.path")
    }

    /// Whether it is of a client.
    pub fn is_client(&self) -> bool {
        self.attributes.contains_key("url.full")
    }
}

/// The spans in `lines`, in their order.
pub fn spans<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Span> {
    let mut resource = BTreeMap::new();
    let mut spans = Vec::new();
    for line in lines {
        if line.starts_with("ResourceTraces #") {
            resource = attributes(line.split(' ').skip(2));
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let ids =
            words.windows(2).position(|pair| matches!(pair, [trace, span] if is_id(trace, 32) && is_id(span, 16)));
        let Some(at) = ids else { continue };
        spans.push(Span {
            name: words.get(..at).unwrap_or_default().join(" "),
            resource: resource.clone(),
            attributes: attributes(words.iter().skip(at + 2).copied()),
        });
    }
    spans
}

/// The highest count of a histogram's series, by the text between the braces.
pub fn counts<'a>(lines: impl IntoIterator<Item = &'a str>, metric: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let series = line.strip_prefix(metric).and_then(|rest| rest.strip_prefix('{')?.split_once("} count="));
        let Some((series, rest)) = series else { continue };
        let count = rest.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let highest: &mut u64 = counts.entry(series.to_owned()).or_default();
        *highest = count.max(*highest);
    }
    counts
}

fn is_id(word: &str, digits: usize) -> bool {
    word.len() == digits && word.bytes().all(|b| b.is_ascii_hexdigit())
}

fn attributes<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    words.filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn reads_what_the_debug_exporter_prints() {
        let text = "Traces\t{\"spans\": 2}\nResourceTraces #0 [https://x] service.name=nginx host.name=h\nScopeTraces #0 spantap\n\
            GET /a 0123456789abcdef0123456789abcdef 0123456789abcdef url.path=/a http.request.method=GET\n\
            GET 0123456789abcdef0123456789abcdef 0123456789abcde0 url.full=http://h:1/a\nno span\n";
        let spans = spans(text.lines());
        assert_eq!(spans.len(), 2);
        assert_eq!((spans[0].name.as_str(), spans[0].is_server(), spans[0].is_client()), ("GET /a", true, false));
        assert_eq!(spans[0].resource.get("service.name").unwrap(), "nginx");
        assert_eq!((spans[1].name.as_str(), spans[1].is_client()), ("GET", true));
    }

    #[test]
    fn the_highest_count_of_each_series_counts() {
        let text = "m{a=1,b=2} count=3 sum=0.5 le1=3 0\nm{a=1,b=2} count=7 sum=1\nmore{a=1} count=9\nm{} count=1\n";
        assert_eq!(counts(text.lines(), "m"), BTreeMap::from([("a=1,b=2".to_owned(), 7), (String::new(), 1)]));
    }
}
