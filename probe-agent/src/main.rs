//! `spantap-agent`: the privileged process. Configuration, load, stream, drain.

mod clock;
mod discovery;
mod doctor;
mod drain;
mod encode;
mod memory;
mod privilege;
mod probes;
mod queue;
mod record;
mod run;
mod seccomp;
mod selected;
mod stream;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

fn main() -> ExitCode {
    match run::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one piece: both programs write to one terminal, and lines are not to mix.
            let _ = io::stderr().write_all(format!("spantap-agent: {error}\n").as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}
