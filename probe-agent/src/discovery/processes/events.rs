//! Process events of the kernel.
//!
//! In: fork, exec, listen and exit, each with the start of its process (`group_leader->start_boottime`), in their order.
//! Out: what follows from them. A process may be gone when its event is read: then the event itself has to do.

use std::sync::Arc;

use super::{
    Change, Live, Processes,
    judge::{MAX_PORTS, Occasion},
};
use crate::discovery::{
    clock::Ticks,
    facts::{path_text, split_arguments},
    language::Language,
    program::Facts,
};

impl Processes {
    /// `child` is a new process (not a thread) that `parent` forked: it runs the same program with the same sockets.
    pub(crate) fn forked(&mut self, parent: u32, child: u32, child_start_boottime_ns: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let start = Ticks::from_nanoseconds(child_start_boottime_ns);
        self.make_way(child, start, &mut changes);
        if self.live.contains_key(&child) || self.is_own(child, start) {
            return changes;
        }
        let Some(from) = self.live.get(&parent).filter(|_| !self.selection.names_pid(child)) else {
            self.look(child, start, &mut changes);
            return changes;
        };
        let selected = from.id.and_then(|id| self.known.get(&id));
        let shared = selected.map(|process| (Arc::clone(&process.program), Arc::clone(&process.entry)));
        let unselected = self.live.len() - self.live_selected;
        if shared.is_none() && unselected >= self.limits.unselected {
            return changes;
        }
        let unjudged = from.unjudged;
        let live = Live { start, parent, image: from.image, ports: from.ports.clone(), unjudged, id: None };
        self.live.insert(child, live);
        if let Some((program, entry)) = shared {
            self.select(child, program, entry, &mut changes);
        } else if unjudged {
            self.look(child, start, &mut changes);
        }
        changes
    }

    /// `pid` runs another program now: `filename` as given to exec, `arguments` with a NUL behind each, both as far as
    /// the event carries them.
    pub(crate) fn executed(
        &mut self,
        pid: u32,
        start_boottime_ns: u64,
        filename: &[u8],
        arguments: &[u8],
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let start = Ticks::from_nanoseconds(start_boottime_ns);
        self.make_way(pid, start, &mut changes);
        let executable = path_text(filename);
        let before = self.live.get(&pid).and_then(|live| self.known.get(&live.id?));
        let told = Facts {
            language: Language::from_executable(&executable),
            executable,
            command_line: split_arguments(arguments),
            // The environment may be another one; the container is the same.
            environment: Vec::new(),
            container_id: before.and_then(|process| process.program.container_id.clone()),
        };
        let occasion = Occasion { new_program: true, told: Some(&told), ..Occasion::default() };
        match self.reader.stat(pid) {
            Ok(stat) if stat.start == start => self.consider(pid, stat, &occasion, &mut changes),
            _ => self.consider_told(pid, start, &occasion, &mut changes),
        }
        self.settle(&mut changes);
        changes
    }

    /// `pid` began to listen on a TCP port.
    pub(crate) fn listening(&mut self, pid: u32, start_boottime_ns: u64, port: u16) -> Vec<Change> {
        let mut changes = Vec::new();
        let start = Ticks::from_nanoseconds(start_boottime_ns);
        self.make_way(pid, start, &mut changes);
        let new = self.live.get(&pid).is_none_or(|live| live.ports.binary_search(&port).is_err());
        if new && self.selection.ports().contains(port) {
            let gone_before = self.counts.gone;
            match self.reader.stat(pid) {
                Ok(stat) if stat.start == start => {
                    let occasion = Occasion { port: Some(port), ..Occasion::default() };
                    self.consider(pid, stat, &occasion, &mut changes);
                    self.settle(&mut changes);
                }
                _ => self.counts.gone += 1,
            }
            // It may have ended at any moment in between.
            if self.counts.gone != gone_before && self.live.get(&pid).is_none_or(|live| live.id.is_none()) {
                self.inherit(pid, start, port);
            }
        }
        changes
    }

    /// A process that goes into the background listens, forks and ends, perhaps before any of it is read here. The events of
    /// its children follow.
    fn inherit(&mut self, pid: u32, start: Ticks, port: u16) {
        // Not all of them, if it was judged by an earlier event while it forked: then it was watched no more.
        self.lost_sight = true;
        let unselected = self.live.len() - self.live_selected;
        if !self.live.contains_key(&pid) && unselected >= self.limits.unselected {
            return;
        }
        let gone = Live { start, parent: 0, image: 0, ports: Vec::new(), unjudged: true, id: None };
        let live = self.live.entry(pid).or_insert(gone);
        live.unjudged = true;
        if let Err(place) = live.ports.binary_search(&port)
            && live.ports.len() < MAX_PORTS
        {
            live.ports.insert(place, port);
        }
    }

    /// The last thread of `pid` has ended.
    pub(crate) fn exited(&mut self, pid: u32, start_boottime_ns: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let start = Ticks::from_nanoseconds(start_boottime_ns);
        if self.live.get(&pid).is_some_and(|live| live.start == start) {
            self.forget(pid, &mut changes);
        }
        self.own.retain(|&own| own != (pid, Some(start)));
        changes
    }

    /// Reads and judges a process of which nothing is known.
    fn look(&mut self, pid: u32, start: Ticks, changes: &mut Vec<Change>) {
        match self.reader.stat(pid) {
            Ok(stat) if stat.start == start => {
                self.consider(pid, stat, &Occasion::default(), changes);
                self.settle(changes);
            }
            _ => self.counts.gone += 1,
        }
    }
}
