//! Bounded reading below one `/proc`.
//!
//! In: a pid and a file name. Out: at most as many bytes as the caller allows, or why there are none.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Inode of the initial PID namespace on every Linux: `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";

const PAGE: usize = 4096;
/// Bytes of a memory map that are read: some 10,000 mappings.
const MAX_MAPS: u64 = 1 << 20;

/// Why something below `/proc` could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The process or the file is not there (any more).
    #[error("it does not exist")]
    Gone,
    /// This user may not read it: CAP_SYS_PTRACE or CAP_DAC_READ_SEARCH is missing.
    #[error("permission denied")]
    Denied,
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// A mounted `/proc`. Its pids are those of the PID namespace that it was mounted in, which has to be
/// the initial one for them to mean the same as the kernel's events.
#[derive(Debug, Clone)]
pub(crate) struct ProcFs {
    root: PathBuf,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl ProcFs {
    /// The `/proc` at `root`: another path than `/proc` where the host's is mounted elsewhere.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Path of `name` of the process `pid`.
    pub(crate) fn path(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    /// Opens `name` of the process `pid`.
    pub(crate) fn open(&self, pid: u32, name: &str) -> Result<File, ReadError> {
        Ok(File::open(self.path(pid, name))?)
    }

    /// The first `limit` bytes of `name` of the process `pid`.
    pub(crate) fn read(&self, pid: u32, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        // Room from the start: the kernel builds the text anew for each small read.
        let mut bytes = Vec::with_capacity(usize::try_from(limit).unwrap_or(PAGE).min(PAGE));
        self.open(pid, name)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What the process `pid` maps, as far as it is read.
    pub(crate) fn maps(&self, pid: u32) -> Result<Vec<u8>, ReadError> {
        self.read(pid, "maps", MAX_MAPS)
    }

    /// What one read of `name` of the process `pid` gives, at most `limit` bytes: of a file that the kernel writes line by
    /// line it is the first lines, and it does not go to the length of making the others.
    pub(crate) fn read_start(&self, pid: u32, name: &str, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; limit];
        let length = self.open(pid, name)?.read(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Where the symbolic link `name` of the process `pid` points. Does not touch the target.
    pub(crate) fn link(&self, pid: u32, name: &str) -> Result<Vec<u8>, ReadError> {
        Ok(read_link(&self.path(pid, name))?)
    }

    /// Every process now: thread group leaders only, as the kernel lists them.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, ReadError> {
        let mut pids = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    /// Up to `limit` open descriptors of `pid` as link targets, lowest first, and whether there were more.
    pub(crate) fn descriptors(&self, pid: u32, limit: usize) -> Result<(Vec<Vec<u8>>, bool), ReadError> {
        let mut entries = fs::read_dir(self.path(pid, "fd"))?;
        let mut links = Vec::new();
        for entry in entries.by_ref().take(limit) {
            match read_link(&entry?.path()) {
                Ok(link) => links.push(link),
                // Closed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((links, entries.next().is_some()))
    }

    /// Pid of the caller as this `/proc` numbers it, which differs from `getpid` in another PID namespace.
    pub(crate) fn own_pid(&self) -> Option<u32> {
        String::from_utf8(read_link(&self.root.join("self")).ok()?).ok()?.parse().ok()
    }

    /// Whether the pids here are those of the initial PID namespace, so that they are the ones that
    /// the kernel's events carry; `None` if it may not be known.
    pub(crate) fn is_initial_pid_namespace(&self) -> Option<bool> {
        Some(self.link(1, "ns/pid").ok()? == INITIAL_PID_NAMESPACE)
    }

    /// Whether the caller's own PID namespace is the initial one, which takes no privilege to ask.
    pub(crate) fn is_own_pid_namespace_initial(&self) -> Option<bool> {
        Some(self.link(self.own_pid()?, "ns/pid").ok()? == INITIAL_PID_NAMESPACE)
    }
}

fn read_link(path: &Path) -> io::Result<Vec<u8>> {
    Ok(fs::read_link(path)?.into_os_string().into_vec())
}

#[cfg(test)]
mod tests;
