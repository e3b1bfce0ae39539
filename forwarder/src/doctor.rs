//! `spantap doctor`: whether the configured job can run here, and what to do if not.
//!
//! In: configuration, the host by way of `spantap-agent doctor`, socket, ports, destinations. Out: one report on
//! standard output and an exit code. Nothing on the host is changed, and destinations get an export of nothing.
//!
//! In the order of a start: the agent and what takes privilege first; then this process becomes the user that would
//! forward, and only then it opens network connections.

mod agent;
mod destinations;
mod diagnosis;
mod ports;
mod socket;
mod spool;
mod user;

use std::{
    io::{self, Write as _},
    path::Path,
};

use spantap_config::{Config, Environment, Loaded};
use spantap_doctor::{Check, Colour, Group, Lack, Report, Verdict};

use self::socket::Listener;
use crate::privilege::Target;

/// Looks, prints, and returns the exit code.
pub fn run(config: Option<&Path>, json: bool) -> u8 {
    let (checks, listener) = match Config::load(config, &Environment::of_process()) {
        Ok(loaded) => look(&loaded),
        Err(error) => {
            let fix = "correct it; `spantap check` reads it again";
            let id = "configuration.valid";
            let checks = vec![Check::failed(Group::Configuration, id, Lack::Configuration, error.to_string(), fix)];
            (checks, None)
        }
    };
    let mut report = Report::new("spantap", env!("CARGO_PKG_VERSION"), checks, Vec::new());
    report.notes = notes(&report, listener.as_ref());
    let text = if json { report.json() } else { report.text(Colour::of_stdout()) };
    // Nobody may be left to read it; the exit code tells as well.
    let _ = io::stdout().write_all(text.as_bytes());
    report.exit_code()
}

fn look(loaded: &Loaded) -> (Vec<Check>, Option<Listener>) {
    let config = &loaded.config;
    let mut checks = vec![configuration(loaded)];
    checks.extend(agent::look(loaded.source.as_deref(), &config.socket));
    // Whom the socket is made for; that there is no such user is said elsewhere.
    let owner = Target::find(config.forwarder.user.as_deref()).ok().flatten().map(|target| target.uid());
    let (socket, listener) = socket::look(&config.socket, owner);
    checks.push(socket);
    checks.extend(ports::look(config));
    let spool = spool::look(config);
    let user = user::become_forwarder(config.forwarder.user.as_deref());
    let as_forwarder = user.as_ref().is_none_or(|check| check.exit_code.is_none());
    checks.extend(user);
    checks.extend(spool);
    checks.extend(destinations::look(config, as_forwarder));
    (checks, listener)
}

fn configuration(loaded: &Loaded) -> Check {
    let id = "configuration.valid";
    let source = match &loaded.source {
        Some(path) => format!("{}, the environment and the defaults", path.display()),
        None => "the environment and the defaults; no file".to_owned(),
    };
    if loaded.warnings.is_empty() {
        return Check::ok(Group::Configuration, id, source);
    }
    Check::degraded(
        Group::Configuration,
        id,
        format!("{source}; warnings: {}", loaded.warnings.len()),
        "see each; `spantap check` prints what is effective",
    )
    .with_details(loaded.warnings.iter().map(ToString::to_string))
}

/// What else a user should know who asks whether it can run.
fn notes(report: &Report, listener: Option<&Listener>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(listener) = listener {
        notes.push(format!("{listener}: Spantap runs already with this socket."));
    }
    let forwarding = [Group::Configuration, Group::Socket, Group::Destinations];
    if listener.is_none() && report.verdict() == Verdict::No && !report.fails_in(&forwarding) {
        let alone = "`spantap forward` can run as this user: it needs no privilege; run `spantap-agent` as root beside \
                     it, with the same configuration.";
        notes.push(alone.to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(group: Group) -> Report {
        Report::new("spantap", "0", vec![Check::failed(group, "x", Lack::Privilege, "no", "do")], vec![])
    }

    #[test]
    fn who_lacks_privilege_alone_hears_of_the_split() {
        let notes = notes(&failed(Group::Privilege), None);
        assert!(notes.iter().any(|note| note.contains("spantap forward")), "{notes:?}");
        assert!(super::notes(&failed(Group::Destinations), None).is_empty());
        assert!(super::notes(&Report::new("spantap", "0", vec![], vec![]), None).is_empty());
    }

    #[test]
    fn what_runs_already_is_said() {
        let listener = Listener { user: "nobody".to_owned(), pid: Some(7) };
        let notes = notes(&failed(Group::Privilege), Some(&listener));
        assert_eq!(notes, ["Process 7 of user nobody: Spantap runs already with this socket."]);
    }
}
