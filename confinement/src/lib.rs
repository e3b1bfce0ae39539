//! What a process gives up for good once it runs: the agent and the forwarder each with lists of their own.
//!
//! In: lists of system calls. Out: a process that may make no others, cannot gain privilege, and whose
//! memory does not get out by a core dump or a tracer.

use std::io;

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

pub mod system_calls;

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
