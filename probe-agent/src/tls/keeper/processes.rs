//! Processes that the keeper knows.
//!
//! In: which processes are observed, and which no more. Out: what is known of each; of one that has ended for some seconds longer,
//! because what the kernel side tells of its last connections may come after that it has ended.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::Key;

/// When a process is looked at after it was selected: libraries are mapped when it starts, and by dlopen later. Later still
/// it is looked at when it speaks TLS.
const LOOKS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(200),
    // Programs of Python load much at their start.
    Duration::from_millis(700),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
];
/// Longer than what the kernel side has told waits to be read, unless the agent is held up.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Processes that have ended; with more the oldest is forgotten.
const MAX_ENDED: usize = 1024;

/// What is known of a process.
pub(super) struct Watched {
    pub(super) executable: String,
    began: Instant,
    /// Looks that are done.
    looks: usize,
    pub(super) libraries: Vec<Key>,
    /// Libraries that are known, and when they were looked for.
    pub(super) others: Option<(Instant, Vec<&'static str>)>,
}

impl Watched {
    /// One that is observed from now on.
    pub(super) fn new(executable: String) -> Self {
        Self { executable, began: Instant::now(), looks: 0, libraries: Vec::new(), others: None }
    }

    fn due(&self) -> Option<Instant> {
        LOOKS.get(self.looks).map(|after| self.began + *after)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Processes {
    observed: HashMap<u32, Watched>,
    ended: VecDeque<(Instant, u32, Watched)>,
}

impl Processes {
    pub(super) fn insert(&mut self, pid: u32, watched: Watched) {
        self.observed.insert(pid, watched);
    }

    /// One that is observed.
    pub(super) fn get(&self, pid: u32) -> Option<&Watched> {
        self.observed.get(&pid)
    }

    /// One that is observed.
    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Watched> {
        self.observed.get_mut(&pid)
    }

    /// One that is observed, or was until a short time ago.
    pub(super) fn known(&self, pid: u32) -> Option<&Watched> {
        self.get(pid).or_else(|| {
            let ended = self.ended.iter().rev().find(|(_, ended, _)| *ended == pid);
            ended.filter(|(since, ..)| since.elapsed() < REMEMBERED).map(|(.., watched)| watched)
        })
    }

    /// It is observed no more; gives the libraries that it used.
    pub(super) fn leave(&mut self, pid: u32) -> Vec<Key> {
        let Some(watched) = self.observed.remove(&pid) else { return Vec::new() };
        let libraries = watched.libraries.clone();
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((Instant::now(), pid, watched));
        libraries
    }

    /// Forgets those that ended long ago.
    pub(super) fn forget(&mut self) {
        while self.ended.front().is_some_and(|(since, ..)| since.elapsed() >= REMEMBERED) {
            self.ended.pop_front();
        }
    }

    /// When the next one is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.observed.values().filter_map(Watched::due).min()
    }

    /// Those that are to be looked at now; each look counts as done.
    pub(super) fn now_due(&mut self) -> Vec<u32> {
        let now = Instant::now();
        let due = self.observed.iter_mut().filter(|(_, watched)| watched.due().is_some_and(|due| due <= now));
        due.map(|(pid, watched)| {
            watched.looks += 1;
            *pid
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_ended_is_known_for_a_while() {
        let mut processes = Processes::default();
        processes.insert(7, Watched::new("first".to_owned()));
        assert_eq!(processes.now_due(), [7]);
        assert!(processes.leave(7).is_empty() && processes.get(7).is_none());
        assert!(processes.known(7).is_some_and(|watched| watched.executable == "first"));
        // Another with its number.
        processes.insert(7, Watched::new("second".to_owned()));
        assert!(processes.known(7).is_some_and(|watched| watched.executable == "second"));
        processes.leave(7);
        assert!(processes.known(7).is_some_and(|watched| watched.executable == "second"));
        assert!(processes.known(8).is_none());
        for pid in 0..2 * MAX_ENDED as u32 {
            processes.insert(pid, Watched::new(String::new()));
            processes.leave(pid);
        }
        assert_eq!(processes.ended.len(), MAX_ENDED);
    }
}
