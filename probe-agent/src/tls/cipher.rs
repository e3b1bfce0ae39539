//! Programs whose TLS library works in memory: their ciphertext is compared with what their sockets send.
//!
//! In: which processes do so, the files that they map. Out: a probe on `BIO_write` in these processes alone, as long as each
//! runs. It costs a stop for each record that is written, so no other process that uses the same file has it.

use std::collections::{HashMap, HashSet};

use super::{
    helper::{Helper, Refusal},
    library,
    mapped::{self, Key, Mapped},
    order::Function,
    stops,
};
use crate::discovery::ProcFs;

/// Processes that have the probe at once.
const MAX_PROCESSES: usize = 256;
/// Files whose function is known; beyond, they are looked through again.
const MAX_FILES: usize = 1024;
const FILES_OF_PROCESS: usize = 4;
/// Attachments are numbered apart from those of libraries.
const FIRST: u32 = 1 << 31;
/// Part of the names of programs that are known to work in memory. Others are once the kernel side has seen it, which is after
/// their first request.
const NODE: &str = "node";

/// What is attached where.
#[derive(Debug, Default)]
pub(super) struct Ciphers {
    /// Where the function is in a file, if it is there.
    files: HashMap<Key, Option<u64>>,
    attached: HashMap<u32, Vec<(Key, u32)>>,
    seen: HashSet<u32>,
    next: u32,
    told_full: bool,
}

impl Ciphers {
    /// Takes the place of `BIO_write` out of what was found in a file, and remembers it.
    pub(super) fn take(&mut self, key: &Key, places: &mut Vec<(Function, u64)>) {
        let found = places.iter().find(|(function, _)| *function == Function::Cipher).map(|(_, offset)| *offset);
        places.retain(|(function, _)| *function != Function::Cipher);
        self.remember(key, found);
    }

    fn remember(&mut self, key: &Key, found: Option<u64>) {
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        self.files.insert(key.clone(), found);
    }

    /// The kernel side has seen that the process works in memory.
    pub(super) fn works_in_memory(&mut self, pid: u32) {
        if self.seen.len() < MAX_PROCESSES {
            self.seen.insert(pid);
        }
    }

    /// Whether the process is to have the probe.
    pub(super) fn wanted(&self, pid: u32, executable: &str, maps: &[u8]) -> bool {
        let name = executable.rsplit('/').next().unwrap_or_default();
        self.seen.contains(&pid) || name.contains(NODE) || mapped::moves_bytes_itself(maps)
    }

    /// Attaches to what the process maps, and to its own file if that is `executable` (where a TLS library is linked into it).
    pub(super) fn look(&mut self, procfs: &ProcFs, helper: &Helper, pid: u32, maps: &[u8], executable: Option<&Key>) {
        for file in mapped::crypto(maps, FILES_OF_PROCESS) {
            if !self.has(pid, &file.key) {
                self.attach_to(procfs, helper, pid, &file);
            }
        }
        let Some(key) = executable.filter(|key| !self.has(pid, key)) else { return };
        let Some(offset) = self.files.get(key).copied().flatten() else { return };
        if let Ok(file) = library::open_executable(procfs, pid) {
            self.attach(helper, pid, key, &file, offset);
        }
    }

    fn has(&self, pid: u32, key: &Key) -> bool {
        self.attached.get(&pid).is_some_and(|attached| attached.iter().any(|(known, _)| known == key))
    }

    fn attach_to(&mut self, procfs: &ProcFs, helper: &Helper, pid: u32, mapped: &Mapped) {
        if self.files.get(&mapped.key) == Some(&None) {
            return;
        }
        // A file that cannot be opened now may be another process's at its next look.
        let Ok(file) = library::open_mapped(procfs, pid, mapped) else { return };
        let offset = match self.files.get(&mapped.key) {
            Some(known) => *known,
            None => {
                let found = library::cipher(&file);
                self.remember(&mapped.key, found);
                found
            }
        };
        if let Some(offset) = offset {
            self.attach(helper, pid, &mapped.key, &file, offset);
        }
    }

    fn attach(&mut self, helper: &Helper, pid: u32, key: &Key, file: &std::fs::File, offset: u64) {
        if !self.attached.contains_key(&pid) && self.attached.len() >= MAX_PROCESSES {
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!(
                    pid,
                    "more than {MAX_PROCESSES} programs have TLS libraries that work in memory: the peers of further ones \
                     are not told"
                );
            }
            return;
        }
        let number = FIRST | self.next;
        self.next = self.next.wrapping_add(1) & (FIRST - 1);
        match helper.attach_to(number, pid, stops::plan(file, &[(Function::Cipher, offset)]), file) {
            Ok(()) => {
                tracing::debug!(pid, "its ciphertext is compared: its TLS library works in memory");
                self.attached.entry(pid).or_default().push((key.clone(), number));
            }
            // It may have ended meanwhile.
            Err(Refusal::Kernel(words)) => tracing::debug!(pid, words, "the peers of its TLS connections are not told"),
            Err(gone) => tracing::debug!(%gone, "no further ciphertext is compared"),
        }
    }

    /// The process is observed no more.
    pub(super) fn leave(&mut self, helper: Option<&Helper>, pid: u32) {
        self.seen.remove(&pid);
        for (_, number) in self.attached.remove(&pid).unwrap_or_default() {
            if let Some(helper) = helper {
                helper.detach(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_work_in_memory_are_known_by_name_by_map_or_once_seen() {
        let mut ciphers = Ciphers::default();
        let asyncio =
            b"7f02-7f03 r-xp 0 fe:00 14 /usr/lib/python3.11/lib-dynload/_asyncio.cpython-311-x86_64-linux-gnu.so";
        assert!(ciphers.wanted(1, "/usr/bin/node", b""));
        assert!(ciphers.wanted(1, "/usr/bin/python3.11", asyncio));
        assert!(!ciphers.wanted(1, "/usr/sbin/nginx", b""));
        assert!(!ciphers.wanted(1, "/srv/node/nginx", b""));
        ciphers.works_in_memory(1);
        assert!(ciphers.wanted(1, "/usr/sbin/nginx", b""));
        ciphers.leave(None, 1);
        assert!(!ciphers.wanted(1, "/usr/sbin/nginx", b""));
    }

    #[test]
    fn the_function_is_kept_apart_from_those_of_the_library() {
        let mut ciphers = Ciphers::default();
        let key = (b"exe 1".to_vec(), 2);
        let mut places = vec![(Function::Read, 1), (Function::Cipher, 7), (Function::Write, 3)];
        ciphers.take(&key, &mut places);
        assert_eq!(places, [(Function::Read, 1), (Function::Write, 3)]);
        assert_eq!(ciphers.files.get(&key), Some(&Some(7)));
        for inode in 0..2 * MAX_FILES as u64 {
            ciphers.take(&(Vec::new(), inode), &mut places);
        }
        assert!(ciphers.files.len() <= MAX_FILES);
    }
}
