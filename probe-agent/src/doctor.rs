//! `spantap-agent doctor`: what this host allows the agent, without starting it.
//!
//! In: the host, the configuration. Out: a report on standard output and an exit code. Nothing on the host is changed (but this process's own limit on locked memory):
//! the probes are loaded, attached and taken away again within milliseconds, with no process selected but this one, where requests are to be changed.
//!
//! In the order of a start: what takes privilege first, then it is given up and the process is sealed as the agent is,
//! and only then files of other processes are read.

mod executables;
mod features;
mod kernel;
mod links;
mod place;
mod privileges;
mod processes;
mod programs;
mod propagation;
mod socket;
mod tls;

pub(crate) use kernel::version as kernel_version;
pub(crate) use tls::{libraries_of, may_be_read};

use std::{
    io::{self, Write as _},
    path::Path,
};

use caps::CapSet;
use spantap_config::{Config, Environment};
use spantap_doctor::{Check, Colour, Group, Lack, Report};

use crate::{
    discovery::ProcFs,
    locked_memory,
    privilege::{self, Socket},
    seccomp,
};

/// Looks, prints, and returns the exit code. `exclude`: processes that are never observed.
pub fn run(config: Option<&Path>, json: bool, exclude: &[u32]) -> u8 {
    let checks = match Config::load(config, &Environment::of_process().without_files()) {
        Ok(loaded) => look(&loaded.config, exclude),
        Err(error) => vec![Check::failed(
            Group::Configuration,
            "configuration.valid",
            Lack::Configuration,
            error.to_string(),
            "correct it; `spantap check` reads it again",
        )],
    };
    let report = Report::new("spantap-agent", env!("CARGO_PKG_VERSION"), checks, Vec::new());
    let text = if json { report.json() } else { report.text(Colour::of_stdout()) };
    // Nobody may be left to read it; the exit code tells as well.
    let _ = io::stdout().write_all(text.as_bytes());
    report.exit_code()
}

fn look(config: &Config, exclude: &[u32]) -> Vec<Check> {
    let procfs = ProcFs::default();
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    locked_memory::raise();
    let trials = programs::tryable(&effective).then(|| programs::try_all(&config.agent));
    let complete = matches!(&trials, Some(Ok(trials)) if programs::complete(trials));
    let mut checks = kernel::look(config.agent.btf.as_deref(), complete);
    checks.extend(place::look(&procfs));
    checks.push(privileges::judge(rustix::process::geteuid().as_raw(), &effective));
    checks.extend(programs::judge(trials.as_ref()));
    checks.extend(features::look(config, &effective, complete));
    checks.push(socket::look(&config.socket, &config.agent.forwarder_uids, &effective));
    checks.push(confine(config.agent.tls && privilege::may_attach_to_functions()));
    checks.extend(processes::look(&procfs, config, exclude, &effective));
    checks
}

/// Becomes what the agent is while it streams.
fn confine(tls: bool) -> Check {
    let sealed = privilege::drop_unneeded(&Socket::Open, tls)
        .map_err(|error| error.to_string())
        .and_then(|_| spantap_confinement::seal().map_err(|error| error.to_string()))
        .and_then(|()| seccomp::install().map_err(|error| error.to_string()));
    let id = "privilege.confinement";
    match sealed {
        Ok(()) => Check::ok(
            Group::Privilege,
            id,
            "privilege can be given up, no_new_privs set, system calls filtered; done here as in a start",
        ),
        Err(error) => Check::failed(
            Group::Privilege,
            id,
            Lack::Thing,
            format!("the agent cannot be confined: {error}"),
            "use a kernel with CONFIG_SECCOMP_FILTER=y; in a container, let its own filter allow seccomp and prctl",
        ),
    }
}
