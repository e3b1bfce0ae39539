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

/// Listening sockets of the whole host by inode, which is unique across network namespaces.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ports: FxHashMap<u64, u16>,
}

impl Listeners {
    /// Reads the tables again, of the namespaces that `pids` are in, keeping ports of `interest`.
    /// True if there is a socket that was not there the last time.
    pub(crate) fn refresh(&mut self, procfs: &ProcFs, pids: &[u32], interest: &PortSet, counts: &mut Counts) -> bool {
        let mut namespaces = FxHashSet::default();
        let mut ports = FxHashMap::default();
        for &pid in pids {
            match procfs.link(pid, "ns/net") {
                Ok(namespace) if namespaces.contains(&namespace) => {}
                Ok(namespace) => {
                    // If this process is just ending, the next one of the namespace is asked.
                    if read_tables(procfs, pid, interest, &mut ports, counts) {
                        namespaces.insert(namespace);
                    }
                }
                Err(error) => note(&error, counts),
            }
        }
        let new = ports.keys().any(|inode| !self.ports.contains_key(inode));
        self.ports = ports;
        new
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

/// False if the process was not there any more.
fn read_tables(
    procfs: &ProcFs,
    pid: u32,
    interest: &PortSet,
    ports: &mut FxHashMap<u64, u16>,
    counts: &mut Counts,
) -> bool {
    for name in ["net/tcp", "net/tcp6"] {
        match procfs.open(pid, name) {
            Ok(file) => read_table(BufReader::new(file.take(MAX_TABLE_BYTES)), interest, ports),
            // Without IPv6 in the kernel there is no second table.
            Err(ReadError::Gone) if name == "net/tcp6" => {}
            Err(error) => {
                note(&error, counts);
                return false;
            }
        }
    }
    true
}

fn read_table(mut table: impl BufRead, interest: &PortSet, ports: &mut FxHashMap<u64, u16>) {
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
fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
