//! Where the kernel side finds what it has to know of each program of CPython or tokio.
//!
//! In: programs. Out: their entries in the arrays `linked_programs` and `linked_gate` (`probes/python_link.h`), which are read at
//! the same time.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::core::Core;
use crate::mapped::MappedWords;

/// Words of an entry (`struct linked_program`).
const WORDS: usize = 4;
/// Entries that a program may have, from that of its number on.
const TRIES: u32 = 8;
const ENTRIES: u32 = 1024;
/// Words of the gate: a bit for each program, by the lower bits of its number.
const GATE: usize = 1024;

/// Both arrays.
pub struct Table {
    programs: MappedWords,
    gate: MappedWords,
    /// Place of each program.
    known: BTreeMap<u32, u32>,
}

/// What the kernel side is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// It has imported uvloop.
    pub(super) uvloop: bool,
    /// It is a program of tokio instead: `main` is where a thread has the number of its task.
    tokio: bool,
    /// Address of the pointer to the main interpreter.
    main: u64,
    context_type: u64,
    fields: u64,
}

impl Entry {
    /// With CPython's code from this address on.
    pub(super) fn of(core: &Core, code: u64, uvloop: bool) -> Self {
        const PAGE: u64 = 4096;
        let moved = code.wrapping_sub(core.code & !(PAGE - 1));
        let layout = core.layout;
        let fields = [layout.threads, layout.thread, layout.context, u16::from(layout.calls_with_state)];
        let fields = fields.iter().rev().fold(0, |word, field| word << 16 | u64::from(*field));
        Self {
            uvloop,
            tokio: false,
            main: moved.wrapping_add(core.runtime).wrapping_add(layout.main),
            context_type: moved.wrapping_add(core.context_type),
            fields,
        }
    }

    /// Of tokio: its threads have the number of their task this far from their thread pointer (`probes/tokio_link.h`).
    pub(super) fn of_tokio(place: u64) -> Self {
        Self { uvloop: false, tokio: true, main: place, context_type: 0, fields: 0 }
    }
}

impl Table {
    /// Words of both arrays.
    pub const SIZES: (usize, usize) = (ENTRIES as usize * WORDS, GATE);

    /// With the arrays' words, all 0.
    pub fn new(programs: MappedWords, gate: MappedWords) -> Self {
        Self { programs, gate, known: BTreeMap::new() }
    }

    /// Tells of a program; `false`: there is no place left for it.
    pub(super) fn set(&mut self, pid: u32, entry: Entry) -> bool {
        let is_free = |place: &u32| !self.known.values().any(|taken| taken == place);
        let known = self.known.get(&pid).copied();
        let free = || (0..TRIES).map(|step| pid.wrapping_add(step) % ENTRIES).find(is_free);
        let Some(place) = known.or_else(free) else { return false };
        // Nothing is taken of an entry that has no number.
        self.write(place, 0, 0);
        for (word, value) in [(1, entry.main), (2, entry.context_type), (3, entry.fields)] {
            self.write(place, word, value);
        }
        self.write(place, 0, u64::from(pid) | u64::from(entry.uvloop) << 32 | u64::from(entry.tokio) << 33);
        self.known.insert(pid, place);
        self.show(pid);
        true
    }

    /// The program is not linked any more.
    pub(super) fn clear(&mut self, pid: u32) {
        let Some(place) = self.known.remove(&pid) else { return };
        self.write(place, 0, 0);
        self.show(pid);
    }

    fn write(&self, place: u32, word: usize, value: u64) {
        if let Some(at) = self.programs.get(place as usize * WORDS + word) {
            at.store(value, Ordering::SeqCst);
        }
    }

    /// Puts the word of the gate right that this program has a bit of.
    fn show(&self, pid: u32) {
        let bit = |pid: u32| (pid as usize / 64 % GATE, 1 << (pid % 64));
        let (word, _) = bit(pid);
        let bits = self.known.keys().map(|pid| bit(*pid)).filter(|(of, _)| *of == word);
        if let Some(at) = self.gate.get(word) {
            at.store(bits.fold(0, |bits, (_, bit)| bits | bit), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs::File;

    use super::*;

    fn words(folder: &std::path::Path, name: &str, count: usize) -> MappedWords {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(folder.join(name)).unwrap();
        file.set_len(count as u64 * 8).unwrap();
        MappedWords::map(&file, count).unwrap()
    }

    #[test]
    fn programs_with_the_same_place_stand_behind_each_other_until_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (programs, gate) = Table::SIZES;
        let mut table = Table::new(words(folder.path(), "programs", programs), words(folder.path(), "gate", gate));
        let entry = Entry { uvloop: true, tokio: false, main: 1, context_type: 2, fields: 3 };
        let word = |table: &Table, at: usize| table.programs.get(at).unwrap().load(Ordering::SeqCst);
        let pids: Vec<u32> = (0..TRIES).map(|n| 1020 + n * ENTRIES).collect();
        for pid in &pids {
            assert!(table.set(*pid, entry));
            assert!(table.set(*pid, Entry { uvloop: false, ..entry }));
        }
        assert!(!table.set(1020 + TRIES * ENTRIES, entry));
        // Around the end.
        assert_eq!(word(&table, 3 * WORDS), u64::from(1020 + 7 * ENTRIES));
        assert_eq!((word(&table, 3 * WORDS + 1), word(&table, 3 * WORDS + 3)), (1, 3));
        let shown = |table: &Table, pid: u32| {
            table.gate.get(pid as usize / 64 % GATE).unwrap().load(Ordering::SeqCst) >> (pid % 64) & 1
        };
        assert!(pids.iter().all(|pid| shown(&table, *pid) == 1) && shown(&table, 1021) == 0);
        assert!(table.set(pids[7], Entry::of_tokio(5)));
        assert_eq!(word(&table, 3 * WORDS), u64::from(1020 + 7 * ENTRIES) | 1 << 33);
        table.clear(pids[7]);
        table.clear(77);
        assert_eq!((word(&table, 3 * WORDS), shown(&table, pids[7])), (0, 0));
        assert_eq!(shown(&table, pids[6]), 1);
    }
}
