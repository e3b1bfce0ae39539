//! What leaves the queue for another place than the destination: the spool, or the queue of a new configuration.
//!
//! In: batches that wait or are on the worker's way. Out: the same at the spool, before the room is over, while the destination
//! is away or at the end; at the successor, once there is one; else counted.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Batch, Keep, Queue, State};
use crate::loss::Reason;

impl Queue {
    /// Hands what has waited for longest to the spool: all while the destination is away, else what is above half of the
    /// room once so much more has come.
    pub(super) fn spill(&self, state: &mut State, items: u64, bytes: usize) {
        let Some(spool) = self.spool.as_ref().filter(|_| self.limits.keep == Keep::All) else { return };
        while self.is_away()
            || state.items + items > self.limits.items / 2
            || state.bytes + bytes > self.limits.bytes / 2
        {
            let Some(batch) = state.waiting.pop_front() else { return };
            let (gone, length) = (batch.items, batch.body.len());
            match spool.offer(batch, false) {
                Ok(()) => (state.items, state.bytes) = (state.items - gone, state.bytes - length),
                Err(batch) => return state.waiting.push_front(batch),
            }
        }
    }

    /// Takes back what the spool could not write, and hands it what there is room for now.
    pub fn exchange_with_spool(&self) {
        let Some(spool) = &self.spool else { return };
        let mut state = self.state();
        self.put_first(&mut state, spool.take_returned());
        self.changed_to(state);
    }

    /// Hands the batch on its way to the spool, if that takes it now.
    pub fn hand_over(&self) -> bool {
        let Some(spool) = self.spool.as_ref().filter(|_| self.limits.keep == Keep::All) else { return false };
        let mut state = self.state();
        let Some(batch) = state.on_its_way.take() else { return true };
        let (items, bytes) = (batch.items, batch.body.len());
        match spool.offer(batch, false) {
            Ok(()) => {
                (state.items, state.bytes) = (state.items - items, state.bytes - bytes);
                self.book(&mut state);
                true
            }
            Err(batch) => {
                state.on_its_way = Some(batch);
                false
            }
        }
    }

    /// What is left here at the end, or cannot be delivered with these credentials, is `next`'s.
    pub fn set_successor(&self, next: &Arc<Queue>) {
        // There is one reload that replaces an exporter, and so one successor.
        let _ = self.successor.set(next.clone());
    }

    /// Hands everything to the successor, what is on its way included; false if there is none.
    pub fn pass_on(&self) -> bool {
        let Some(next) = self.successor.get() else { return false };
        let left = self.take_all(&mut self.state());
        next.adopt(left);
        true
    }

    /// All but what lanes have on their way.
    fn take_all(&self, state: &mut State) -> Vec<Batch> {
        let current = state.on_its_way.take();
        let left = current.into_iter().chain(state.waiting.drain(..)).collect();
        (state.items, state.bytes) = (0, 0);
        self.book(state);
        left
    }

    /// Takes batches that are older than all that is here.
    fn adopt(&self, older: Vec<Batch>) {
        let mut state = self.state();
        if state.abandoned {
            drop(state);
            return match self.successor.get() {
                Some(next) => next.adopt(older),
                None => older.iter().for_each(|batch| self.books.lost(Reason::ExportAtStop, batch.items)),
            };
        }
        let newer = !state.waiting.is_empty() || state.on_its_way.is_some();
        if newer && self.limits.keep == Keep::Latest {
            older.iter().for_each(|batch| self.books.superseded.add(batch.items));
        } else {
            self.put_first(&mut state, older);
        }
        self.changed_to(state);
    }

    /// Hands what is left to the spool, then to the successor, and counts what neither takes until `deadline` as not sent
    /// before the stop.
    pub async fn abandon(&self, deadline: Instant) {
        let mut left = {
            let mut state = self.state();
            state.abandoned = true;
            Self::reclaim(&mut state);
            self.take_all(&mut state)
        };
        if let Some(spool) = &self.spool {
            left = left.into_iter().filter_map(|batch| spool.offer(batch, true).err()).collect();
            spool.flush(deadline).await;
            left.extend(spool.take_returned());
        }
        match self.successor.get() {
            Some(next) => next.adopt(left),
            None => left.iter().for_each(|batch| self.books.lost(Reason::ExportAtStop, batch.items)),
        }
    }
}
