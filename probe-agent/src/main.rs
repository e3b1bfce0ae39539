//! `spantap-agent`: the privileged process. Configuration, load, stream, drain.

mod clock;
mod discovery;
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

use std::process::ExitCode;

fn main() -> ExitCode {
    match run::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spantap-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
