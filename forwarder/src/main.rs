//! `spantap`: configuration, build, run, drain.

use std::process::ExitCode;

fn main() -> ExitCode {
    match spantap::run::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("spantap: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
