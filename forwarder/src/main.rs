//! `spantap`: configuration, build, run, drain.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

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
