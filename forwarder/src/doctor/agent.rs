//! The agent's half of the report.
//!
//! In: the program `spantap-agent`, run as a start would run it. Out: its checks; without them, one that says why.

use std::{
    io::{self, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use spantap_doctor::{Check, Group, Lack, Report};

use crate::agent;

/// How long the agent may look. It takes some 0.3 s, and 2.5 s more where executables do not answer.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Largest report that is read, bytes.
const MAX_REPORT: u64 = 1 << 20;
const ID: &str = "programs.agent";

/// Runs it.
pub(super) fn look(config: Option<&Path>, socket: &Path) -> Vec<Check> {
    let path = match agent::find() {
        Ok(path) => path,
        Err(error) => {
            return vec![Check::failed(
                Group::Programs,
                ID,
                Lack::Thing,
                error.to_string(),
                "put spantap-agent beside spantap; kernel, privilege and processes were not looked at",
            )];
        }
    };
    let mut command = Command::new(&path);
    command.args(["doctor", "--json", "--exclude-pid", &std::process::id().to_string()]).env("SPANTAP_SOCKET", socket);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    match finish(&mut command, PATIENCE) {
        Ok(ended) => judge(&path, &ended),
        Err(error) => vec![Check::failed(
            Group::Programs,
            ID,
            Lack::Thing,
            format!("cannot run {}: {error}", path.display()),
            "see to it that this user may execute it and that it is built for this machine",
        )],
    }
}

/// What the agent said.
#[derive(Debug)]
struct Ended {
    /// `None`: it was ended, because it took too long.
    status: Option<ExitStatus>,
    out: Vec<u8>,
    err: Vec<u8>,
}

fn finish(command: &mut Command, patience: Duration) -> io::Result<Ended> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let out = reader(child.stdout.take());
    let err = reader(child.stderr.take());
    let status = wait(&mut child, patience)?;
    let read = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Ended { status, out: read(out), err: read(err) })
}

/// Reads in the background, so that neither pipe fills up; ends with the child, which has no children.
fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error counts.
            let _ = pipe.by_ref().take(MAX_REPORT).read_to_end(&mut bytes);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        bytes
    })
}

fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_AGAIN);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn judge(path: &Path, ended: &Ended) -> Vec<Check> {
    let path = path.display();
    let Some(status) = ended.status else {
        return vec![Check::unknown(
            Group::Programs,
            ID,
            format!("{path} doctor did not end within {} s and was stopped", PATIENCE.as_secs()),
            "try again when the machine is less busy, or run `spantap-agent doctor` by itself",
        )];
    };
    match Report::from_json(&ended.out) {
        Ok(report) if report.version == env!("CARGO_PKG_VERSION") => {
            let mut checks = report.checks;
            // Told once, by this program.
            checks.retain(|check| check.group != Group::Configuration);
            checks.push(Check::ok(Group::Programs, ID, path.to_string()));
            checks
        }
        Ok(report) => vec![release(&format!("{path} is of release {}", report.version))],
        Err(_) if status.code() == Some(64) => {
            let words = String::from_utf8_lossy(&ended.err);
            vec![release(&format!("{path} does not know doctor")).with_details(words.lines().take(3))]
        }
        Err(error) => {
            let words = String::from_utf8_lossy(&ended.err);
            let check = Check::failed(
                Group::Programs,
                ID,
                Lack::Thing,
                format!("{path} doctor ended with {status} and gave no report ({error})"),
                "run `spantap-agent doctor` by itself to see why",
            );
            vec![check.with_details(words.lines().take(6))]
        }
    }
}

fn release(finding: &str) -> Check {
    let finding = format!("{finding}, this is {}", env!("CARGO_PKG_VERSION"));
    Check::failed(Group::Programs, ID, Lack::Thing, finding, "install the same release of both programs")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use spantap_doctor::State;

    use super::*;
    use crate::agent::PROGRAM;

    fn run(script: &str) -> Vec<Check> {
        let ended = finish(Command::new("/bin/sh").args(["-c", script]), PATIENCE).unwrap();
        judge(Path::new("/opt/spantap-agent"), &ended)
    }

    fn printing(report: &Report) -> Vec<Check> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, report.json()).unwrap();
        run(&format!("cat {}; exit 77", path.display()))
    }

    #[test]
    fn checks_of_the_agent_are_taken_over_whatever_its_exit_code() {
        let checks = vec![
            Check::ok(Group::Kernel, "kernel.btf", "there"),
            Check::ok(Group::Configuration, "configuration.valid", "the same"),
        ];
        let report = Report::new(PROGRAM, env!("CARGO_PKG_VERSION"), checks, vec![]);
        let ids: Vec<String> = printing(&report).into_iter().map(|check| check.id).collect();
        assert_eq!(ids, ["kernel.btf", ID]);
    }

    #[test]
    fn an_agent_that_says_nothing_useful_is_one_line_with_a_fix() {
        let report = Report::new(PROGRAM, "0.0.0", vec![], vec![]);
        for (checks, mentions) in [
            (printing(&report), "release 0.0.0"),
            (run("echo 'error: unrecognized subcommand' >&2; exit 64"), "does not know doctor"),
            (run("echo Killed >&2; kill -9 $$"), "gave no report"),
            (run("yes | head -c 3000000"), "gave no report"),
        ] {
            let [check] = checks.as_slice() else { panic!("{checks:?}") };
            assert_eq!((check.state, check.exit_code), (State::Failed, Some(Lack::Thing)));
            assert!(check.finding.contains(mentions) && check.fix.is_some(), "{check:?}");
        }
    }

    #[test]
    fn an_agent_that_does_not_end_is_not_waited_for() {
        let ended = finish(Command::new("/bin/sleep").arg("60"), Duration::from_millis(100)).unwrap();
        let checks = judge(Path::new("/opt/spantap-agent"), &ended);
        assert_eq!(checks.first().map(|check| check.state), Some(State::Unknown));
    }
}
