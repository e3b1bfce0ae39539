//! Processes that use a file that is stopped in.
//!
//! In: processes that begin and end to use it. Out: whether it is unused for so long that it may be let go.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// A file stays attached for so long after the last process that used it: short programs follow each other.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// Those of one file.
#[derive(Debug, Default)]
pub(super) struct Users {
    pids: HashSet<u32>,
    unused_since: Option<Instant>,
}

impl Users {
    /// The process uses it.
    pub(super) fn add(&mut self, pid: u32) {
        self.pids.insert(pid);
        self.unused_since = None;
    }

    /// The process uses it no more, if it did.
    pub(super) fn leave(&mut self, pid: u32) {
        if self.pids.remove(&pid) && self.pids.is_empty() {
            self.unused_since = Some(Instant::now());
        }
    }

    /// Whether nobody has used it for [`LINGER`].
    pub(super) fn are_gone(&self) -> bool {
        self.unused_since.is_some_and(|since| since.elapsed() >= LINGER)
    }
}
