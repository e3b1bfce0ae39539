//! `spantap-agent`: the privileged process. Configuration, load, stream, drain.

mod clock;
mod discovery;
mod drain;
mod encode;
mod privilege;
mod probes;
mod queue;
mod record;
mod run;
mod selected;
mod stream;

use std::process::ExitCode;

/// Loading needs tens of megabytes for a moment; this allocator gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spantap-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
