//! `spantap-agent` as a library: the program itself, and for the fuzz targets what reads hostile bytes.
//!
//! In: command line, environment, kernel, `/proc`. Out: a stream to the forwarder, see `run`.

mod cli;
mod clock;
mod connect;
mod discovery;
mod doctor;
mod drain;
mod encode;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grpc;
mod health;
mod locked_memory;
mod mapped;
mod memory;
mod privilege;
mod probes;
mod queue;
mod read_at;
mod record;
mod reload;
mod run;
mod seccomp;
mod selected;
mod stream;
mod supervisor;
mod tls;
mod usage;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::failure::Failure;

/// The program: configuration, load, stream, drain. Says why it ended, if it failed.
pub fn main() -> ExitCode {
    // Who was started by way of /proc/self/exe is called "exe" otherwise. A name that stays wrong does no harm.
    let _ = rustix::thread::set_name(c"spantap-agent");
    match run::main() {
        Ok(()) => ExitCode::SUCCESS,
        // The child has said it.
        Err(failure @ Failure::Child(_)) => ExitCode::from(failure.exit_code()),
        Err(error) => {
            // In one piece: both programs write to one terminal, and lines are not to mix.
            let _ = io::stderr().write_all(format!("spantap-agent: {error}\n").as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}
