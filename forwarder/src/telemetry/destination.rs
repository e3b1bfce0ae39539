//! Books of one OTLP destination: what was handed over, or found in the spool, is exported, lost by a reason,
//! superseded, still queued, or in the spool.
//!
//! In: counts from batcher, queue and worker. Out: the counts, and [`Destination::imbalance`], which is zero if they add up.

use std::sync::{Arc, Mutex, PoisonError};

use super::Counter;
use crate::{
    export::queue::Settlement,
    loss::{Losses, Reason},
};

/// Reasons for which items of a destination can be lost.
pub const REASONS: [Reason; 8] = [
    Reason::ExportQueueFull,
    Reason::ExportRefused,
    Reason::ExportGivenUp,
    Reason::ExportPartial,
    Reason::ExportAtStop,
    Reason::SpoolFull,
    Reason::SpoolExpired,
    Reason::SpoolUnreadable,
];

/// Books of one destination. Items are spans or data points.
#[derive(Debug)]
pub struct Destination {
    name: &'static str,
    losses: Arc<Losses>,
    lost: [Counter; REASONS.len()],
    refusal: Mutex<Option<String>>,
    /// Items handed over for export.
    pub accepted: Counter,
    /// Items that the destination has taken.
    pub exported: Counter,
    /// Data points that a later collection of the same series replaced before they were sent; nothing is lost by it.
    pub superseded: Counter,
    /// Items in the request that is being built.
    pub pending: Counter,
    /// Items waiting or on their way now.
    pub queued: Counter,
    /// Encoded bytes waiting or on their way now.
    pub queued_bytes: Counter,
    /// Items that may wait at once.
    pub capacity: Counter,
    /// Items written to the spool.
    pub spooled: Counter,
    /// Items of an earlier run, found in the spool at start.
    pub recovered: Counter,
    /// Items on their way to the disk now.
    pub spooling: Counter,
    /// Items in the spool now.
    pub spool_items: Counter,
    /// Bytes of the spool's files now.
    pub spool_bytes: Counter,
    /// Writes to the spool that failed.
    pub spool_errors: Counter,
    /// Requests that the destination took.
    pub requests_ok: Counter,
    /// Requests that failed, retried ones included.
    pub requests_failed: Counter,
}

impl Destination {
    /// Empty books.
    pub fn new(name: &'static str, losses: Arc<Losses>) -> Self {
        Self {
            name,
            losses,
            lost: Default::default(),
            refusal: Mutex::default(),
            accepted: Counter::default(),
            exported: Counter::default(),
            superseded: Counter::default(),
            pending: Counter::default(),
            queued: Counter::default(),
            queued_bytes: Counter::default(),
            capacity: Counter::default(),
            spooled: Counter::default(),
            recovered: Counter::default(),
            spooling: Counter::default(),
            spool_items: Counter::default(),
            spool_bytes: Counter::default(),
            spool_errors: Counter::default(),
            requests_ok: Counter::default(),
            requests_failed: Counter::default(),
        }
    }

    /// `traces` or `metrics`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Counts `n` items as lost, here and in the table of all losses. `reason` is one of [`REASONS`].
    pub fn lost(&self, reason: Reason, n: u64) {
        if n == 0 {
            return;
        }
        self.losses.count(reason, n);
        if let Some(counter) = REASONS.iter().position(|r| *r == reason).and_then(|at| self.lost.get(at)) {
            counter.add(n);
        }
    }

    /// Counts what is lost and is no item.
    pub fn count(&self, reason: Reason, n: u64) {
        self.losses.count(reason, n);
    }

    /// Books what became of `items`.
    pub fn settle(&self, items: u64, settlement: Settlement) {
        match settlement {
            Settlement::Delivered { rejected } => {
                let rejected = rejected.min(items);
                self.exported.add(items - rejected);
                self.lost(Reason::ExportPartial, rejected);
            }
            Settlement::Lost(reason) => self.lost(reason, items),
            Settlement::Superseded => self.superseded.add(items),
        }
    }

    /// Items lost so far, by reason.
    pub fn losses(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        REASONS.iter().zip(&self.lost).map(|(reason, counter)| (*reason, counter.get()))
    }

    /// Remembers that the destination refuses for good, or that it takes again.
    pub fn set_refusal(&self, why: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the destination refuses, if its last answer was a refusal.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Items accepted or recovered, less those exported, lost, superseded, waiting and spooled: zero if the books are right.
    pub fn imbalance(&self) -> i128 {
        let out = self.exported.get() + self.superseded.get() + self.waiting() + self.spool_items.get();
        let lost: u64 = self.losses().map(|(_, n)| n).sum();
        i128::from(self.accepted.get() + self.recovered.get()) - i128::from(out + lost)
    }

    /// Items in memory: in the request that is built, in the queue, on their way to the destination or to the disk.
    pub fn waiting(&self) -> u64 {
        self.pending.get() + self.queued.get() + self.spooling.get()
    }
}
