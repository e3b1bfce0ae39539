//! Spantap's own numbers, read from Prometheus text.
//!
//! In: the text of a scrape. Out: samples, and losses by reason.

use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name with its suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// Losses by reason, in the order of their names; reasons that stand at 0 included.
pub type Losses = BTreeMap<String, u64>;

/// The samples of a scrape. Lines that are none are left out.
pub fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    // A label's value may hold a blank, so the value is what follows the last brace.
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let end = rest.rfind('}')?;
            (name, rest.get(..end)?, rest.get(end + 1..)?)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels: read_labels(labels), value })
}

fn read_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let (mut key, mut value, mut quoted, mut escaped) = (String::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                value.push(if c == 'n' { '\n' } else { c });
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' if quoted => {
                labels.insert(std::mem::take(&mut key), std::mem::take(&mut value));
                quoted = false;
            }
            '"' => quoted = true,
            _ if quoted => value.push(c),
            '=' | ',' | ' ' => {}
            c => key.push(c),
        }
    }
    labels
}

/// Everything that Spantap says it lost, by reason.
pub fn losses(text: &str) -> Losses {
    let mut losses = Losses::new();
    // What exporters lose has metrics of its own beside, which would count twice.
    for sample in samples(text).iter().filter(|sample| sample.name.starts_with("spantap_losses")) {
        if let Some(reason) = sample.labels.get("reason") {
            *losses.entry(reason.clone()).or_default() += sample.value as u64;
        }
    }
    losses
}

/// Why requests of the program whose path ends so are not linked, or not all; empty if they are. `None`: it does not stand there in this
/// state (`linked`, `partly`, `not_linked`).
pub fn linked(text: &str, program: &str, runtime: &str, state: &str) -> Option<String> {
    let is = |sample: &Sample, key: &str, value: &str| sample.labels.get(key).is_some_and(|label| label == value);
    let ends = |sample: &Sample| sample.labels.get("executable").is_some_and(|path| path.ends_with(program));
    let found = samples(text).into_iter().find(|sample| {
        sample.name == "spantap_agent_links_programs"
            && ends(sample)
            && is(sample, "runtime", runtime)
            && is(sample, "state", state)
            && sample.value == 1.0
    });
    found.and_then(|sample| sample.labels.get("reason").cloned())
}

/// Spans that have no parent, by reason.
pub fn unlinked(text: &str) -> Losses {
    let of_links = samples(text).into_iter().filter(|sample| sample.name == "spantap_links_none_total");
    of_links.filter_map(|sample| Some((sample.labels.get("reason")?.clone(), sample.value as u64))).collect()
}

/// Spans that were made and then lost on their way out.
pub fn spans_lost(text: &str) -> u64 {
    let of_traces =
        |s: &&Sample| s.name == "spantap_export_lost_total" && s.labels.get("signal").is_some_and(|s| s == "traces");
    samples(text).iter().filter(of_traces).map(|sample| sample.value as u64).sum()
}

/// Losses that are counted in exchanges: these and the reported ones together are what happened.
pub const EXCHANGE_LOSSES: [&str; 6] = [
    "response_not_observed",
    "request_not_observed",
    "exchange_not_observed",
    "parse_error",
    "pipeline_limit",
    "open_at_stop",
];

/// How many exchanges were lost.
pub fn exchanges(losses: &Losses) -> u64 {
    EXCHANGE_LOSSES.iter().filter_map(|reason| losses.get(*reason)).sum()
}

/// The books at stop, as the last lines of a log tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Exchanges reported at servers.
    pub server: u64,
    /// Exchanges reported at clients.
    pub client: u64,
    /// Whether Spantap itself says that its books are right.
    pub adds_up: bool,
    /// Losses by reason.
    pub losses: Losses,
}

/// Reads the line `summary: … server=S client=C …` of a log and the lines `lost reason=R count=N …` that follow it.
pub fn summary(log: &str) -> Option<Summary> {
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().rposition(|line| line.contains("summary: "))?;
    let line = lines.get(at)?;
    let lost = lines.get(at + 1..)?.iter().filter(|line| line.contains(" lost "));
    let losses = lost.filter_map(|line| Some((field(line, "reason")?.to_owned(), field(line, "count")?.parse().ok()?)));
    Some(Summary {
        server: field(line, "server")?.parse().ok()?,
        client: field(line, "client")?.parse().ok()?,
        adds_up: field(line, "adds_up")? == "true",
        losses: losses.collect(),
    })
}

/// Value of `name=value` or `name="value"` in a log line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

/// What was lost between two readings; reasons that did not move are left out.
pub fn lost_between(before: &Losses, after: &Losses) -> Losses {
    let moved =
        after.iter().map(|(reason, n)| (reason.clone(), n.saturating_sub(before.get(reason).copied().unwrap_or(0))));
    moved.filter(|(_, n)| *n > 0).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "# HELP x y\nspantap_losses_total{reason=\"ring_buffer_full\",unit=\"event\"} 7\n\
        spantap_losses_total{reason=\"parse_error\"} 0 1700000000\nplain 1.5\nq{a=\"b} \\\"c\\\"\",d=\"e\"} 2\n";

    #[test]
    fn reads_samples_and_losses() {
        let all = samples(TEXT);
        assert_eq!(all.len(), 4);
        let q = all.iter().find(|s| s.name == "q").unwrap();
        assert_eq!(
            (q.labels.get("a").unwrap().as_str(), q.labels.get("d").unwrap().as_str(), q.value),
            ("b} \"c\"", "e", 2.0)
        );
        let before = losses(TEXT);
        assert_eq!(before.get("ring_buffer_full"), Some(&7));
        let after = losses(&TEXT.replace("\"ring_buffer_full\",unit=\"event\"} 7", "\"ring_buffer_full\"} 9"));
        assert_eq!(lost_between(&before, &after), Losses::from([("ring_buffer_full".to_owned(), 2)]));
    }

    #[test]
    fn reads_the_summary() {
        let log = "INFO start\nINFO summary: exchanges reported and exported requests_seen=31 server=20 client=10 adds_up=true\n\
            INFO lost reason=\"parse_error\" count=2 unit=\"exchange\"\nINFO lost reason=\"ring_buffer_full\" count=7 unit=\"event\"\n";
        let books = summary(log).unwrap();
        assert_eq!((books.server, books.client, books.adds_up, exchanges(&books.losses)), (20, 10, true, 2));
        assert_eq!(books.losses.get("ring_buffer_full"), Some(&7));
        assert_eq!(summary("INFO stopped"), None);
    }
}
