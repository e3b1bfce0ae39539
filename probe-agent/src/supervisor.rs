//! The process between `spantap` and the agent that it started: starts the agent again when it dies.
//!
//! In: its own arguments; standard input, which ends when `spantap` does; SIGTERM, SIGINT. Out: one agent at a time, each
//! with the other end of its standard input here; the exit code of the last.
//!
//! `spantap` itself could not do it: it has given up all privilege. This process reads nothing but the end of its
//! input, and holds no capability; being root, the programs that it starts get those of the bounding set, which
//! holds what an agent needs and nothing else.

use std::{
    ffi::OsString,
    future::Future,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{failure::Failure, locked_memory, privilege};

/// Before the first start anew; doubled each time up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// After an agent has lived so long, the next death is a first one again.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait before an agent is started again.
#[derive(Debug)]
struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Pauses {
    /// After an agent that has lived for `lived`.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.next = SHORTEST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

/// Runs until `stop` resolves and the agent has ended, or until an agent ended with a code that says it would do so again.
///
/// # Errors
/// [`Failure::Child`] for such a code; if no agent can be started.
/// `wanted`: what agents may need privilege for.
pub async fn run(wanted: privilege::Wanted, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    // Agents may not do that: they are not given the capability for it.
    locked_memory::raise();
    privilege::bound(wanted).map_err(|error| Failure::Privilege(error.to_string()))?;
    tokio::pin!(stop);
    let mut pauses = Pauses::default();
    loop {
        let started = Instant::now();
        let mut agent = start()?;
        // Waiting for a child closes its input, which would stop it: so that is kept apart.
        let input = agent.stdin.take();
        let status = tokio::select! {
            biased;
            () = &mut stop => {
                drop(input);
                return drain(agent).await;
            }
            status = agent.wait() => status?,
        };
        if let Some(code) = final_code(status) {
            return Err(Failure::Child(code));
        }
        let pause = pauses.after(started.elapsed());
        let pause_ms = pause.as_millis() as u64;
        if status.success() {
            // It had made room for another, which is gone.
            tracing::info!(pause_ms, "the agent has ended; starting it again");
        } else {
            tracing::error!(%status, pause_ms, "the agent died; starting it again");
        }
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

/// The agent hands over what it holds and ends by itself within its shutdown timeout, once its input has ended.
async fn drain(mut agent: Child) -> Result<(), Failure> {
    let status = agent.wait().await?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Child(code)),
        None => {
            tracing::error!(%status, "the agent died while it stopped");
            Err(Failure::Child(1))
        }
    }
}

/// The exit code, if it says that the next agent would end the same way.
fn final_code(status: ExitStatus) -> Option<u8> {
    let code = u8::try_from(status.code()?).ok()?;
    Failure::is_final(code).then_some(code)
}

fn start() -> Result<Child, Failure> {
    // By this path the very same program is found even after an upgrade has replaced the file: the forwarder speaks
    // with agents of its own version only.
    let child = Command::new("/proc/self/exe")
        .arg0("spantap-agent")
        .args(arguments(std::env::args_os().skip(1)))
        .stdin(Stdio::piped())
        .spawn();
    child.map_err(|error| Failure::Unavailable(format!("cannot start the agent: {error}")))
}

/// The same, but for what made this process a supervisor.
fn arguments(own: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    own.filter(|argument| argument != "--supervise")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_steady_life() {
        let mut pauses = Pauses::default();
        let short = Duration::from_secs(1);
        let taken: Vec<u128> = (0..8).map(|_| pauses.after(short).as_millis()).collect();
        assert_eq!(taken, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(pauses.after(STEADY), SHORTEST);
        assert_eq!(pauses.after(short), SHORTEST * 2);
    }

    #[test]
    fn what_the_next_agent_could_not_do_better_is_final() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        for code in [64, 69, 77] {
            assert_eq!(final_code(exited(code)), Some(code as u8));
        }
        for status in [exited(0), exited(1), exited(101), ExitStatus::from_raw(9)] {
            assert_eq!(final_code(status), None, "{status}");
        }
    }

    #[test]
    fn the_agent_gets_the_same_arguments() {
        let own = ["--stop-with-stdin", "--supervise", "--config", "f.yml"].map(OsString::from);
        let passed: Vec<_> = arguments(own.into_iter()).collect();
        assert_eq!(passed, ["--stop-with-stdin", "--config", "f.yml"]);
    }
}
