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

/// Sum of all samples of a metric of Spantap's own.
pub fn sum(text: &str, name: &str) -> u64 {
    samples(text).iter().filter(|sample| sample.name == name).map(|sample| sample.value as u64).sum()
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
    /// Losses by reason.
    pub losses: Losses,
}

/// Reads `… N exchanges reported (S server, C client) … ; lost: REASON N (UNIT), …` from the end of a log.
pub fn summary(log: &str) -> Option<Summary> {
    let line = log.lines().rev().find(|line| line.contains(" exchanges reported ("))?;
    let number_before = |text: &str, mark: &str| -> Option<u64> {
        text.split_once(mark)?.0.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
    };
    let (_, sides) = line.split_once(" exchanges reported (")?;
    let list = line.split_once("; lost: ").map_or("", |(_, list)| list.split(';').next().unwrap_or_default());
    let losses = list.split(", ").filter_map(|entry| {
        let (reason, rest) = entry.split_once(' ')?;
        Some((reason.to_owned(), rest.split(' ').next()?.parse().ok()?))
    });
    Some(Summary {
        server: number_before(sides, " server")?,
        client: number_before(sides, " client")?,
        losses: losses.collect(),
    })
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
        let log = "INFO start\nINFO stopped: 30 exchanges reported (20 server, 10 client); spans: 30 exported of 30; \
            lost: parse_error 2 (exchanges), ring_buffer_full 7 (events)\n";
        let books = summary(log).unwrap();
        assert_eq!((books.server, books.client, exchanges(&books.losses)), (20, 10, 2));
        assert_eq!(summary("0 exchanges reported (0 server, 0 client); nothing lost").unwrap().losses, Losses::new());
        assert_eq!(summary("INFO stopped"), None);
    }
}
