//! The queue before a destination: bounded in items and bytes, what is on its way included.
//!
//! In: groups of batches. Out: batches one at a time, each settled by the worker; overflow is counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

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

/// A bounded queue with one consumer.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    /// Until when the consumer may go on, once nothing more comes.
    stop: watch::Sender<Option<Instant>>,
    max_items: u64,
    max_bytes: usize,
    keep: Keep,
    books: Arc<Destination>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// Of all batches that are waiting or on their way.
    items: u64,
    bytes: usize,
    on_its_way: Option<(u64, usize)>,
    /// Items and bytes that stand in the books.
    booked: (u64, u64),
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
    pub fn new(max_items: u64, max_bytes: usize, keep: Keep, books: Arc<Destination>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            stop: watch::Sender::default(),
            max_items,
            max_bytes,
            keep,
            books,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the books up to date. By differences: after a change of configuration the old queue drains beside the new.
    fn book(&self, state: &mut State) {
        let (items, bytes) = std::mem::replace(&mut state.booked, (state.items, state.bytes as u64));
        self.books.queued.add(state.items);
        self.books.queued.sub(items);
        self.books.queued_bytes.add(state.bytes as u64);
        self.books.queued_bytes.sub(bytes);
    }

    /// Takes a group of batches, whose items are booked as accepted already. A batch that exceeds a limit is taken only where nothing else waits.
    pub fn push(&self, group: Vec<Batch>) {
        let mut state = self.state();
        if self.keep == Keep::Latest {
            while let Some(old) = state.waiting.pop_front() {
                state.items -= old.items;
                state.bytes -= old.body.len();
                self.books.superseded.add(old.items);
            }
        }
        for batch in group {
            let full = state.items + batch.items > self.max_items || state.bytes + batch.body.len() > self.max_bytes;
            if self.deadline().is_some() {
                self.books.lost(Reason::ExportAtStop, batch.items);
            } else if full && state.items > 0 {
                self.books.lost(Reason::ExportQueueFull, batch.items);
            } else {
                state.items += batch.items;
                state.bytes += batch.body.len();
                state.waiting.push_back(batch);
            }
        }
        self.book(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    /// The next batch; `None` when the queue is closed and empty. It counts as queued until [`Queue::settle`].
    pub async fn pop(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.state();
                if let Some(batch) = state.waiting.pop_front() {
                    state.on_its_way = Some((batch.items, batch.body.len()));
                    return Some(batch);
                }
                if self.deadline().is_some() {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Books what became of the batch that is on its way.
    pub fn settle(&self, settlement: Settlement) {
        let mut state = self.state();
        let Some((items, bytes)) = state.on_its_way.take() else { return };
        state.items -= items;
        state.bytes -= bytes;
        match settlement {
            Settlement::Delivered { rejected } => {
                let rejected = rejected.min(items);
                self.books.exported.add(items - rejected);
                self.books.lost(Reason::ExportPartial, rejected);
            }
            Settlement::Lost(reason) => self.books.lost(reason, items),
            Settlement::Superseded => self.books.superseded.add(items),
        }
        self.book(&mut state);
    }

    /// Whether a later group waits that replaces the batch on its way.
    pub fn is_superseded(&self) -> bool {
        self.keep == Keep::Latest && !self.state().waiting.is_empty()
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

    /// Counts what is left as not sent before the stop.
    pub fn abandon(&self) {
        self.settle(Settlement::Lost(Reason::ExportAtStop));
        let mut state = self.state();
        while let Some(batch) = state.waiting.pop_front() {
            state.items -= batch.items;
            state.bytes -= batch.body.len();
            self.books.lost(Reason::ExportAtStop, batch.items);
        }
        self.book(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::loss::Losses;

    fn queue(max_items: u64, max_bytes: usize, keep: Keep) -> (Queue, Arc<Destination>) {
        let books = Arc::new(Destination::new("traces", Arc::new(Losses::default())));
        (Queue::new(max_items, max_bytes, keep, books.clone()), books)
    }

    fn push(q: &Queue, group: Vec<Batch>) {
        q.books.accepted.add(group.iter().map(|b| b.items).sum());
        q.push(group);
    }

    fn batch(items: u64, bytes: usize) -> Batch {
        Batch { body: vec![0; bytes].into(), items, sealed: Instant::now() }
    }

    fn lost(books: &Destination, reason: Reason) -> u64 {
        books.losses().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }

    #[tokio::test]
    async fn limits_include_what_is_on_its_way() {
        let (q, books) = queue(10, 100, Keep::All);
        push(&q, vec![batch(6, 10)]);
        assert_eq!(q.pop().await.map(|b| b.items), Some(6));
        push(&q, vec![batch(5, 10)]);
        assert_eq!(lost(&books, Reason::ExportQueueFull), 5);
        push(&q, vec![batch(4, 91)]);
        assert_eq!(lost(&books, Reason::ExportQueueFull), 9);
        push(&q, vec![batch(4, 90)]);
        assert_eq!((books.queued.get(), books.queued_bytes.get(), books.imbalance()), (10, 100, 0));
        q.settle(Settlement::Delivered { rejected: 2 });
        assert_eq!((books.exported.get(), lost(&books, Reason::ExportPartial), books.queued.get()), (4, 2, 4));
        assert_eq!(books.imbalance(), 0);
        q.settle(Settlement::Delivered { rejected: 0 });
        assert_eq!(books.exported.get(), 4, "nothing is settled twice");
    }

    #[tokio::test]
    async fn a_batch_above_the_limit_is_taken_alone() {
        let (q, books) = queue(10, 100, Keep::All);
        push(&q, vec![batch(11, 1), batch(1, 1)]);
        assert_eq!((books.queued.get(), lost(&books, Reason::ExportQueueFull)), (11, 1));
    }

    #[tokio::test]
    async fn the_latest_group_replaces_what_waits() {
        let (q, books) = queue(10, 100, Keep::Latest);
        push(&q, vec![batch(1, 1), batch(2, 1)]);
        assert_eq!(q.pop().await.map(|b| b.items), Some(1));
        push(&q, vec![batch(3, 1), batch(4, 1)]);
        assert_eq!((books.superseded.get(), books.queued.get()), (2, 8));
        assert!(q.is_superseded());
        q.settle(Settlement::Superseded);
        assert_eq!((books.superseded.get(), books.imbalance()), (3, 0));
    }

    #[tokio::test]
    async fn closing_ends_and_abandoning_counts() {
        let (q, books) = queue(10, 100, Keep::All);
        push(&q, vec![batch(1, 1), batch(2, 1)]);
        q.close(Instant::now() + Duration::from_secs(1));
        push(&q, vec![batch(3, 1)]);
        assert_eq!(lost(&books, Reason::ExportAtStop), 3);
        assert_eq!(q.pop().await.map(|b| b.items), Some(1));
        q.abandon();
        assert_eq!((lost(&books, Reason::ExportAtStop), books.queued.get(), books.imbalance()), (6, 0, 0));
        assert!(q.pop().await.is_none());
    }
}
