//! Other rules than before, for processes that are known.
//!
//! In: another `discovery` section. Out: the changes that lead to what an agent would observe that started with it now; who
//! is selected by both goes on under its number.

use std::time::Instant;

use rustc_hash::FxHashMap;
use spantap_config::Discovery;

use super::{Change, Processes, Walk, judge::Occasion};
use crate::discovery::{ReadError, listeners::Listeners, selection::Selection, stat::Stat};

impl Processes {
    /// Judges every process by `discovery` and by nothing else: neither by what selected it before, nor by a parent that has
    /// ended. The kernel has to tell of the ports of `discovery` by now.
    ///
    /// # Errors
    /// If `/proc` itself cannot be listed. The rules and the table are as they were.
    pub(crate) fn reconfigure(&mut self, discovery: &Discovery) -> Result<Vec<Change>, ReadError> {
        let pids = self.reader.procfs.pids()?;
        self.selection = Selection::new(discovery);
        // It knows of ports that the old rules asked for.
        self.listeners = Listeners::default();
        // Of the others it was known that the old rules do not select them.
        self.live.retain(|_, live| live.id.is_some());
        for live in self.live.values_mut() {
            live.ports.retain(|&port| self.selection.ports().contains(port));
        }
        let mut changes = self.reap(Instant::now());
        self.reader.forget_mount_namespaces();

        let found = self.look_at_all(pids);
        if self.selection.needs().ports {
            self.look_for_listeners(Walk::Thorough, found.programs.keys().copied());
        }
        let turned_away = self.counts.table_full;
        // A child may be selected because its parent is, by the new rules.
        for (pid, stat) in parents_first(&found.programs) {
            self.make_way(pid, stat.start, &mut changes);
            let before = self.live.get(&pid).map(|live| live.image);
            let new_program = before.is_some_and(|image| image != stat.image && stat.image != 0);
            let occasion = Occasion { new_program, anew: true, ..Occasion::default() };
            self.consider(pid, stat, &occasion, &mut changes);
        }
        // What cannot be judged is not observed.
        for pid in found.unreadable.iter().copied() {
            self.exclude(pid, &mut changes);
        }
        self.forget_others(&found, &mut changes);
        self.settle(&mut changes);
        // There may have been no room only until others left.
        self.lost_sight |= self.counts.table_full != turned_away;
        Ok(changes)
    }
}

fn parents_first(programs: &FxHashMap<u32, Stat>) -> Vec<(u32, Stat)> {
    let mut children: FxHashMap<u32, Vec<(u32, Stat)>> = FxHashMap::default();
    let mut order = Vec::with_capacity(programs.len());
    for (&pid, &stat) in programs {
        if programs.contains_key(&stat.parent) {
            children.entry(stat.parent).or_default().push((pid, stat));
        } else {
            order.push((pid, stat));
        }
    }
    let mut next = 0;
    while let Some(&(pid, _)) = order.get(next) {
        next += 1;
        order.extend(children.remove(&pid).unwrap_or_default());
    }
    // Read one after the other, parents can form a ring where pids were reused.
    order.extend(children.into_values().flatten());
    order
}
