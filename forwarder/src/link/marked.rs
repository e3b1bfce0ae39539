//! Processes of which something was found out that is told once.
//!
//! In: processes. Out: whether one is among them. Full, all are forgotten, and found again.

use rustc_hash::FxHashSet;

use crate::model::ProcessId;

/// Most processes of which anything is remembered for links.
pub(super) const MAX_PROCESSES: usize = 16_384;

/// Some processes.
#[derive(Debug, Default)]
pub(super) struct Marked(FxHashSet<ProcessId>);

impl Marked {
    /// Adds one; `true`: it is new, and to be told.
    pub(super) fn mark(&mut self, process: ProcessId) -> bool {
        if self.0.len() >= MAX_PROCESSES {
            self.0.clear();
        }
        self.0.insert(process)
    }

    /// Whether it is among them.
    pub(super) fn has(&self, process: ProcessId) -> bool {
        self.0.contains(&process)
    }

    /// Forgets one.
    pub(super) fn forget(&mut self, process: ProcessId) {
        self.0.remove(&process);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
