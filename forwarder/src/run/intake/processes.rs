//! The processes that the agent has told of.
//!
//! In: facts and ends of processes. Out: the process of an event. Bounded in number and in bytes, those included that are
//! forgotten here and still used elsewhere.

use std::sync::{Arc, Weak};

use crate::model::{Process, ProcessId, ProcessRef, UnixNs};

/// Processes that are known at most; the agent's own bound, twice, for those that have just ended.
const MAX_PROCESSES: usize = 32_768;

/// Bytes of what is known of all processes. Thousands of usual ones, with some KiB each, fit.
const MAX_PROCESS_BYTES: usize = 32 * 1024 * 1024;

/// Processes by the agent's number.
pub(super) struct Processes {
    known: rustc_hash::FxHashMap<ProcessId, ProcessRef>,
    /// What those take, about, and those that are leaving.
    bytes: usize,
    /// Forgotten here, and still in use by open requests or waiting spans; with what each takes.
    leaving: Vec<(Weak<Process>, usize)>,
    /// The process of events of which nothing is known.
    nobody: ProcessRef,
}

impl Default for Processes {
    fn default() -> Self {
        Self { known: Default::default(), bytes: 0, leaving: Vec::new(), nobody: Arc::new(nobody()) }
    }
}

impl Processes {
    /// Takes the facts of processes; tells for how many there was no room.
    pub(super) fn learn(&mut self, processes: Vec<Process>) -> u64 {
        self.let_go();
        processes.into_iter().map(|process| u64::from(!self.learn_one(process))).sum()
    }

    fn learn_one(&mut self, process: Process) -> bool {
        // One that is told again takes its own place.
        self.forget(process.id);
        let bytes = size(&process);
        if self.known.len() >= MAX_PROCESSES || self.bytes + bytes > MAX_PROCESS_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.known.insert(process.id, Arc::new(process));
        true
    }

    pub(super) fn get(&self, id: ProcessId) -> Option<&ProcessRef> {
        self.known.get(&id)
    }

    pub(super) fn get_or_nobody(&self, id: ProcessId) -> &ProcessRef {
        self.get(id).unwrap_or(&self.nobody)
    }

    pub(super) fn forget_all(&mut self) {
        let ids: Vec<ProcessId> = self.known.keys().copied().collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    pub(super) fn forget(&mut self, id: ProcessId) {
        let Some(process) = self.known.remove(&id) else { return };
        let bytes = size(&process);
        if Arc::strong_count(&process) > 1 {
            self.leaving.push((Arc::downgrade(&process), bytes));
        } else {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Counts those no more that nobody uses any more; only once there is little room, for it looks at all of them.
    fn let_go(&mut self) {
        if self.bytes < MAX_PROCESS_BYTES / 2 {
            return;
        }
        let bytes = &mut self.bytes;
        self.leaving.retain(|(process, size)| {
            let used = process.strong_count() > 0;
            if !used {
                *bytes = bytes.saturating_sub(*size);
            }
            used
        });
    }
}

/// Bytes that a process takes, about.
fn size(process: &Process) -> usize {
    let optional = [&process.container_id, &process.language, &process.service_name, &process.service_namespace];
    let texts = process.environment.iter().flat_map(|(name, value)| [name, value]);
    let routes = &process.overrides.routes;
    let texts = texts.chain([&process.executable]).chain(optional.into_iter().flatten());
    let texts = texts.chain(&routes.incoming).chain(&routes.outgoing);
    texts.fold(size_of::<Process>(), |sum, text| sum + size_of::<String>() + text.len())
}

fn nobody() -> Process {
    Process {
        id: ProcessId(0),
        pid: 0,
        start: UnixNs(0),
        executable: String::new(),
        environment: Vec::new(),
        container_id: None,
        language: None,
        service_name: None,
        service_namespace: None,
        export_traces: true,
        export_metrics: true,
        overrides: Default::default(),
    }
}
