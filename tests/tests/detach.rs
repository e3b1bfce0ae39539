//! How an agent leaves: nothing of it stays in the kernel, however it ended.
#![allow(missing_docs)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use spantap_tests::{
    host, kernel_programs,
    place::{LIMIT, Place, observed},
    servers::Server,
    suite::Suite,
};

const FORWARDER: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];

fn main() -> ExitCode {
    let programs = [host::lacks("nginx"), host::lacks("bpftool"), host::lacks("setpriv")];
    let lacks = [host::lacks_root_and_btf()].into_iter().chain(programs);
    Suite::new("detach", lacks, || Ok(()))
        .case("nothing_stays_after_a_stop", |()| leaves(Signal::TERM))
        .case("nothing_stays_after_kill_9", |()| leaves(Signal::KILL))
        .case("nothing_stays_after_a_crash", |()| leaves(Signal::ABORT))
        .run()
}

fn leaves(signal: Signal) -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "")?;
    let mut forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
    let mut agent = place.start(&[], "spantap-agent", &[])?;
    observed(&mut forwarder, server.port, "/before")?;
    let programs = kernel_programs::attached(agent.pid())?;
    agent.signal(signal)?;
    let ended = agent.wait(LIMIT)?;
    ensure!(ended.success() == (signal == Signal::TERM), "ended with {ended}\n{}", agent.tail());
    kernel_programs::wait_gone(&programs)
}
