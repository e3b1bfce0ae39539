//! Memory for what is known about programs.
//!
//! In: sizes. Out: a charge that is given back when what it stands for is dropped, or a refusal.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that may be held, shared by everything charged to it. The last quarter is kept for what is [`Need::Least`].
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// How much it matters to get the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All that is worth knowing.
    Full,
    /// Without this there is nothing to tell.
    Least,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// Takes `bytes` if there are as many left for this need.
    pub(crate) fn charge(&self, bytes: usize, need: Need) -> Option<Charge> {
        let limit = match need {
            Need::Full => self.limit / 4 * 3,
            Need::Least => self.limit,
        };
        let used = self.used.load(Ordering::Relaxed).checked_add(bytes).filter(|&used| used <= limit)?;
        // Only the thread that keeps the table charges; others at most give back.
        self.used.fetch_add(bytes, Ordering::Relaxed);
        debug_assert!(used <= self.limit);
        Some(Charge { used: Arc::clone(&self.used), bytes })
    }
}

/// Bytes taken from a [`Budget`] as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = Budget::new(100);
        let first = budget.charge(60, Need::Full);
        assert!(first.is_some());
        assert!(budget.charge(16, Need::Full).is_none(), "the last quarter is kept back");
        let second = budget.charge(40, Need::Least);
        assert!(second.is_some());
        assert!(budget.charge(1, Need::Least).is_none());
        assert!(budget.charge(usize::MAX, Need::Least).is_none());
        drop(first);
        assert!(budget.charge(30, Need::Full).is_some());
    }
}
