//! The processes that are observed.
//!
//! In: walks through `/proc` ([`Processes::scan`]) and process events of the kernel (`forked`, `executed`, `listening`,
//! `exited`), in the order in which the kernel gave them. Out: [`Change`]s, and ids for (pid, start).
//!
//! A process goes through: judged → selected, with an id → no longer watched (it ended, or became a program that is
//! excluded) → forgotten, when no event of it can be under way any more. Of processes that are not selected only what
//! tells them apart is kept, so that they are not read again at each walk.

mod events;
mod judge;
mod rules;
mod scan;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use spantap_config::Discovery;

pub(crate) use scan::Walk;

use super::{
    Counts, Entry, ProcFs, Program, budget::Budget, clock::Ticks, facts::Reader, listeners::Listeners,
    selection::Selection,
};

/// Number of a selected process on the wire: counts up from 1, never reused within a run of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProcessId(u32);

impl ProcessId {
    /// As it stands in messages.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// A selected process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Its number.
    pub id: ProcessId,
    /// Process id (thread group id) in the initial PID namespace.
    pub pid: u32,
    /// Start on CLOCK_BOOTTIME, nanoseconds, rounded down to the tick of `/proc`, so that a process has the same
    /// start however it was found.
    pub start_boottime_ns: u64,
    /// The same instant on the wall clock, nanoseconds since the Unix epoch, as it stood when the process was selected.
    pub start_realtime_ns: u64,
    /// What it runs.
    pub program: Arc<Program>,
    /// What the discovery entries say about it.
    pub entry: Arc<Entry>,
}

/// What the caller has to do. The order within and between answers matters: a pid may be reused.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Watch this pid from now on, and tell the forwarder about the process.
    Selected(Process),
    /// Tell the forwarder again: it runs another program, or other discovery entries apply.
    Updated(Process),
    /// Watch this pid no longer. The id stays valid for what is already under way.
    Deselected {
        /// The process.
        id: ProcessId,
        /// Its pid, which may belong to another process soon.
        pid: u32,
        /// It has not ended: other rules or another program are why it is not observed.
        goes_on: bool,
    },
    /// No event of this process comes any more: the id is over. Follows each `Deselected` after the grace period;
    /// the pid may long be that of another process, so this is not the moment to stop watching it.
    Ended {
        /// The process.
        id: ProcessId,
        /// The pid that it had.
        pid: u32,
    },
}

/// Bounds of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Processes selected at once. As many again may be in their grace period.
    pub selected: usize,
    /// Processes that are remembered as not selected; others are judged anew at each walk.
    pub unselected: usize,
    /// How long a process is still known after its end.
    pub grace: Duration,
    /// Bytes for what is known about programs.
    pub facts_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { selected: 16_384, unselected: 65_536, grace: Duration::from_secs(10), facts_bytes: 8 * 1024 * 1024 }
    }
}

/// A process that has not ended, selected or not.
#[derive(Debug)]
struct Live {
    start: Ticks,
    /// Parent when it was last looked at.
    parent: u32,
    /// See [`super::stat::Stat::image`]; zero if not known.
    image: u64,
    /// Ports that any rule asks for, ascending.
    ports: Vec<u16>,
    /// It had ended before its newest port could be judged: its children are to be, who have the socket from it.
    unjudged: bool,
    /// Its number, if selected.
    id: Option<ProcessId>,
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Processes {
    reader: Reader,
    selection: Selection,
    limits: Limits,
    budget: Budget,
    listeners: Listeners,
    /// Every process that has not ended, by pid.
    live: FxHashMap<u32, Live>,
    /// Live processes with an id.
    live_selected: usize,
    /// Selected processes, and those in their grace period.
    known: FxHashMap<ProcessId, Process>,
    /// What [`Processes::lookup`] finds.
    ids: FxHashMap<(u32, Ticks), ProcessId>,
    /// The last answer of [`Processes::lookup`]: events come in runs of the same process.
    recent: Option<(u32, u64, ProcessId)>,
    /// Processes in their grace period and when it is over, in that order.
    leaving: VecDeque<(Instant, ProcessId)>,
    /// Pids selected since descendants were last looked for.
    fresh: Vec<u32>,
    /// Processes that are never selected: Spantap's own. Without a start if it was not known.
    own: Vec<(u32, Option<Ticks>)>,
    last_id: u32,
    /// A thorough walk would find who has a socket of one that has ended.
    lost_sight: bool,
    walks: u64,
    counts: Counts,
}

impl Processes {
    /// An empty table with the rules of `discovery`. The caller itself is never selected; for others of Spantap see
    /// [`Processes::ignore`].
    pub(crate) fn new(procfs: ProcFs, discovery: &Discovery, limits: Limits) -> Self {
        let own_pid = procfs.own_pid();
        let mut table = Self {
            reader: Reader::new(procfs),
            selection: Selection::new(discovery),
            limits,
            budget: Budget::new(limits.facts_bytes),
            listeners: Listeners::default(),
            live: FxHashMap::default(),
            live_selected: 0,
            known: FxHashMap::default(),
            ids: FxHashMap::default(),
            recent: None,
            leaving: VecDeque::new(),
            fresh: Vec::new(),
            own: Vec::new(),
            last_id: 0,
            lost_sight: false,
            walks: 0,
            counts: Counts::default(),
        };
        if let Some(pid) = own_pid {
            table.ignore(pid);
        }
        table
    }

    /// Never selects the process that has this pid now; deselects it if it was.
    pub(crate) fn ignore(&mut self, pid: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        let start = self.reader.stat(pid).ok().map(|stat| stat.start);
        if !self.own.contains(&(pid, start)) {
            self.own.push((pid, start));
        }
        self.exclude(pid, &mut changes);
        changes
    }

    /// Id of the process with this pid and start (`group_leader->start_boottime`, nanoseconds), if it is selected or
    /// ended a short while ago.
    #[inline]
    pub(crate) fn lookup(&mut self, pid: u32, start_boottime_ns: u64) -> Option<ProcessId> {
        match self.recent {
            Some((recent_pid, recent_start, id)) if recent_pid == pid && recent_start == start_boottime_ns => Some(id),
            _ => {
                let id = *self.ids.get(&(pid, Ticks::from_nanoseconds(start_boottime_ns)))?;
                self.recent = Some((pid, start_boottime_ns, id));
                Some(id)
            }
        }
    }

    /// The process with this id, as long as the id is not over.
    #[cfg(test)]
    pub(crate) fn get(&self, id: ProcessId) -> Option<&Process> {
        self.known.get(&id)
    }

    /// All processes whose id is not over, in no order: for the start of a stream.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.known.values()
    }

    /// Number of selected processes that have not ended.
    pub(crate) fn selected(&self) -> usize {
        self.live_selected
    }

    /// Whether a thorough walk should come soon; asked once.
    pub(crate) fn lost_sight(&mut self) -> bool {
        std::mem::take(&mut self.lost_sight)
    }

    /// What could not be done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Forgets the processes whose grace period is over at `now`. To be called about once a second.
    pub(crate) fn reap(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.leaving.front().is_some_and(|&(due, _)| due <= now || self.leaving.len() > self.limits.selected) {
            if let Some((_, id)) = self.leaving.pop_front() {
                self.end(id, &mut changes);
            }
        }
        changes
    }

    fn end(&mut self, id: ProcessId, changes: &mut Vec<Change>) {
        let Some(process) = self.known.remove(&id) else {
            return;
        };
        let key = (process.pid, Ticks::from_nanoseconds(process.start_boottime_ns));
        // The same process may have been selected again meanwhile.
        if self.ids.get(&key) == Some(&id) {
            self.ids.remove(&key);
        }
        self.recent = None;
        changes.push(Change::Ended { id, pid: process.pid });
    }
}

#[cfg(test)]
mod tests;
