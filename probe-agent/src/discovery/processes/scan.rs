//! Walking through `/proc`: at the start, after events were lost, and now and then for what no event tells.
//!
//! In: everything below `/proc`. Out: the same changes as the events would have given.

use std::time::Instant;

use rustc_hash::FxHashSet;

use super::{Change, Processes, judge::Occasion};
use crate::discovery::{ReadError, facts::note, stat::Stat};

/// Every so many walks the descriptors of all processes are looked at, even if no listening socket is new: one may have
/// been handed over to another process.
const FULL_WALK: u64 = 12;

impl Processes {
    /// Looks at every process. Those that are known and run the same program as before cost one small file each.
    ///
    /// # Errors
    /// If `/proc` itself cannot be listed. The table is as it was.
    pub(crate) fn scan(&mut self) -> Result<Vec<Change>, ReadError> {
        let pids = self.reader.procfs.pids()?;
        let mut changes = self.reap(Instant::now());
        self.reader.forget_mount_namespaces();
        let look_at_ports = self.selection.needs().ports && {
            let new = self.listeners.refresh(&self.reader.procfs, &pids, self.selection.ports(), &mut self.counts);
            new || self.scans.is_multiple_of(FULL_WALK)
        };
        self.scans += 1;

        let mut present = FxHashSet::default();
        for pid in pids {
            match self.reader.stat(pid) {
                Ok(stat) => {
                    if !stat.kernel_thread {
                        present.insert(pid);
                        self.inspect(pid, stat, look_at_ports, &mut changes);
                    }
                }
                Err(ReadError::Gone) => {}
                Err(error) => {
                    // It is there, and nothing more is known about it than before.
                    note(&error, &mut self.counts);
                    present.insert(pid);
                }
            }
        }
        let ended: Vec<u32> = self.live.keys().filter(|pid| !present.contains(pid)).copied().collect();
        for pid in ended {
            self.forget(pid, &mut changes);
        }
        self.settle(&mut changes);
        Ok(changes)
    }

    fn inspect(&mut self, pid: u32, stat: Stat, look_at_ports: bool, changes: &mut Vec<Change>) {
        self.make_way(pid, stat.start, changes);
        let Some(live) = self.live.get_mut(&pid) else {
            return self.consider(pid, stat, &Occasion::default(), changes);
        };
        live.parent = stat.parent;
        // Zero: the place is not known, because the process was forked by one that we did not see or may not be asked.
        let new_program = live.image != stat.image && live.image != 0 && stat.image != 0;
        if live.image == 0 {
            live.image = stat.image;
        }
        let new_port = !new_program && look_at_ports && {
            let held = self.listeners.held_by(&self.reader.procfs, pid, &mut self.counts);
            held.iter().any(|port| live.ports.binary_search(port).is_err())
        };
        if new_program || new_port {
            self.consider(pid, stat, &Occasion { new_program, ..Occasion::default() }, changes);
        }
    }
}
