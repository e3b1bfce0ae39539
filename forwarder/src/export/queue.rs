//! The queue before a destination: bounded in items and bytes, what is on its way included.
//!
//! In: groups of batches. Out: batches one at a time and, where that is too slow, some beside (`lanes`), each settled by the
//! worker; what does not go to the destination from here (`leaving`); overflow is counted.

mod lanes;
mod leaving;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use self::lanes::Elsewhere;
use super::spool::Spool;
use crate::{loss::Reason, telemetry::destination::Destination};

/// What stays when more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything, up to the limits; what comes then is lost.
    All,
    /// The latest group: cumulative points carry all that earlier ones said.
    Latest,
}

/// An encoded request.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Body before compression.
    pub body: Bytes,
    /// Spans or data points in it.
    pub items: u64,
    /// When it was handed over.
    pub sealed: Instant,
}

/// A bounded queue with one consumer, and perhaps a spool behind it.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    /// Until when the consumer may go on, once nothing more comes.
    stop: watch::Sender<Option<Instant>>,
    limits: Limits,
    spool: Option<Spool>,
    /// Where goes what could not be delivered from here: the queue before the same destination, as it is configured now.
    successor: OnceLock<Arc<Queue>>,
    /// Whether the destination takes nothing, so that nothing is to wait here that can be spooled.
    away: AtomicBool,
    /// Whether the last answer was that a request was taken.
    well: AtomicBool,
    room_in_lanes: Notify,
    books: Arc<Destination>,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Spans or data points.
    pub items: u64,
    /// Encoded bytes.
    pub bytes: usize,
    /// What stays when more comes. Only where that is everything the spool is used before a stop: of cumulative points
    /// the latest say all.
    pub keep: Keep,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// Of all batches that are waiting or on the worker's way.
    items: u64,
    bytes: usize,
    on_its_way: Option<Batch>,
    /// Nobody takes anything from here any more.
    abandoned: bool,
    elsewhere: Elsewhere,
    /// Items and bytes that stand in the books.
    booked: (u64, u64),
}

impl State {
    fn add(&mut self, batch: &Batch) {
        self.items += batch.items;
        self.bytes += batch.body.len();
    }

    fn subtract(&mut self, batch: &Batch) {
        self.items -= batch.items;
        self.bytes -= batch.body.len();
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Taken, except for so many items.
    Delivered {
        /// Items that the destination did not take.
        rejected: u64,
    },
    /// Lost.
    Lost(Reason),
    /// Replaced by a later collection.
    Superseded,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits, spool: Option<Spool>, books: Arc<Destination>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            stop: watch::Sender::default(),
            limits,
            spool,
            successor: OnceLock::new(),
            away: AtomicBool::new(false),
            well: AtomicBool::new(false),
            room_in_lanes: Notify::new(),
            books,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the books up to date. By differences: after a change of configuration the old queue drains beside the new.
    fn book(&self, state: &mut State) {
        let all = (state.items + state.elsewhere.items, (state.bytes + state.elsewhere.bytes) as u64);
        let (items, bytes) = std::mem::replace(&mut state.booked, all);
        self.books.queued.add(all.0);
        self.books.queued.sub(items);
        self.books.queued_bytes.add(all.1);
        self.books.queued_bytes.sub(bytes);
    }

    /// Takes a group of batches, whose items are booked as accepted already. A batch that exceeds a limit is taken only where nothing else waits.
    pub fn push(&self, group: Vec<Batch>) {
        let mut state = self.state();
        if self.limits.keep == Keep::Latest {
            while let Some(old) = state.waiting.pop_front() {
                state.subtract(&old);
                self.books.superseded.add(old.items);
            }
        }
        for batch in group {
            self.spill(&mut state, batch.items, batch.body.len());
            if self.deadline().is_some() {
                self.books.lost(Reason::ExportAtStop, batch.items);
            } else if self.is_full(&state, &batch) {
                self.books.lost(Reason::ExportQueueFull, batch.items);
            } else {
                state.add(&batch);
                state.waiting.push_back(batch);
            }
        }
        self.changed_to(state);
        self.room_in_lanes.notify_one();
    }

    /// Puts back what is older than all that waits, in its order; what finds no room is lost.
    fn put_first(&self, state: &mut State, older: Vec<Batch>) {
        for batch in older.into_iter().rev() {
            if self.is_full(state, &batch) {
                self.books.lost(Reason::ExportQueueFull, batch.items);
            } else {
                state.add(&batch);
                state.waiting.push_front(batch);
            }
        }
    }

    /// Something has come: what is too much goes to the spool, and who waits hears of the rest.
    fn changed_to(&self, mut state: MutexGuard<'_, State>) {
        self.spill(&mut state, 0, 0);
        self.book(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    fn is_full(&self, state: &State, batch: &Batch) -> bool {
        let Limits { items, bytes, .. } = self.limits;
        let held = (state.items + state.elsewhere.items, state.bytes + state.elsewhere.bytes);
        held.0 > 0 && (held.0 + batch.items > items || held.1 + batch.body.len() > bytes)
    }

    /// Says whether the destination takes nothing.
    pub fn set_away(&self, away: bool) {
        if self.away.swap(away, Ordering::Relaxed) != away && away {
            self.exchange_with_spool();
        }
    }

    /// Whether the destination takes nothing.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// The next batch, if one waits. It counts as queued until [`Queue::settle`] or [`Queue::hand_over`].
    pub fn pop(&self) -> Option<Batch> {
        let mut state = self.state();
        let batch = state.waiting.pop_front()?;
        state.on_its_way = Some(batch.clone());
        drop(state);
        self.room_in_lanes.notify_one();
        Some(batch)
    }

    /// Resolves when something has come, or the queue was closed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Books what became of the batch that is on its way.
    pub fn settle(&self, settlement: Settlement) {
        let mut state = self.state();
        let Some(batch) = state.on_its_way.take() else { return };
        state.subtract(&batch);
        self.books.settle(batch.items, settlement);
        self.book(&mut state);
    }

    /// Whether a later group waits that replaces the batch on its way.
    pub fn is_superseded(&self) -> bool {
        self.limits.keep == Keep::Latest && !self.state().waiting.is_empty()
    }

    /// Nothing more comes; the consumer may go on until `deadline`.
    pub fn close(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        self.changed.notify_one();
    }

    /// Until when the consumer may go on, once the queue is closed.
    pub fn deadline(&self) -> Option<Instant> {
        *self.stop.borrow()
    }

    /// Resolves when the queue is closed, with the deadline.
    pub async fn closed(&self) -> Instant {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(deadline) = *stop.borrow_and_update() {
                return deadline;
            }
            // Cannot fail: the sender is ours.
            let _ = stop.changed().await;
        }
    }

    /// Resolves when the queue is closed and its deadline has passed.
    pub async fn expired(&self) {
        sleep_until(self.closed().await).await;
    }
}

#[cfg(test)]
mod tests;
