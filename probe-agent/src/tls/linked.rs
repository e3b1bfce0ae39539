//! Programs whose requests are linked, and those whose are not, by runtime: for the log and the agent's status.
//!
//! In: what was found of programs. Out: at most [`MAX_PROGRAMS`] entries; a line in the log for each finding. And without a start, for
//! the doctor: a process. Out: its runtime, whether it can be linked ([`linkable`]).

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use spantap_proto::v1;

use super::{Links, go, node, python, tokio};
use crate::discovery::{ProcFs, ReadError};

/// Entries that are kept; what more programs have come to stands in the log only.
const MAX_PROGRAMS: usize = 64;

/// What became of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// Its requests are linked.
    Linked,
    /// Some are, and why not all.
    Partly(&'a str),
    /// None are, and why.
    Not(&'a str),
}

/// All of them, shared with who tells the forwarder.
#[derive(Debug, Clone, Default)]
pub(super) struct Linked(Arc<Mutex<Vec<v1::LinkedProgram>>>);

impl Linked {
    /// Notes what became of a program of this runtime.
    pub(super) fn note(&self, executable: &str, runtime: &str, state: State<'_>) {
        let (state, reason) = match state {
            State::Linked => (v1::LinkedState::Linked, ""),
            State::Partly(reason) => (v1::LinkedState::Partly, reason),
            State::Not(reason) => (v1::LinkedState::Not, reason),
        };
        let entry = v1::LinkedProgram {
            executable: executable.to_owned(),
            runtime: runtime.to_owned(),
            state: state.into(),
            reason: reason.to_owned(),
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() < MAX_PROGRAMS && !entries.contains(&entry) {
            entries.push(entry);
        }
    }

    /// The same, and a line in the log for a program that is not linked.
    pub(super) fn refuse(&self, pid: u32, executable: &str, runtime: &str, reason: &str) {
        tracing::info!(pid, executable, runtime, reason, "requests of this program are not linked");
        self.note(executable, runtime, State::Not(reason));
    }

    /// What is known so far.
    pub(super) fn programs(&self) -> Vec<v1::LinkedProgram> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A program of a runtime that may tell which request another one is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linkable {
    /// Such as Go.
    pub runtime: &'static str,
    /// Why its requests are not linked, or not all; `None`: they are, where the kernel takes what that needs.
    pub but: Option<String>,
}

/// What a process runs; `None`: it is of no runtime whose requests are linked here, with `links`.
///
/// # Errors
/// When it may not be looked at, or is gone.
pub(crate) fn linkable(procfs: &ProcFs, pid: u32, links: Links) -> Result<Option<Linkable>, ReadError> {
    let file = File::open(procfs.path(pid, "exe"))?;
    let of = |runtime, but: Option<String>| Ok(Some(Linkable { runtime, but }));
    if let Some(found) = go::links::find(&file) {
        return of("Go", found.err().map(|why| why.to_string()));
    }
    if let Some(found) = node::find(&file) {
        return of("Node", found.err().map(|why| why.to_string()));
    }
    match python::linkable(procfs, pid)? {
        Some(found) => of(python::RUNTIME, found.err()),
        None if links.tokio => match tokio::linkable(&file) {
            Some(found) => of(tokio::RUNTIME, found.err()),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_entries_are_bounded() {
        let linked = Linked::default();
        for _ in 0..2 {
            linked.note("/a", "Go", State::Linked);
            linked.note("/a", "Go", State::Partly("why"));
            linked.refuse(1, "/a", "Go", "why");
        }
        let states: Vec<_> = linked.programs().iter().map(|entry| (entry.state(), entry.reason.clone())).collect();
        let expected = [(v1::LinkedState::Linked, ""), (v1::LinkedState::Partly, "why"), (v1::LinkedState::Not, "why")];
        assert_eq!(states, expected.map(|(state, reason)| (state, reason.to_owned())));
        (0..2 * MAX_PROGRAMS).for_each(|n| linked.note(&n.to_string(), "Node", State::Linked));
        assert_eq!(linked.programs().len(), MAX_PROGRAMS);
    }
}
