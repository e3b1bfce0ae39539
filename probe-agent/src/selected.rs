//! The bitmap of observed processes, shared with the kernel side.
//!
//! In: pids to observe or not. Out: bits of the BPF map `selected`, changed atomically, because the kernel side sets
//! bits in the same words when a selected process forks.

use std::{io, os::fd::AsFd, sync::atomic::Ordering};

use crate::{mapped::MappedWords, record::PID_WORDS};

/// Mapping of the whole bitmap (512 KiB of address space; only touched pages are resident).
#[derive(Debug)]
pub struct SelectedProcesses(MappedWords);

impl SelectedProcesses {
    /// Maps the BPF array `selected`, which must have `PID_WORDS` entries and be made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// What mmap says.
    pub fn map(map: &impl AsFd) -> io::Result<Self> {
        MappedWords::map(map, PID_WORDS).map(Self)
    }

    /// Observes `pid` from now on, or no more. Pids beyond PID_MAX_LIMIT do not exist and are ignored.
    pub fn set(&self, pid: u32, observed: bool) {
        let Some(word) = self.0.get(pid as usize / 64) else { return };
        let bit = 1u64 << (pid % 64);
        if observed {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}
