//! Which processes are observed, and what is known about them.
//!
//! In: `/proc`, process events of the kernel (fork, exec, exit, listen), the `discovery` section of the
//! configuration. Out: [`Change`]s, from which the caller keeps the kernel's set of watched pids and
//! tells the forwarder about processes, and a look-up from (pid, start) to the id on the wire.
//!
//! Everything below `/proc` is partly written by the watched processes themselves: it is read with
//! bounds, and a file that vanishes or may not be read is a normal case that is counted.

mod budget;
mod clock;
mod container;
mod counts;
mod elf;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod language;
mod listeners;
mod ports;
mod processes;
mod procfs;
mod program;
mod selection;
mod stat;
mod wire;

pub(crate) use container::container_of;
pub(crate) use counts::Counts;
pub(crate) use listeners::Listeners;
pub(crate) use ports::PortSet;
pub(crate) use processes::{Change, Limits, Process, Processes, Walk};
pub(crate) use procfs::{ProcFs, ReadError};
pub(crate) use program::Program;
pub(crate) use selection::{Entry, interesting_ports, provisional_exec};
