//! What the processes of the one command may still do, as the kernel tells it, and what becomes of the others when one of
//! them dies.
#![allow(missing_docs)]

use std::{fs, os::unix::fs::MetadataExt as _, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use spantap_tests::{
    credentials::{Credentials, bit},
    host::{self, wait_for},
    kernel_programs,
    load::Steady,
    place::{LIMIT, Place, observed},
    process::Process,
    servers::Server,
    spantap::child_of,
    suite::Suite,
};

/// For what must happen at once: a pipe has closed.
const SOON: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx")];
    Suite::new("privilege", lacks, || Ok(()))
        .case("three_processes_and_what_is_left_to_each", |()| three_processes())
        .case("agent_that_is_killed_is_started_again", |()| agent_is_killed())
        .case("agent_that_cannot_be_started_again_ends_all_with_its_code", |()| agent_ends_for_good())
        .case_unless(host::lacks("bpftool"), "killed_spantap_leaves_nothing_behind", |()| spantap_is_killed())
        .case("killed_supervisor_ends_all", |()| supervisor_is_killed())
        .run()
}

/// The one command at work: all three processes, and a server that is observed.
struct Whole {
    spantap: Process,
    place: Place,
    server: Server,
}

impl Whole {
    fn start() -> Result<Self> {
        let server = Server::nginx(1, None)?;
        let place = Place::new(server.port, "")?;
        let mut spantap = place.start(&[], "spantap", &[])?;
        observed(&mut spantap, server.port, "/begin")?;
        Ok(Self { spantap, place, server })
    }

    fn observed(&mut self, path: &str) -> Result<()> {
        observed(&mut self.spantap, self.server.port, path)
    }

    fn supervisor(&self) -> Result<u32> {
        child_of(self.spantap.pid()).context("spantap has no child")
    }

    fn agent(&self) -> Result<u32> {
        child_of(self.supervisor()?).context("the supervisor has no child")
    }
}

fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("process id out of range")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

fn gone(what: &str, pid: u32) -> Result<()> {
    // What has ended and was not waited for yet has no command line any more.
    let ended = || fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |words| words.is_empty());
    wait_for(&format!("the end of {what}"), SOON, || ended().then_some(()))
}

fn three_processes() -> Result<()> {
    let mut whole = Whole::start()?;
    let uid = fs::metadata(whole.place.socket())?.uid();
    ensure!(uid != 0, "the ingest socket belongs to root");
    let forwarder = Credentials::of(whole.spantap.pid())?;
    ensure!(forwarder == Credentials::of_forwarder(uid), "forwarder: {forwarder:?}");
    let agent = Credentials::of(whole.agent()?)?;
    ensure!(agent == Credentials::of_agent(0, bit::KEPT_WITH_TLS), "agent: {agent:?}");

    // It has none itself, and hands an agent what that needs: by the bounding set, as root does.
    let supervisor = Credentials::of(whole.supervisor()?)?;
    let handed =
        bit::KEPT_WITH_TLS | bit::DAC_OVERRIDE | bit::SETGID | bit::SETPCAP | bit::PERFMON | bit::BPF | bit::SYS_ADMIN;
    ensure!(supervisor.effective | supervisor.permitted | supervisor.inherited == 0, "supervisor: {supervisor:?}");
    ensure!(supervisor.bounding == handed, "supervisor: {supervisor:?}, expected bounding set {handed:x}");

    // What attaches to TLS libraries is a process of its own, and has nothing but that.
    let attacher = child_of(whole.agent()?).context("the agent has no child that attaches to TLS libraries")?;
    let found = Credentials::of(attacher)?;
    let all = [found.effective, found.permitted, found.inherited, found.bounding];
    ensure!(all == [bit::SYS_ADMIN, bit::SYS_ADMIN, 0, 0], "attaches to TLS libraries: {found:?}");
    ensure!(found.no_new_privileges && found.filtered, "attaches to TLS libraries: {found:?}");

    // Nothing of this was in the way of the work.
    whole.observed("/still")?;
    let ended = whole.spantap.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", whole.spantap.tail());
    Ok(())
}

fn agent_is_killed() -> Result<()> {
    let mut whole = Whole::start()?;
    let healthy = |place: &Place| place.run(&[], "spantap-agent", &["health"]);
    healthy(&whole.place)?.expect(0, &[])?;
    let load = Steady::start(whole.server.port, "/load", 2, Duration::from_millis(5));
    let first = whole.agent()?;
    kill(first)?;
    let second = wait_for("another agent", LIMIT, || whole.agent().ok().filter(|agent| *agent != first))?;
    let Whole { spantap, place, .. } = &mut whole;
    spantap.wait_ready(LIMIT, |_| healthy(place).is_ok_and(|said| said.code == Some(0)))?;
    whole.observed("/again")?;
    let agent = Credentials::of(second)?;
    ensure!(agent == Credentials::of_agent(0, bit::KEPT_WITH_TLS), "the second agent: {agent:?}");
    load.stop().context("the watched program noticed")?;
    let log = whole.spantap.log();
    ensure!(log.contains("the agent died; starting it again"), "the supervisor says nothing: {log}");
    let ended = whole.spantap.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", whole.spantap.tail());
    Ok(())
}

/// The next agent reads the configuration anew, and says what is wrong with it.
fn agent_ends_for_good() -> Result<()> {
    let mut whole = Whole::start()?;
    whole.place.configure("discovery:\n  instrument:\n    - open_ports: eighty\n")?;
    let supervisor = whole.supervisor()?;
    kill(whole.agent()?)?;
    let ended = whole.spantap.wait(LIMIT)?;
    let log = whole.spantap.log();
    ensure!(ended.code() == Some(64), "ended with {ended}, not 64\n{log}");
    ensure!(log.contains("spantap.yml:3") && log.contains("spantap-agent ended"), "the reason is missing: {log}");
    gone("the supervisor", supervisor)
}

fn spantap_is_killed() -> Result<()> {
    let mut whole = Whole::start()?;
    let (supervisor, agent) = (whole.supervisor()?, whole.agent()?);
    let programs = kernel_programs::attached(agent)?;
    whole.spantap.kill();
    gone("the agent", agent)?;
    gone("the supervisor", supervisor)?;
    kernel_programs::wait_gone(&programs)?;

    // The socket is still there; the next start replaces it.
    ensure!(whole.place.socket().exists(), "who removed the socket?");
    whole.spantap = whole.place.start(&[], "spantap", &[])?;
    whole.observed("/next")
}

fn supervisor_is_killed() -> Result<()> {
    let mut whole = Whole::start()?;
    let agent = whole.agent()?;
    kill(whole.supervisor()?)?;
    gone("the agent", agent)?;
    let ended = whole.spantap.wait(LIMIT)?;
    let log = whole.spantap.log();
    ensure!(ended.code() == Some(1), "ended with {ended}, not 1\n{log}");
    ensure!(log.contains("spantap-agent ended (signal: 9"), "spantap does not say why it ends: {log}");
    ensure!(log.contains("summary: "), "what was observed is not summed up: {log}");
    Ok(())
}
