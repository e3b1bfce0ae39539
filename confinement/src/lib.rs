//! What a process gives up for good once it runs: the agent and the forwarder each with lists of their own.
//!
//! In: lists of system calls. Out: a process that may make no others, cannot gain privilege, and whose
//! memory does not get out by a core dump or a tracer.

use std::io;

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

#[cfg(feature = "files")]
pub mod files;
pub mod system_calls;

/// Empties the bounding set, so that no program that this process starts can have a capability. Call it before becoming
/// another user: without CAP_SETPCAP the set stays as it is, and only [`seal`] closes that way.
pub fn empty_bounding_set() {
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// Gives up every capability of this thread and those that it starts later; returns whether there were any.
///
/// # Errors
/// What the kernel says; it has no reason to refuse.
pub fn give_up_capabilities() -> io::Result<bool> {
    let held = capabilities(None)?;
    let none = CapabilitySet::empty();
    let any = held.effective | held.permitted != none;
    clear_ambient_capability_set()?;
    // Filters of system calls may refuse this to who has none, as that of the forwarder's systemd unit does.
    if any || held.inheritable != none {
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    Ok(any)
}

/// Closes the ways by which the process could get more privilege, or its memory get out: no program that it starts has
/// more than itself, and there is no core dump, nor tracing by another process of the same user.
///
/// # Errors
/// What the kernel says; it has no reason to refuse.
pub fn seal() -> io::Result<()> {
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}
