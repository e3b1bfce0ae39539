//! More requests on their way at once, where the destination is well and the worker alone would not keep up.
//!
//! In: batches that wait while the worker is busy. Out: the same, settled, or back at the head of the queue when they were not
//! taken: trouble is the worker's alone, with its pauses, its log and its spool.

use std::sync::atomic::Ordering;

use super::{Batch, Keep, Queue, Settlement, State};

/// What is on its way beside the worker's own.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    batches: Vec<(u64, Batch)>,
    next: u64,
    pub(super) items: u64,
    pub(super) bytes: usize,
}

impl Elsewhere {
    fn take(&mut self, ticket: u64) -> Option<Batch> {
        let at = self.batches.iter().position(|(of, _)| *of == ticket)?;
        let (_, batch) = self.batches.swap_remove(at);
        self.items -= batch.items;
        self.bytes -= batch.body.len();
        Some(batch)
    }
}

impl Queue {
    /// Says whether the last answer was that a request was taken. Until then, and after any other, there is one at a time.
    pub fn set_well(&self, well: bool) {
        self.well.store(well, Ordering::Relaxed);
        if well {
            self.room_in_lanes.notify_one();
        }
    }

    /// The next batch for a lane: one that waits while the worker is busy with another, and the destination is well.
    /// It counts as queued until [`Queue::settle_lane`] or [`Queue::give_back`].
    pub fn pop_for_lane(&self) -> Option<(u64, Batch)> {
        let mut state = self.state();
        let busy = state.on_its_way.is_some() || self.spool.as_ref().is_some_and(super::Spool::is_readable);
        if !busy || !self.well.load(Ordering::Relaxed) || self.is_away() || self.limits.keep != Keep::All {
            return None;
        }
        let batch = state.waiting.pop_front()?;
        state.subtract(&batch);
        let ticket = state.elsewhere.next;
        state.elsewhere.next += 1;
        state.elsewhere.items += batch.items;
        state.elsewhere.bytes += batch.body.len();
        state.elsewhere.batches.push((ticket, batch.clone()));
        drop(state);
        self.room_in_lanes.notify_one();
        Some((ticket, batch))
    }

    /// Resolves when there may be something for a lane.
    pub async fn room_in_lanes(&self) {
        self.room_in_lanes.notified().await;
    }

    /// Whether a lane has a batch on its way.
    pub fn lanes_are_busy(&self) -> bool {
        !self.state().elsewhere.batches.is_empty()
    }

    /// Books what became of a lane's batch.
    pub fn settle_lane(&self, ticket: u64, settlement: Settlement) {
        let mut state = self.state();
        let Some(batch) = state.elsewhere.take(ticket) else { return };
        self.books.settle(batch.items, settlement);
        self.book(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    /// A lane's batch was not taken: it is the next again, and the worker's.
    pub fn give_back(&self, ticket: u64) {
        self.set_well(false);
        let mut state = self.state();
        let Some(batch) = state.elsewhere.take(ticket) else { return };
        state.add(&batch);
        state.waiting.push_front(batch);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes back what lanes have on their way, which nobody waits for any more.
    pub(super) fn reclaim(state: &mut State) {
        while let Some((ticket, _)) = state.elsewhere.batches.last() {
            let ticket = *ticket;
            let Some(batch) = state.elsewhere.take(ticket) else { return };
            state.add(&batch);
            state.waiting.push_front(batch);
        }
    }
}
