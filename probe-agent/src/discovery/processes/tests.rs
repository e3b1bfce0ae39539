#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod events;
mod inheritance;
mod life;
mod model;
mod real;
mod rules;
mod tree;
mod walks;

use spantap_config::{Exports, Glob, PidRange, PortRange, Selector};

use super::*;
use tree::Tree;

/// Start times in the tests: the tick of `/proc` plus what the kernel knows beyond it.
fn exact(ticks: u64) -> u64 {
    Ticks(ticks).nanoseconds() + 1234
}

fn everything() -> Discovery {
    Discovery::default()
}

fn only(instrument: impl Into<Vec<Selector>>) -> Discovery {
    Discovery { instrument: instrument.into(), ..Discovery::default() }
}

fn executable(path: &str) -> Selector {
    Selector { exe_path: Some(Glob::new(path).unwrap()), ..Selector::default() }
}

fn port(port: u16) -> Selector {
    Selector { open_ports: vec![PortRange { first: port, last: port }], ..Selector::default() }
}

fn pid(pid: u32) -> Selector {
    Selector { target_pids: vec![PidRange { first: pid, last: pid }], ..Selector::default() }
}

fn named(name: &str, selector: Selector) -> Selector {
    Selector { name: Some(name.to_owned()), ..selector }
}

fn excluding(exclude: Selector, discovery: Discovery) -> Discovery {
    Discovery { exclude: vec![exclude], ..discovery }
}

fn table(tree: &Tree, discovery: &Discovery) -> Processes {
    Processes::new(tree.procfs(), discovery, Limits { grace: Duration::ZERO, ..Limits::default() })
}

/// Changes as `+pid` selected, `~pid` updated, `-pid` deselected, `.pid` ended, sorted where the order is that of a hash map.
fn told(changes: &[Change]) -> Vec<String> {
    let mut told: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Selected(process) => format!("+{}", process.pid),
            Change::Updated(process) => format!("~{}", process.pid),
            Change::Deselected { pid, .. } => format!("-{pid}"),
            Change::Ended { pid, .. } => format!(".{pid}"),
        })
        .collect();
    told.sort();
    told
}

fn process(table: &Processes, pid: u32) -> &Process {
    table.iter().find(|process| process.pid == pid).unwrap()
}
