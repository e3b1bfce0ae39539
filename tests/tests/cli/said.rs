//! A program that is run to its end.
//!
//! In: its arguments and environment. Out: its exit code and what it said, or what was expected of that and is not so.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use spantap_tests::{host, spantap::clear_environment};

/// Longest time for an end.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a finished program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(host::built(program)?);
    command.args(arguments);
    clear_environment(&mut command);
    Ok(command)
}

/// Runs to its end; a program that does not end has failed the test, not hung it.
pub(crate) fn run(mut command: Command) -> Result<Said> {
    let folder = host::folder()?;
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?);
    let mut child = command.spawn()?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} did not end\n{}", std::fs::read_to_string(&err)?);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(Said { code: status.code(), out: std::fs::read_to_string(out)?, err: std::fs::read_to_string(err)? })
}

pub(crate) fn spantap(arguments: &[&str]) -> Result<Said> {
    run(command("spantap", arguments)?)
}

pub(crate) fn expect_code(said: &Said, code: i32, mentions: &[&str]) -> Result<()> {
    ensure!(said.code == Some(code), "exit code {:?}, not {code}: {said:?}", said.code);
    for text in mentions {
        ensure!(said.err.contains(text), "the message does not name {text:?}: {}", said.err);
    }
    ensure!(!said.err.contains("panicked"), "panicked: {}", said.err);
    Ok(())
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

pub(crate) fn with_port(port: u16) -> String {
    format!("discovery:\n  instrument:\n    - open_ports: {port}\n")
}
