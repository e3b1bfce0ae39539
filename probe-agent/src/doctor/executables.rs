//! Looks at what selected processes run, each program once, for a bounded time.
//!
//! In: selected processes, what to look for. Out: what was found, by name of the program; how many could not be looked at.

use std::{
    collections::BTreeMap,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::processes::name_of;
use crate::discovery::{ProcFs, Process};

/// All of it may take this long.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Programs that are looked at.
const MAX_PROGRAMS: usize = 64;

/// `look` is given a process of each program and when to be done; `None`: it could not look.
pub(super) fn each<T: Send + 'static>(
    procfs: &ProcFs,
    selected: &[Process],
    look: impl Fn(&ProcFs, u32, Instant) -> Option<T> + Send + 'static,
) -> (Vec<(String, T)>, usize) {
    // One process of each program: what one maps, the others do.
    let mut programs: BTreeMap<(String, Option<String>), (String, u32)> = BTreeMap::new();
    for process in selected {
        let container = process.program.container_id.as_ref().map(|id| id.as_str().to_owned());
        let key = (process.program.executable.clone(), container);
        programs.entry(key).or_insert_with(|| (name_of(procfs, process), process.pid));
    }
    let total = programs.len();
    let jobs: Vec<(String, u32)> = programs.into_values().take(MAX_PROGRAMS).collect();
    let (answer, answers) = mpsc::channel();
    let deadline = Instant::now() + PATIENCE;
    let of = procfs.clone();
    // In a thread of its own: a file may lie on a file system that never answers. It ends with this process.
    let reader = thread::Builder::new().name("executables".to_owned()).spawn(move || {
        for (name, pid) in jobs {
            if answer.send((name, look(&of, pid, deadline))).is_err() {
                return;
            }
        }
    });
    let mut found = Vec::new();
    if reader.is_ok() {
        while let Ok((name, looked)) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            found.extend(looked.map(|looked| (name, looked)));
        }
    }
    let missing = total - found.len();
    (found, missing)
}
