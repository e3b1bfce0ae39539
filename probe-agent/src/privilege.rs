//! Privilege: what is needed to start, and giving up what is not needed any more.
//!
//! In: the capabilities of the process. Out: a clear error that names the missing one, or fewer capabilities.

use caps::{CapSet, Capability, CapsHashSet};

/// Capabilities that reading `/proc` of other users' processes takes; all that is kept after attaching.
const KEPT: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

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

/// Gives up everything but [`KEPT`], for this thread and what it starts; returns the names of what is left.
///
/// # Errors
/// If the kernel refuses, which it never does for giving up.
pub fn drop_unneeded() -> Result<Vec<String>, caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = KEPT.into_iter().filter(|capability| held.contains(capability)).collect();
    caps::clear(None, CapSet::Ambient)?;
    // Without CAP_SETPCAP the bounding set stays as it is; no_new_privs closes that way.
    for capability in caps::all().into_iter().filter(|capability| !keep.contains(capability)) {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)?;
    let _ = rustix::thread::set_no_new_privs(true);
    let mut names: Vec<String> = keep.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}
