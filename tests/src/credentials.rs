//! What the kernel says of a process's privilege.
//!
//! In: a process id. Out: [`Credentials`], from `/proc/PID/status`.

use std::{fs, os::unix::fs::MetadataExt};

use anyhow::{Context, Result};

/// Bit of each capability that matters here, see capabilities(7).
pub mod bit {
    /// CAP_DAC_OVERRIDE
    pub const DAC_OVERRIDE: u64 = 1 << 1;
    /// CAP_DAC_READ_SEARCH
    pub const DAC_READ_SEARCH: u64 = 1 << 2;
    /// CAP_SETGID
    pub const SETGID: u64 = 1 << 6;
    /// CAP_SETPCAP
    pub const SETPCAP: u64 = 1 << 8;
    /// CAP_SYS_PTRACE
    pub const SYS_PTRACE: u64 = 1 << 19;
    /// CAP_SYS_ADMIN
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// CAP_PERFMON
    pub const PERFMON: u64 = 1 << 38;
    /// CAP_BPF
    pub const BPF: u64 = 1 << 39;
    /// CAP_CHECKPOINT_RESTORE
    pub const CHECKPOINT_RESTORE: u64 = 1 << 40;
    /// What an agent keeps once it is attached.
    pub const KEPT: u64 = SYS_PTRACE | DAC_READ_SEARCH;
    /// What it keeps if it reads TLS.
    pub const KEPT_WITH_TLS: u64 = KEPT | CHECKPOINT_RESTORE;
}

/// Users, capability sets and what closes the ways to more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective, saved and file system user.
    pub uids: Vec<u32>,
    /// Effective capabilities.
    pub effective: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Inheritable and ambient capabilities together.
    pub inherited: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// Whether system calls are filtered (mode 2).
    pub filtered: bool,
    /// Owner of the process's files in `/proc`: root if it is not dumpable, else its effective user.
    pub files_of: u32,
}

impl Credentials {
    /// Reads those of a process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("{path} has no {name}"))
        };
        let set = |name: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(field(name)?, 16)?);
        Ok(Self {
            uids: field("Uid")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?,
            effective: set("CapEff")?,
            permitted: set("CapPrm")?,
            inherited: set("CapInh")? | set("CapAmb")?,
            bounding: set("CapBnd")?,
            no_new_privileges: field("NoNewPrivs")? == "1",
            filtered: field("Seccomp")? == "2",
            files_of: fs::metadata(&path)?.uid(),
        })
    }

    /// Those of a forwarder that runs as `uid`: nothing at all, for good.
    pub fn of_forwarder(uid: u32) -> Self {
        Self {
            uids: vec![uid; 4],
            effective: 0,
            permitted: 0,
            inherited: 0,
            bounding: 0,
            no_new_privileges: true,
            filtered: true,
            files_of: 0,
        }
    }

    /// Those of an agent that runs as `uid` and has kept `capabilities`.
    pub fn of_agent(uid: u32, capabilities: u64) -> Self {
        Self { effective: capabilities, permitted: capabilities, bounding: capabilities, ..Self::of_forwarder(uid) }
    }
}
