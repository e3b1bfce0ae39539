//! Links inside of one program, judged by the paths of what it was asked for and what it asked for; and between two by the same path.
//!
//! In: spans. Out: how many links are right, wrong, missing.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, Result, ensure};

use crate::telemetry::{Kind, Span, Telemetry};

/// How a link was found, as the span says.
pub fn method(span: &Span) -> Option<&str> {
    span.attributes.text("spantap.link.method")
}

/// Spans of one kind by path.
pub fn by_path(spans: &[Arc<Span>], kind: Kind) -> HashMap<&str, &Span> {
    spans.iter().filter(|span| span.kind == kind).map(|span| (span.path(), &**span)).collect()
}

/// Right, wrong, without a link.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Score(pub u64, pub u64, pub u64);

impl Score {
    /// One more link.
    pub fn judge(&mut self, child: &Span, parent: &Span, by: &[&str]) {
        if child.parent_span_id.is_empty() {
            self.2 += 1;
        } else if child.parent_span_id == parent.span_id
            && child.trace_id == parent.trace_id
            && method(child).is_some_and(|method| by.contains(&method))
        {
            self.0 += 1;
        } else {
            self.1 += 1;
        }
    }

    /// # Errors
    /// If one is wrong, or more than one in a thousand is missing.
    pub fn is_good(&self) -> Result<()> {
        ensure!(self.1 == 0, "wrong links: {self:?}");
        ensure!(self.2 * 1000 <= self.0 + self.2, "too few links: {self:?}");
        Ok(())
    }
}

/// Links inside of `service`, which was asked for `asked(number)` and asked for each of `asks(number)`.
///
/// # Errors
/// If not all spans are there.
pub fn inside(
    telemetry: &Telemetry,
    service: &str,
    requests: u64,
    (asked, asks): (impl Fn(u64) -> String, impl Fn(u64) -> Vec<String>),
    by: &[&str],
) -> Result<Score> {
    let spans = telemetry.spans_of(service);
    let (received, sent) = (by_path(&spans, Kind::Server), by_path(&spans, Kind::Client));
    let mut score = Score::default();
    for number in 0..requests {
        let server = received.get(&*asked(number)).with_context(|| format!("{} not received", asked(number)))?;
        for path in asks(number) {
            let client = sent.get(&*path).with_context(|| format!("{path} not sent"))?;
            score.judge(client, server, by);
        }
    }
    Ok(score)
}

/// Links inside of `service`, which asks for `/MODE/out/N` when it is asked for `/MODE/in/N`, as far as both were seen.
pub fn of_all(telemetry: &Telemetry, service: &str, by: &[&str]) -> Score {
    let spans = telemetry.spans_of(service);
    let received = by_path(&spans, Kind::Server);
    let mut score = Score::default();
    for client in spans.iter().filter(|span| span.kind == Kind::Client) {
        if let Some(server) = received.get(&*client.path().replacen("/out/", "/in/", 1)) {
            score.judge(client, server, by);
        }
    }
    score
}

/// Links between both ends of the same requests, of which `near` sent and `far` received one for each path.
///
/// # Errors
/// If not all spans are there.
pub fn of_ends(
    telemetry: &Telemetry,
    (near, far): (&str, &str),
    paths: impl IntoIterator<Item = String>,
) -> Result<Score> {
    let (near, far) = (telemetry.spans_of(near), telemetry.spans_of(far));
    let (sent, arrived) = (by_path(&near, Kind::Client), by_path(&far, Kind::Server));
    let mut score = Score::default();
    for path in paths {
        let client = sent.get(&*path).with_context(|| format!("{path} not sent"))?;
        let server = arrived.get(&*path).with_context(|| format!("{path} not arrived"))?;
        score.judge(server, client, &["connection"]);
    }
    Ok(score)
}
