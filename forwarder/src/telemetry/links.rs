//! Counts of links between spans.
//!
//! In: each span that could have a parent, once it is decided. Out: how many have one by each method, and why the others have none.

use super::Counter;
use crate::link::{Ancestor, Method, Unlinked};

/// Counts by method and reason.
#[derive(Debug, Default)]
pub struct LinkCounts {
    header: Counter,
    made: [Counter; Method::ALL.len()],
    none: [Counter; Unlinked::ALL.len()],
}

impl LinkCounts {
    /// Counts one span.
    pub fn count(&self, ancestor: &Ancestor) {
        let counter = match ancestor {
            Ancestor::Header => Some(&self.header),
            Ancestor::Span(_, method) => self.made.get(*method as usize),
            Ancestor::None(why) => self.none.get(*why as usize),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
    }

    /// Spans with a parent, by method.
    pub fn made(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let methods = Method::ALL.iter().zip(&self.made).map(|(method, count)| (method.name(), count.get()));
        std::iter::once(("header", self.header.get())).chain(methods)
    }

    /// Spans without a parent, by reason.
    pub fn none(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Unlinked::ALL.iter().zip(&self.none).map(|(why, count)| (why.name(), count.get()))
    }
}
