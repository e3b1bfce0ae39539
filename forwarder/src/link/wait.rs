//! Exchanges that wait until it is known what they descend from.
//!
//! In: exchanges that have ended, of which the other end of a connection above them may still show: its process had sent
//! the request and not come to record it. Out: the same, once that is known, after [`PATIENCE`], or when too many wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Ready, node};

/// How long an exchange waits at most, beside the time to the next tick.
const PATIENCE: Duration = Duration::from_millis(250);
/// How many wait at most; beyond, the first goes on without its link.
const MOST: usize = 4096;

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<(Instant, Ready)>,
}

impl Waiting {
    /// Adds one; gives back the one that has to go instead.
    pub(super) fn push(&mut self, ready: Ready) -> Option<Ready> {
        let first = if self.queue.len() >= MOST { self.queue.pop_front() } else { None };
        self.queue.push_back((Instant::now() + PATIENCE, ready));
        first.map(|(_, ready)| ready)
    }

    /// Those that have waited for long enough or need not wait; with `all`, every one.
    pub(super) fn released(&mut self, all: bool) -> Vec<Ready> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut ready = Vec::new();
        for (due, waiting) in std::mem::take(&mut self.queue) {
            if all || due <= now || !node::is_pending(&waiting.2) {
                ready.push(waiting);
            } else {
                self.queue.push_back((due, waiting));
            }
        }
        ready
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
