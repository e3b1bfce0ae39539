//! Who listens on which TCP port.
//!
//! In: `/proc/PID/net/tcp` and `tcp6` of one process of each network namespace (proc_net(5)), and the descriptors of
//! processes. Out: the ports that a process listens on.

use std::io::{BufRead, BufReader, Read};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Counts, PortSet, ProcFs, ReadError, facts::note};

/// `TCP_LISTEN` in `include/net/tcp_states.h`.
const LISTEN: &[u8] = b"0A";
/// Bytes of one socket table that are read. The kernel lists listening sockets before all others.
const MAX_TABLE_BYTES: u64 = 4 * 1024 * 1024;
/// Longest line of a socket table; the kernel pads them to 150 bytes.
const MAX_LINE_BYTES: u64 = 512;
/// Sockets in another state in a row, after which no more listening ones are expected.
const MAX_OTHERS: usize = 512;
/// Listening sockets that are known at once.
const MAX_LISTENERS: usize = 65_536;
/// Descriptors of a process that are looked at. Servers listen before they accept, so listening sockets have low numbers.
const MAX_DESCRIPTORS: usize = 4096;

/// After how many ordinary refreshes a namespace is due to be read again. The kernel goes through its whole hash table of
/// connections for each table that it shows (some milliseconds), and new listeners are told by events.
const ROUND: u64 = 60;

/// Listening sockets of the whole host.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// What the tables of each network namespace held when they were read.
    namespaces: FxHashMap<Vec<u8>, Table>,
    /// All of them by inode, which is unique across network namespaces.
    ports: FxHashMap<u64, u16>,
    refreshes: u64,
}

#[derive(Debug)]
struct Table {
    ports: FxHashMap<u64, u16>,
    /// The refresh that read it.
    read: u64,
}

impl Listeners {
    /// Reads the tables of the namespaces that `pids` are in, keeping ports of `interest`: of all of them if `thorough`,
    /// else of those that were not there before, and of a few that are due.
    /// True if there is a socket that was not there the last time.
    pub(crate) fn refresh(
        &mut self,
        procfs: &ProcFs,
        pids: impl Iterator<Item = u32>,
        interest: &PortSet,
        thorough: bool,
        counts: &mut Counts,
    ) -> bool {
        self.refreshes += 1;
        // What is due at once, because it was first read at once, is spread over the refreshes.
        let mut again = if thorough { u64::MAX } else { (self.namespaces.len() as u64).div_ceil(ROUND) };
        let mut present = FxHashSet::default();
        for pid in pids {
            let namespace = match procfs.link(pid, "ns/net") {
                Ok(namespace) => namespace,
                Err(error) => {
                    note(&error, counts);
                    continue;
                }
            };
            if present.contains(&namespace) {
                continue;
            }
            let age = self.namespaces.get(&namespace).map(|table| self.refreshes - table.read);
            let due = age.is_some_and(|age| thorough || age >= ROUND) && again > 0;
            if age.is_none() || due {
                again -= u64::from(due);
                // If this process is just ending, the next one of the namespace is asked.
                let Some(ports) = read_tables(procfs, pid, interest, counts) else { continue };
                self.namespaces.insert(namespace.clone(), Table { ports, read: self.refreshes });
            }
            present.insert(namespace);
        }
        self.namespaces.retain(|namespace, _| present.contains(namespace));
        let tables = self.namespaces.values().flat_map(|table| &table.ports);
        let ports: FxHashMap<u64, u16> = tables.map(|(&inode, &port)| (inode, port)).take(MAX_LISTENERS).collect();
        let new = ports.keys().any(|inode| !self.ports.contains_key(inode));
        self.ports = ports;
        new
    }

    /// All ports, ascending, as far as the last refresh knew them.
    pub(crate) fn all(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.ports.values().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Ports of the listening sockets that `pid` holds, in ascending order, as far as the last refresh knew them.
    pub(crate) fn held_by(&self, procfs: &ProcFs, pid: u32, counts: &mut Counts) -> Vec<u16> {
        if self.ports.is_empty() {
            return Vec::new();
        }
        let (links, capped) = match procfs.descriptors(pid, MAX_DESCRIPTORS) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                note(&error, counts);
                return Vec::new();
            }
        };
        counts.descriptors_capped += u64::from(capped);
        let mut ports: Vec<u16> =
            links.iter().filter_map(|link| self.ports.get(&socket_inode(link)?).copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// `None` if the process was not there any more.
fn read_tables(procfs: &ProcFs, pid: u32, interest: &PortSet, counts: &mut Counts) -> Option<FxHashMap<u64, u16>> {
    let mut ports = FxHashMap::default();
    for name in ["net/tcp", "net/tcp6"] {
        match procfs.open(pid, name) {
            Ok(file) => read_table(BufReader::new(file.take(MAX_TABLE_BYTES)), interest, &mut ports),
            // Without IPv6 in the kernel there is no second table.
            Err(ReadError::Gone) if name == "net/tcp6" => {}
            Err(error) => {
                note(&error, counts);
                return None;
            }
        }
    }
    Some(ports)
}

pub(super) fn read_table(mut table: impl BufRead, interest: &PortSet, ports: &mut FxHashMap<u64, u16>) {
    let mut line = Vec::new();
    let mut others = 0;
    while others < MAX_OTHERS && ports.len() < MAX_LISTENERS {
        line.clear();
        match table.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            _ => break,
        }
        match listening(&line) {
            Some((inode, port)) => {
                others = 0;
                if interest.contains(port) {
                    ports.insert(inode, port);
                }
            }
            None => others += 1,
        }
    }
}

/// Inode and port of a line of the table, if it is a listening socket:
/// slot, local address and port, remote ones, state, queues, timer, retransmits, user, timeouts, inode, …
fn listening(line: &[u8]) -> Option<(u64, u16)> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let inode = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
    let colon = local.iter().rposition(|&byte| byte == b':')?;
    let port = u16::from_str_radix(std::str::from_utf8(local.get(colon + 1..)?).ok()?, 16).ok()?;
    // An inode of zero belongs to no descriptor.
    (inode != 0).then_some((inode, port))
}

/// The inode in `socket:[123]`, the target of a descriptor's link.
pub(super) fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
