//! Judging one process, and what follows from it.
//!
//! In: a pid with its start, and what the kernel told about its program. Out: the table and the list of changes, kept in step.

use std::{sync::Arc, time::Instant};

use super::{Change, Live, Process, ProcessId, Processes};
use crate::discovery::{
    Entry, Program, ReadError,
    clock::Ticks,
    facts::{Candidate, note},
    program::Facts,
    stat::Stat,
};

/// The service manager adopts every orphan and starts every service: that it was selected says nothing about its children.
const INIT: u32 = 1;
/// Ports of a process that are remembered.
pub(super) const MAX_PORTS: usize = 1024;

/// Why a process is judged (again).
#[derive(Debug, Default)]
pub(crate) struct Occasion<'a> {
    /// It runs another program than before.
    pub new_program: bool,
    /// It began to listen on this port.
    pub port: Option<u16>,
    /// Its program and arguments as the kernel event told them.
    pub told: Option<&'a Facts>,
    /// The rules are others than before: what it was selected by counts no more.
    pub anew: bool,
}

/// A process in judgement.
struct Subject {
    pid: u32,
    start: Ticks,
    parent: u32,
    image: u64,
    candidate: Candidate,
}

impl Processes {
    /// Reads the process and decides.
    pub(super) fn consider(&mut self, pid: u32, stat: Stat, occasion: &Occasion<'_>, changes: &mut Vec<Change>) {
        let known = self.live.get(&pid);
        let selected = known.is_some_and(|live| live.id.is_some());
        if stat.kernel_thread || self.is_own(pid, stat.start) {
            return;
        }
        if !selected && self.live_selected >= self.limits.selected {
            self.counts.table_full += 1;
            return;
        }
        // Sockets that are not inherited over exec are closed by it.
        let mut ports = known.filter(|_| !occasion.new_program).map(|live| live.ports.clone()).unwrap_or_default();
        let mut candidate = match self.reader.candidate(pid, self.selection.needs(), &mut self.counts) {
            Ok(candidate) => candidate,
            Err(error) => {
                note(&error, &mut self.counts);
                // What other rules would have said is not known; of one that has ended an event tells.
                if occasion.anew && !matches!(error, ReadError::Gone) {
                    self.exclude(pid, changes);
                }
                return self.consider_told(pid, stat.start, occasion, changes);
            }
        };
        if let Some(told) = occasion.told {
            let _ = candidate.executable.get_or_insert_with(|| told.executable.clone());
        }
        if self.selection.needs().ports {
            ports.extend(self.listeners.held_by(&self.reader.procfs, pid, &mut self.counts));
            ports.extend(occasion.port);
            ports.sort_unstable();
            ports.dedup();
        }
        candidate.ports = ports;
        self.decide(
            Subject { pid, start: stat.start, parent: stat.parent, image: stat.image, candidate },
            occasion,
            changes,
        );
    }

    /// Decides about a process that has ended by what the kernel told about it.
    pub(super) fn consider_told(&mut self, pid: u32, start: Ticks, occasion: &Occasion<'_>, changes: &mut Vec<Change>) {
        let Some(told) = occasion.told.filter(|_| !self.is_own(pid, start)) else {
            return;
        };
        let known = self.live.get(&pid);
        if self.live_selected >= self.limits.selected && known.is_none_or(|live| live.id.is_none()) {
            self.counts.table_full += 1;
            return;
        }
        let candidate = Candidate {
            pid,
            executable: Some(told.executable.clone()).filter(|path| !path.is_empty()),
            arguments: Some(told.command_line.get(1..).unwrap_or_default().join(" ")),
            container: told.container_id.clone().map(Some),
            language: told.language.map(Some),
            ports: Vec::new(),
        };
        let parent = known.map_or(0, |live| live.parent);
        self.decide(Subject { pid, start, parent, image: 0, candidate }, occasion, changes);
    }

    fn decide(&mut self, subject: Subject, occasion: &Occasion<'_>, changes: &mut Vec<Change>) {
        let Subject { pid, start, parent, image, mut candidate } = subject;
        let id = self.live.get(&pid).and_then(|live| live.id);
        let before =
            id.filter(|_| !occasion.anew).or_else(|| self.inheritable(parent)).and_then(|id| self.known.get(&id));
        let verdict = self.selection.judge(&candidate, before.map(|process| &process.entry));
        candidate.ports.truncate(MAX_PORTS);
        let live = Live { start, parent, image, ports: candidate.ports, unjudged: false, id };
        if id.is_none() && verdict.is_none() {
            // Room for those that are not remembered is not needed: the next walk finds them.
            if self.live.len() - self.live_selected < self.limits.unselected || self.live.contains_key(&pid) {
                self.live.insert(pid, live);
            }
            return;
        }
        self.live.insert(pid, live);
        let Some(entry) = verdict else {
            return self.exclude(pid, changes);
        };
        match id {
            None => match self.program_of(pid, start, occasion.told) {
                Ok(Some(program)) => {
                    self.select(pid, program, entry, changes);
                    self.fresh.push(pid);
                }
                Ok(None) => self.counts.table_full += 1,
                Err(error) => note(&error, &mut self.counts),
            },
            Some(id) => {
                let program = if occasion.new_program {
                    match self.program_of(pid, start, occasion.told) {
                        Ok(Some(program)) => Some(program),
                        Ok(None) => {
                            // Its events must not count for a program that it no longer runs.
                            self.counts.table_full += 1;
                            return self.exclude(pid, changes);
                        }
                        // It ends; the event for that follows.
                        Err(error) => return note(&error, &mut self.counts),
                    }
                } else {
                    None
                };
                self.update(id, program, entry, changes);
            }
        }
    }

    /// The id of `parent`, if its children are selected because it is.
    fn inheritable(&self, parent: u32) -> Option<ProcessId> {
        if parent == INIT { None } else { self.live.get(&parent)?.id }
    }

    /// All that is to be told about the program of `pid`; `None` if there is no memory for it.
    fn program_of(&mut self, pid: u32, start: Ticks, told: Option<&Facts>) -> Result<Option<Arc<Program>>, ReadError> {
        let read = self.reader.facts(pid, &mut self.counts).and_then(|facts| {
            match self.reader.stat(pid) {
                // What was read could be that of the next process with this pid.
                Ok(stat) if stat.start == start => Ok(facts),
                Ok(_) => Err(ReadError::Gone),
                Err(error) => Err(error),
            }
        });
        let facts = match (read, told) {
            (Ok(mut facts), Some(told)) if facts.executable.is_empty() => {
                facts.executable.clone_from(&told.executable);
                facts
            }
            (Ok(facts), _) => facts,
            (Err(_), Some(told)) => told.clone(),
            (Err(error), None) => return Err(error),
        };
        Ok(facts.granted(&self.budget, &mut self.counts).map(Arc::new))
    }

    /// Gives the live process `pid` an id.
    pub(super) fn select(&mut self, pid: u32, program: Arc<Program>, entry: Arc<Entry>, changes: &mut Vec<Change>) {
        let Some(live) = self.live.get_mut(&pid).filter(|live| live.id.is_none()) else {
            return;
        };
        let Some(number) = self.last_id.checked_add(1).filter(|_| self.live_selected < self.limits.selected) else {
            self.counts.table_full += 1;
            return;
        };
        self.last_id = number;
        let id = ProcessId(number);
        live.id = Some(id);
        self.live_selected += 1;
        let process = Process {
            id,
            pid,
            start_boottime_ns: live.start.nanoseconds(),
            start_realtime_ns: live.start.realtime_ns(),
            program,
            entry,
        };
        self.ids.insert((pid, live.start), id);
        self.recent = None;
        self.known.insert(id, process.clone());
        changes.push(Change::Selected(process));
    }

    fn update(&mut self, id: ProcessId, program: Option<Arc<Program>>, entry: Arc<Entry>, changes: &mut Vec<Change>) {
        let Some(process) = self.known.get_mut(&id) else {
            return;
        };
        let program = program.filter(|program| !program.same(&process.program));
        if program.is_none() && process.entry == entry {
            return;
        }
        process.program = program.unwrap_or_else(|| Arc::clone(&process.program));
        process.entry = entry;
        changes.push(Change::Updated(process.clone()));
    }

    /// Ends the selection of a process that goes on. From now on nothing that it does is attributed to the id.
    pub(super) fn exclude(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(live) = self.live.get_mut(&pid) else {
            return;
        };
        let key = (pid, live.start);
        if let Some(id) = live.id.take() {
            self.ids.remove(&key);
            self.leave(id, pid, true, changes);
        }
    }

    /// The process has ended. What it did is attributed to its id for the grace period.
    pub(super) fn forget(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(live) = self.live.remove(&pid) else {
            return;
        };
        if let Some(id) = live.id {
            self.leave(id, pid, false, changes);
        }
    }

    /// Forgets the process that had `pid` before the one that began at `start`.
    pub(super) fn make_way(&mut self, pid: u32, start: Ticks, changes: &mut Vec<Change>) {
        if self.live.get(&pid).is_some_and(|live| live.start != start) {
            self.forget(pid, changes);
        }
        self.own.retain(|&(own, own_start)| own != pid || own_start.is_none_or(|own_start| own_start == start));
    }

    fn leave(&mut self, id: ProcessId, pid: u32, goes_on: bool, changes: &mut Vec<Change>) {
        self.live_selected -= 1;
        self.recent = None;
        changes.push(Change::Deselected { id, pid, goes_on });
        let now = Instant::now();
        self.leaving.push_back((now + self.limits.grace, id));
        if self.leaving.len() > self.limits.selected {
            changes.extend(self.reap(now));
        }
    }

    /// Judges the descendants of what was selected, until nothing more follows.
    pub(super) fn settle(&mut self, changes: &mut Vec<Change>) {
        while !self.fresh.is_empty() {
            let parents = std::mem::take(&mut self.fresh);
            // Where everything is selected, who is not was excluded by itself.
            if self.selection.everything() {
                continue;
            }
            let parents: rustc_hash::FxHashSet<u32> = parents.into_iter().filter(|&pid| pid != INIT).collect();
            let unselected = self.live.iter().filter(|(_, live)| live.id.is_none() && parents.contains(&live.parent));
            let children: Vec<(u32, Ticks)> = unselected.map(|(&pid, live)| (pid, live.start)).collect();
            for (pid, start) in children {
                if let Some(stat) = self.reader.stat(pid).ok().filter(|stat| stat.start == start) {
                    self.consider(pid, stat, &Occasion::default(), changes);
                }
            }
        }
    }

    pub(super) fn is_own(&self, pid: u32, start: Ticks) -> bool {
        self.own.iter().any(|&(own, own_start)| own == pid && own_start.is_none_or(|own_start| own_start == start))
    }
}
