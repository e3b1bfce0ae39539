//! What would be observed right now.
//!
//! In: `/proc`, the `discovery` section. Out: which processes it selects, by name; if none, who listens where, so that a
//! user sees what to write; which of the selected may speak TLS, and of which requests are linked.

use std::collections::{BTreeMap, BTreeSet};

use caps::{Capability, CapsHashSet};
use spantap_config::{Config, Discovery, PortRange};
use spantap_doctor::{Check, Group};

use super::{links, tls};
use crate::discovery::{Change, Counts, Limits, Listeners, PortSet, ProcFs, Process, Processes, ReadError, Walk};
use crate::run::links_of;

/// Names of programs that are shown.
const MAX_NAMES: usize = 12;
/// Ports of a program that are shown.
const MAX_PORTS: usize = 6;
/// Processes whose descriptors are looked at for listening sockets.
const MAX_LOOKED_AT: usize = 4096;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// Programs of selected processes.
    selected: BTreeMap<String, Program>,
    /// Programs that listen, selected or not; the empty name stands for those whose holder may not be seen.
    listening: BTreeMap<String, BTreeSet<u16>>,
    /// Files that this user may not read.
    denied: u64,
    /// Every process is selected that is not excluded.
    everything: bool,
}

#[derive(Debug, Default)]
struct Program {
    processes: usize,
    ports: BTreeSet<u16>,
}

/// Looks. `exclude`: processes that are never selected.
pub(super) fn look(procfs: &ProcFs, config: &Config, exclude: &[u32], effective: &CapsHashSet) -> Vec<Check> {
    let (found, selected) = match find(procfs, &config.discovery, exclude) {
        Ok(found) => found,
        Err(error) => {
            return vec![Check::unknown(
                Group::Processes,
                "processes.selected",
                format!("/proc cannot be listed: {error}"),
                "mount /proc, that of the host",
            )];
        }
    };
    let privileged = effective.contains(&Capability::CAP_SYS_PTRACE);
    let mut checks = vec![judge(&found, privileged)];
    if !selected.is_empty() {
        let reading = match (config.agent.tls, effective.contains(&Capability::CAP_SYS_ADMIN)) {
            (false, _) => tls::Reading::Off,
            (true, false) => tls::Reading::NotAllowed,
            (true, true) => tls::Reading::On,
        };
        checks.push(tls::look(procfs, &selected, reading));
        checks.push(links::look(procfs, &selected, links_of(config), reading));
    }
    checks
}

fn find(procfs: &ProcFs, discovery: &Discovery, exclude: &[u32]) -> Result<(Found, Vec<Process>), ReadError> {
    let mut table = Processes::new(procfs.clone(), discovery, Limits::default());
    for pid in exclude.iter().copied() {
        table.ignore(pid);
    }
    let selected: Vec<Process> = table
        .scan(Walk::Thorough)?
        .into_iter()
        .filter_map(|change| match change {
            Change::Selected(process) => Some(process),
            _ => None,
        })
        .collect();

    let mut counts = Counts::default();
    let mut listeners = Listeners::default();
    let mut every = PortSet::default();
    every.insert(PortRange { first: 1, last: u16::MAX });
    let mut pids = procfs.pids()?;
    pids.truncate(MAX_LOOKED_AT);
    listeners.refresh(procfs, pids.iter().copied(), &every, true, &mut counts);

    let mut found =
        Found { denied: table.counts().denied, everything: discovery.instrument.is_empty(), ..Found::default() };
    let mut unseen: BTreeSet<u16> = listeners.all().into_iter().collect();
    for pid in pids {
        let ports = listeners.held_by(procfs, pid, &mut counts);
        unseen.retain(|port| !ports.contains(port));
        if let Some(process) = selected.iter().find(|process| process.pid == pid) {
            let program = found.selected.entry(name_of(procfs, process)).or_default();
            program.processes += 1;
            program.ports.extend(&ports);
        }
        if !ports.is_empty() && !exclude.contains(&pid) {
            found.listening.entry(name(procfs, pid)).or_default().extend(ports);
        }
    }
    if !unseen.is_empty() {
        found.listening.insert(String::new(), unseen);
    }
    found.listening.retain(|name, _| name != "spantap");
    Ok((found, selected))
}

/// File name of a selected process's executable, or what the kernel calls it.
pub(super) fn name_of(procfs: &ProcFs, process: &Process) -> String {
    match process.program.executable.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => name(procfs, process.pid),
    }
}

fn name(procfs: &ProcFs, pid: u32) -> String {
    let link = procfs.link(pid, "exe").unwrap_or_default();
    let path = String::from_utf8_lossy(link.strip_suffix(b" (deleted)").unwrap_or(&link)).into_owned();
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => String::from_utf8_lossy(&procfs.read(pid, "comm", 64).unwrap_or_default()).trim().to_owned(),
    }
}

fn judge(found: &Found, privileged: bool) -> Check {
    let id = "processes.selected";
    let total: usize = found.selected.values().map(|program| program.processes).sum();
    let rule = if found.everything {
        "no discovery entry: every process that serves or makes requests"
    } else {
        "by the discovery entries"
    };
    let hidden = if found.denied > 0 {
        format!("; files of processes that could not be read: {}", found.denied)
    } else {
        String::new()
    };
    if total == 0 && !privileged {
        return Check::unknown(
            Group::Processes,
            id,
            format!("none, as far as this user can see{hidden}"),
            "run doctor as root: sudo spantap doctor",
        )
        .with_details(listening(found));
    }
    if total == 0 {
        let fix = if found.listening.is_empty() {
            "nothing listens now; what is selected and starts later is found then"
        } else {
            "start the service, or write its port into discovery.instrument (open_ports: …) or SPANTAP_OPEN_PORT; the \
             lines above show who listens"
        };
        return Check::degraded(Group::Processes, id, format!("none is selected now, {rule}{hidden}"), fix)
            .with_details(listening(found));
    }
    let finding = format!("{total} selected now, {rule}{hidden}");
    let names = bounded(found.selected.iter().map(|(name, program)| {
        let many = if program.processes == 1 { String::new() } else { format!(" ({} processes)", program.processes) };
        let ports =
            if program.ports.is_empty() { String::new() } else { format!(", listens on {}", ports(&program.ports)) };
        format!("{name}{many}{ports}")
    }));
    // Even root meets a file now and then that some security module keeps to itself.
    if found.denied > 0 && !privileged {
        let fix = "run doctor as root: sudo spantap doctor";
        return Check::degraded(Group::Processes, id, finding, fix).with_details(names);
    }
    Check::ok(Group::Processes, id, finding).with_details(names)
}

fn listening(found: &Found) -> Vec<String> {
    bounded(found.listening.iter().map(|(name, held)| match name.as_str() {
        "" => format!("a process that this user may not see listens on {}", ports(held)),
        name => format!("{name} listens on {}", ports(held)),
    }))
}

fn ports(ports: &BTreeSet<u16>) -> String {
    let mut text = ports.iter().take(MAX_PORTS).map(u16::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = ports.len().checked_sub(MAX_PORTS) {
        text += &format!(" and {more} more");
    }
    text
}

/// The first of many lines, and how many there are beside.
pub(super) fn bounded(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    if let Some(more @ 1..) = lines.len().checked_sub(MAX_NAMES) {
        lines.truncate(MAX_NAMES);
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn found(selected: &[(&str, usize, &[u16])], listening: &[(&str, &[u16])], denied: u64) -> Found {
        Found {
            selected: selected
                .iter()
                .map(|(name, processes, ports)| {
                    ((*name).to_owned(), Program { processes: *processes, ports: ports.iter().copied().collect() })
                })
                .collect(),
            listening: listening.iter().map(|(name, p)| ((*name).to_owned(), p.iter().copied().collect())).collect(),
            denied,
            everything: false,
        }
    }

    #[test]
    fn selected_processes_are_named_and_counted() {
        let check = judge(&found(&[("nginx", 3, &[80, 443]), ("worker", 1, &[])], &[], 0), true);
        assert_eq!(check.state, State::Ok);
        assert!(check.finding.starts_with("4 selected"), "{check:?}");
        assert_eq!(check.details, ["nginx (3 processes), listens on 80, 443", "worker"]);
    }

    #[test]
    fn where_nothing_is_selected_it_is_shown_who_listens() {
        let check = judge(&found(&[], &[("node", &[3000]), ("", &[22])], 0), true);
        assert_eq!(check.state, State::Degraded);
        assert!(check.details.contains(&"node listens on 3000".to_owned()), "{check:?}");
        assert!(check.fix.is_some_and(|fix| fix.contains("SPANTAP_OPEN_PORT")));
        let quiet = judge(&found(&[], &[], 0), true);
        assert!(quiet.fix.is_some_and(|fix| fix.contains("nothing listens")));
    }

    #[test]
    fn what_may_not_be_seen_is_not_called_absent() {
        assert_eq!(judge(&found(&[], &[("", &[80])], 40), false).state, State::Unknown);
        let partly = judge(&found(&[("nginx", 1, &[80])], &[], 3), false);
        assert_eq!(partly.state, State::Degraded);
        assert!(partly.finding.ends_with("be read: 3"), "{partly:?}");
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<u16> = (1..=100).collect();
        assert_eq!(ports(&many.iter().copied().collect()), "1, 2, 3, 4, 5, 6 and 94 more");
        let lines = bounded((0..100).map(|n| n.to_string()));
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (MAX_NAMES + 1, Some("and 88 more")));
        assert!(ports(&BTreeSet::from([1, 2])) == "1, 2");
    }
}
