//! Walking through `/proc`: at the start, after events were lost, and now and then for what no event tells.
//!
//! In: everything below `/proc`. Out: the same changes as the events would have given.

use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Change, Processes, judge::Occasion};
use crate::discovery::{ReadError, facts::note, stat::Stat};

/// How much a walk takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Events told the rest: each `discovery.poll_interval`.
    Periodic,
    /// Nothing: at the start, and after process events were lost.
    Thorough,
}

/// The processes of one walk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) programs: FxHashMap<u32, Stat>,
    /// Those are there, and nothing more is known about them than before.
    pub(super) unreadable: FxHashSet<u32>,
}

/// Every so many walks the descriptors of all processes are looked at, even if no listening socket is new: one may have
/// been handed over to another process.
const FULL_WALK: u64 = 12;

impl Processes {
    /// Looks at every process. Those that are known and run the same program as before cost one small file each.
    ///
    /// # Errors
    /// If `/proc` itself cannot be listed. The table is as it was.
    pub(crate) fn scan(&mut self, walk: Walk) -> Result<Vec<Change>, ReadError> {
        let pids = self.reader.procfs.pids()?;
        let mut changes = self.reap(Instant::now());
        self.reader.forget_mount_namespaces();

        let found = self.look_at_all(pids);
        let look_at_ports =
            self.selection.needs().ports && self.look_for_listeners(walk, found.programs.keys().copied());
        for (&pid, &stat) in &found.programs {
            self.inspect(pid, stat, look_at_ports, &mut changes);
        }
        self.forget_others(&found, &mut changes);
        self.settle(&mut changes);
        Ok(changes)
    }

    pub(super) fn look_at_all(&mut self, pids: Vec<u32>) -> Found {
        let mut found = Found::default();
        for pid in pids {
            match self.reader.stat(pid) {
                Ok(stat) if !stat.kernel_thread => drop(found.programs.insert(pid, stat)),
                Ok(_) | Err(ReadError::Gone) => {}
                Err(error) => {
                    note(&error, &mut self.counts);
                    found.unreadable.insert(pid);
                }
            }
        }
        found
    }

    /// Who was not found has ended.
    pub(super) fn forget_others(&mut self, found: &Found, changes: &mut Vec<Change>) {
        let here = |pid: &u32| found.programs.contains_key(pid) || found.unreadable.contains(pid);
        let ended: Vec<u32> = self.live.keys().filter(|pid| !here(pid)).copied().collect();
        for pid in ended {
            self.forget(pid, changes);
        }
        self.own.retain(|(pid, _)| here(pid));
    }

    /// Whether the descriptors of processes that are known have to be looked at.
    pub(super) fn look_for_listeners(&mut self, walk: Walk, pids: impl Iterator<Item = u32>) -> bool {
        let thorough = walk == Walk::Thorough;
        let Self { reader, selection, listeners, counts, .. } = self;
        let new = listeners.refresh(&reader.procfs, pids, selection.ports(), thorough, counts);
        self.walks += 1;
        new || thorough || self.walks.is_multiple_of(FULL_WALK)
    }

    fn inspect(&mut self, pid: u32, stat: Stat, look_at_ports: bool, changes: &mut Vec<Change>) {
        self.make_way(pid, stat.start, changes);
        let Some(live) = self.live.get_mut(&pid) else {
            return self.consider(pid, stat, &Occasion::default(), changes);
        };
        live.parent = stat.parent;
        // Zero: not known now, for want of permission or in the midst of exec. If it is known for the first time, what
        // was told or read before may be incomplete.
        let new_program = live.image != stat.image && stat.image != 0;
        let new_port = !new_program && look_at_ports && {
            let held = self.listeners.held_by(&self.reader.procfs, pid, &mut self.counts);
            held.iter().any(|port| live.ports.binary_search(port).is_err())
        };
        if new_program || new_port {
            self.consider(pid, stat, &Occasion { new_program, ..Occasion::default() }, changes);
        }
    }
}
