//! Programs of somebody else on the sockets that are observed: a table of sockets with a program that looks at all that is sent.
//!
//! In: a port. Out: both ends of each connection with it that is made from now on are in that table; how many, and how many sends
//! the program saw. All is gone when it is dropped. Needs root and control groups v2.

use std::fs::File;

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, SockHash},
    programs::{CgroupAttachMode, SkMsg, SockOps},
};

use crate::host::Reason;

/// Compiled from `tests/probes/sockmap.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockmap.bpf.o"));

/// The programs, attached.
#[derive(Debug)]
pub struct Sockmap(Ebpf);

/// What they saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Ends of connections in the table, also of those that are closed.
    pub sockets: u64,
    /// Sends on them.
    pub sends: u64,
}

/// `None` if control groups v2 are mounted, else what is missing.
pub fn lacks_groups() -> Option<Reason> {
    group().is_none().then(|| "needs control groups v2, which are not mounted".to_owned())
}

/// Where they are mounted.
fn group() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words.filter(|words| words.get(2) == Some(&"cgroup2")).find_map(|words| words.get(1).map(|at| (*at).to_owned()))
}

impl Sockmap {
    /// Attaches them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(port: u16) -> Result<Self> {
        let mut object = EbpfLoader::new().override_global("watched_port", &u32::from(port), true).load(OBJECT)?;
        let sockets: SockHash<_, u64> = object.map("sockets").context("no table of sockets")?.try_into()?;
        let sockets = sockets.fd().try_clone()?;
        let sends: &mut SkMsg = object.program_mut("sockmap_sends").context("no program for sends")?.try_into()?;
        sends.load()?;
        sends.attach(&sockets)?;
        let group = File::open(group().context("no control groups")?)?;
        let name = "sockmap_connections";
        let connections: &mut SockOps = object.program_mut(name).context("no program for connections")?.try_into()?;
        connections.load()?;
        // A link stands beside others in any mode.
        connections.attach(group, CgroupAttachMode::Single)?;
        Ok(Self(object))
    }

    /// What they saw so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn seen(&self) -> Result<Seen> {
        let counts: Array<_, u64> = self.0.map("counts").context("no counts")?.try_into()?;
        Ok(Seen { sockets: counts.get(&0, 0)?, sends: counts.get(&1, 0)? })
    }
}
