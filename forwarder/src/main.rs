//! `spantap`: configuration, build, run, drain.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// musl's own allocator hands each large block back to the kernel at once, and a batch takes several: half of the forwarder's
/// time (docs/performance.md). This one asks the kernel for nothing that musl's does not (`confinement.rs`).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    match spantap::run::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // In one piece: both programs write to one terminal, and lines are not to mix.
            let _ = io::stderr().write_all(format!("spantap: {failure}\n").as_bytes());
            ExitCode::from(failure.exit_code())
        }
    }
}
