//! The books at stop: what was reported, what went out, what was lost.
//!
//! In: [`Telemetry`]. Out: a [`Summary`] that can be checked and printed.

use std::fmt;

use super::{Telemetry, destination::Destination};
use crate::loss::Reason;

/// Books of one destination at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationSummary {
    /// `traces` or `metrics`.
    pub name: &'static str,
    /// Items handed over.
    pub accepted: u64,
    /// Items taken by the destination.
    pub exported: u64,
    /// Data points replaced by later ones.
    pub superseded: u64,
    /// Items still waiting.
    pub queued: u64,
    /// Items of an earlier run, found in the spool at start.
    pub recovered: u64,
    /// Items that stay in the spool.
    pub spooled: u64,
    /// Items lost, by reason; reasons without loss are left out.
    pub lost: Vec<(Reason, u64)>,
    /// Accepted and recovered less all the others: zero if the books are right.
    pub imbalance: i128,
}

/// The books at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Exchanges reported, server side.
    pub server_exchanges: u64,
    /// Exchanges reported, client side.
    pub client_exchanges: u64,
    /// Exchanges that the sampler made no span of.
    pub unsampled: u64,
    /// Exchanges that nobody wanted as span.
    pub unwanted: u64,
    /// Exchanges that became no span because their path is ignored.
    pub ignored: u64,
    /// Exchanges that became no span because their program exports spans itself.
    pub instrumented: u64,
    /// Spans.
    pub traces: DestinationSummary,
    /// Data points.
    pub metrics: DestinationSummary,
    /// All losses by reason, those of destinations included; reasons without loss are left out.
    pub losses: Vec<(Reason, u64)>,
}

impl Summary {
    /// The books of now.
    pub fn of(telemetry: &Telemetry) -> Self {
        let losses = Reason::ALL.iter().map(|r| (*r, telemetry.losses.get(*r))).filter(|(_, n)| *n > 0).collect();
        Self {
            server_exchanges: telemetry.server_exchanges.get(),
            client_exchanges: telemetry.client_exchanges.get(),
            unsampled: telemetry.spans_unsampled.get(),
            unwanted: telemetry.spans_unwanted.get(),
            ignored: telemetry.spans_ignored.get(),
            instrumented: telemetry.spans_instrumented.get(),
            traces: DestinationSummary::of(&telemetry.traces),
            metrics: DestinationSummary::of(&telemetry.metrics),
            losses,
        }
    }

    /// Whether everything adds up: each exchange became a span, was not sampled, not wanted, ignored or left to its
    /// program, and each span and data point, of this run or recovered, was exported, superseded, lost by a reason, is queued, or in the spool.
    pub fn adds_up(&self) -> bool {
        let no_spans = self.unsampled + self.unwanted + self.ignored + self.instrumented;
        let spans = self.server_exchanges + self.client_exchanges == self.traces.accepted + no_spans;
        spans && self.traces.imbalance == 0 && self.metrics.imbalance == 0
    }
}

impl DestinationSummary {
    fn of(books: &Destination) -> Self {
        Self {
            name: books.name(),
            accepted: books.accepted.get(),
            exported: books.exported.get(),
            superseded: books.superseded.get(),
            queued: books.waiting(),
            recovered: books.recovered.get(),
            spooled: books.spool_items.get(),
            lost: books.losses().filter(|(_, n)| *n > 0).collect(),
            imbalance: books.imbalance(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} exchanges reported ({} server, {} client)",
            self.server_exchanges + self.client_exchanges,
            self.server_exchanges,
            self.client_exchanges
        )?;
        for (items, books) in [("spans", &self.traces), ("data points", &self.metrics)] {
            if books.accepted + books.recovered > 0 {
                write!(f, "; {items}: {} exported of {}", books.exported, books.accepted)?;
            }
            if books.recovered > 0 {
                write!(f, ", {} recovered", books.recovered)?;
            }
            if books.spooled > 0 {
                write!(f, ", {} in the spool", books.spooled)?;
            }
            if books.queued > 0 {
                write!(f, ", {} queued", books.queued)?;
            }
        }
        match self.losses.as_slice() {
            [] => write!(f, "; nothing lost")?,
            losses => {
                let each: Vec<_> = losses.iter().map(|(r, n)| format!("{} {n} ({}s)", r.name(), r.unit())).collect();
                write!(f, "; lost: {}", each.join(", "))?;
            }
        }
        if !self.adds_up() {
            write!(f, "; the counts do not add up, please report this: {self:?}")?;
        }
        Ok(())
    }
}
