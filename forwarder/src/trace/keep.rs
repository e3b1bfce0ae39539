//! Spans that are kept whatever the sampler says: failed ones, slow ones, the slowest of each second.
//!
//! In: an exchange's duration and whether it failed. Out: whether its span is kept surely.
//!
//! The slowest are told without waiting for the second to end: a span is kept if it took at least as long as the last of
//! the slowest N of the second before, and fewer than N were kept in this one. So the choice never depends on the random
//! number of the trace, and a span that is kept stands for itself (`th:0`).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use spantap_config::KeepSpans;

use crate::model::UnixNs;

const SECOND: u64 = 1_000_000_000;

/// The rules of one service, and its last two seconds.
#[derive(Debug, Default)]
pub struct Keeper {
    rules: KeepSpans,
    second: u64,
    /// The slowest of this second, the least slow on top.
    slowest: BinaryHeap<Reverse<Duration>>,
    kept: u32,
    /// What the last of the slowest took in the second before.
    limit: Duration,
}

impl Keeper {
    /// Nothing seen yet.
    pub fn new(rules: KeepSpans) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Other rules from now on.
    pub fn set(&mut self, rules: KeepSpans) {
        if rules != self.rules {
            *self = Self::new(rules);
        }
    }

    /// Whether the span of an exchange that ended at `end` is kept surely.
    pub fn keeps(&mut self, end: UnixNs, duration: Duration, failed: bool) -> bool {
        let slow = self.is_among_the_slowest(end, duration);
        slow || failed && self.rules.errors || self.rules.slower_than.is_some_and(|limit| duration >= limit)
    }

    fn is_among_the_slowest(&mut self, end: UnixNs, duration: Duration) -> bool {
        let most = self.rules.slowest as usize;
        if most == 0 {
            return false;
        }
        let second = end.0 / SECOND;
        // Exchanges may end in an earlier second than others that were told before: they count in this one.
        if second > self.second {
            let full = self.slowest.len() >= most && second == self.second + 1;
            self.limit = if full { self.slowest.peek().map_or(Duration::ZERO, |d| d.0) } else { Duration::ZERO };
            self.slowest.clear();
            (self.second, self.kept) = (second, 0);
        }
        self.slowest.push(Reverse(duration));
        if self.slowest.len() > most {
            self.slowest.pop();
        }
        let keeps = duration >= self.limit && self.kept < self.rules.slowest;
        self.kept += u32::from(keeps);
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(second: u64) -> UnixNs {
        UnixNs(1_767_323_045 * SECOND + second * SECOND)
    }

    #[test]
    fn errors_and_slow_ones() {
        let none = &mut Keeper::new(KeepSpans::default());
        assert!(!none.keeps(at(0), 100 * MS, true));
        let both = &mut Keeper::new(KeepSpans { errors: true, slower_than: Some(50 * MS), slowest: 0 });
        assert!(both.keeps(at(0), MS, true) && both.keeps(at(0), 50 * MS, false) && !both.keeps(at(0), 49 * MS, false));
    }

    #[test]
    fn the_slowest_of_each_second() {
        let keeper = &mut Keeper::new(KeepSpans { slowest: 2, ..KeepSpans::default() });
        // Nothing is known yet: the first two.
        let first: Vec<bool> = (1..=10).map(|n| keeper.keeps(at(0), n * MS, false)).collect();
        assert_eq!(first.iter().filter(|kept| **kept).count(), 2);
        // 9 and 10 ms were the slowest: what takes less is not kept.
        let next: Vec<bool> = (1..=10).map(|n| keeper.keeps(at(1), n * MS, false)).collect();
        assert_eq!(next.iter().position(|kept| *kept), Some(8));
        assert_eq!(next.iter().filter(|kept| **kept).count(), 2);
        assert!((0..100).filter(|_| keeper.keeps(at(2), 20 * MS, false)).count() == 2, "no more than asked for");
        assert!(keeper.keeps(at(9), MS, false), "after a pause all are new");
        assert!(keeper.slowest.len() <= 2);
    }
}
