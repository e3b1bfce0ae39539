//! Privilege: what is needed to start, and giving up what is not needed any more.
//!
//! In: the capabilities and groups of the process, the ingest socket in the file system. Out: a clear error that names
//! the missing capability, or fewer capabilities.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability, CapsHashSet};
use rustix::{
    process::{Gid, getegid, geteuid, getgroups},
    thread::set_thread_groups,
};

/// Capabilities that reading `/proc` of other users' processes takes; kept after attaching.
const KEPT: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
/// Kept as well where the mode of the ingest socket may keep the agent out, see [`Socket`].
const OVERRIDE: Capability = Capability::CAP_DAC_OVERRIDE;

/// Kept as well if TLS is read, where it is held: the way to a library's file that was deleted or replaced while programs run it.
const FILES_OF_MAPS: Capability = Capability::CAP_CHECKPOINT_RESTORE;

/// A capability is missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent needs {missing}; run it as root, or give it that capability (docker: cap_add, systemd: AmbientCapabilities)"
)]
pub struct Missing {
    missing: &'static str,
}

/// Checks what loading and attaching take.
///
/// # Errors
/// Names the first capability that is missing.
pub fn check() -> Result<(), Missing> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let admin = held.contains(&Capability::CAP_SYS_ADMIN);
    if !admin && !held.contains(&Capability::CAP_BPF) {
        return Err(Missing { missing: "CAP_BPF (or CAP_SYS_ADMIN)" });
    }
    if !admin && !held.contains(&Capability::CAP_PERFMON) {
        return Err(Missing { missing: "CAP_PERFMON (or CAP_SYS_ADMIN)" });
    }
    for (capability, name) in KEPT.into_iter().zip(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]) {
        if !held.contains(&capability) {
            tracing::warn!("without {name} processes of other users may not be found or described");
        }
    }
    Ok(())
}

/// Whether attaching probes to functions of other programs is allowed: kernels from mid-2025 on ask CAP_SYS_ADMIN.
pub fn may_attach_to_functions() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false)
}

/// What connecting to the ingest socket takes once root's right to pass over file modes is given up.
#[derive(Debug, PartialEq, Eq)]
pub enum Socket {
    /// Its mode lets the agent in, by itself or by the group that was joined.
    Open,
    /// It is not there, so whose it will be is not known; or it is there and its group cannot be joined or would not
    /// do. Connecting may take CAP_DAC_OVERRIDE.
    MayBeClosed {
        /// Path of the socket.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },
}

/// Sees to it that the agent may connect to the socket, which is the forwarder's and its group's: joins that
/// group if that is what it takes. Call while there is one thread, and before [`drop_unneeded`]: it takes CAP_SETGID.
pub fn reach(path: &Path) -> Socket {
    let closed = |reason: String| Socket::MayBeClosed { path: path.to_owned(), reason };
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return closed("it is not there yet".to_owned()),
        Err(error) => return closed(error.to_string()),
    };
    let mut groups = match getgroups() {
        Ok(groups) => groups,
        Err(error) => return closed(error.to_string()),
    };
    let group = Gid::from_raw(found.gid());
    let member = group == getegid() || groups.contains(&group);
    match way_in(found.mode(), found.uid() == geteuid().as_raw(), member) {
        WayIn::Open => Socket::Open,
        WayIn::Closed => closed(format!("its mode {:o} admits neither its group nor others", found.mode() & 0o777)),
        WayIn::Join => {
            groups.push(group);
            match set_thread_groups(&groups) {
                Ok(()) => Socket::Open,
                Err(error) => closed(format!("its group {} cannot be joined: {error}", group.as_raw())),
            }
        }
    }
}

/// How the mode of a socket lets a process in that has no right to override it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayIn {
    /// As it is.
    Open,
    /// Once the socket's group is joined.
    Join,
    /// Not at all.
    Closed,
}

/// As the kernel does it: the first of owner, group, others that fits decides, and connecting is writing.
pub fn way_in(mode: u32, owner: bool, member: bool) -> WayIn {
    let bit = match (owner, member) {
        (true, _) => 0o200,
        (false, true) => 0o020,
        (false, false) if mode & 0o002 != 0 => return WayIn::Open,
        (false, false) if mode & 0o020 != 0 => return WayIn::Join,
        (false, false) => return WayIn::Closed,
    };
    if mode & bit == 0 { WayIn::Closed } else { WayIn::Open }
}

/// What takes privilege only if somebody wants it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Attaching to TLS libraries.
    pub tls: bool,
    /// Changing requests.
    pub propagation: bool,
}

/// For a process that only starts agents: what they will not need, nobody that it starts can have. If it is root, it
/// keeps no capability of its own; a program that root starts gets those of the bounding set.
///
/// # Errors
/// If the kernel refuses, which it never does for giving up.
pub fn bound(wanted: Wanted) -> Result<(), caps::errors::CapsError> {
    let mut needed: CapsHashSet = KEPT.into_iter().collect();
    let loading = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    needed.extend([OVERRIDE, Capability::CAP_SETGID, Capability::CAP_SETPCAP]);
    needed.extend(loading);
    let held = caps::read(None, CapSet::Permitted)?;
    if wanted.propagation {
        needed.insert(Capability::CAP_NET_ADMIN);
    }
    if wanted.tls || !loading.iter().all(|capability| held.contains(capability)) {
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    if wanted.tls {
        needed.insert(FILES_OF_MAPS);
    }
    give_up_in_bounding_set(&needed);
    if geteuid().is_root() {
        caps::clear(None, CapSet::Effective)?;
        caps::clear(None, CapSet::Permitted)?;
    }
    Ok(())
}

/// Without CAP_SETPCAP the bounding set stays as it is.
fn give_up_in_bounding_set(keep: &CapsHashSet) {
    for capability in caps::all().into_iter().filter(|capability| !keep.contains(capability)) {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
}

/// Gives up everything but [`KEPT`] and what the socket and (if that is read) TLS take, for this thread and what it starts; returns the names of
/// what is left.
///
/// # Errors
/// If the kernel refuses, which it never does for giving up.
pub fn drop_unneeded(socket: &Socket, tls: bool) -> Result<Vec<String>, caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let wanted = KEPT.into_iter().chain(tls.then_some(FILES_OF_MAPS));
    let mut keep: CapsHashSet = wanted.filter(|capability| held.contains(capability)).collect();
    if let Socket::MayBeClosed { path, reason } = socket
        && held.contains(&OVERRIDE)
    {
        keep.insert(OVERRIDE);
        tracing::warn!(
            socket = %path.display(),
            reason,
            "keeping CAP_DAC_OVERRIDE, which connecting to another user's socket may take; to do without it, start the \
             forwarder before the agent, or put the agent into the forwarder's group"
        );
    }
    caps::clear(None, CapSet::Ambient)?;
    // Where it stays as it is, no_new_privs closes that way.
    give_up_in_bounding_set(&keep);
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)?;
    let mut names: Vec<String> = keep.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixListener};

    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        for (mode, owner, member, expected) in [
            (0o660, true, false, WayIn::Open),
            (0o660, false, true, WayIn::Open),
            (0o660, false, false, WayIn::Join),
            (0o666, false, false, WayIn::Open),
            (0o600, false, false, WayIn::Closed),
            (0o600, false, true, WayIn::Closed),
            (0o640, false, false, WayIn::Closed),
            (0o060, true, true, WayIn::Closed),
            (0o606, false, true, WayIn::Closed),
        ] {
            assert_eq!(way_in(mode, owner, member), expected, "{mode:o} {owner} {member}");
        }
    }

    #[test]
    fn a_socket_of_ones_own_is_open_and_one_that_is_not_there_may_be_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ingest.sock");
        assert!(matches!(reach(&path), Socket::MayBeClosed { reason, .. } if reason.contains("not there")));
        let _listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert_eq!(reach(&path), Socket::Open);
    }
}
