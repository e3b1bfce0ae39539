//! What the kernel says of a process: its privileges, and the BPF objects that it holds.
//!
//! In: a process id. Out: facts from `/proc`, and from bpftool.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host;

/// Kinds of BPF objects, as bpftool and `/proc` name them.
const KINDS: [&str; 3] = ["prog", "map", "link"];

/// Kind and number of a BPF object; the kernel does not give a number twice.
pub type Object = (&'static str, u64);

/// The objects that a process holds by a descriptor, at least one of each kind.
///
/// # Errors
/// When a kind is missing, or bpftool does not show an object: that it shows none later would say nothing.
pub fn held(pid: u32) -> Result<BTreeSet<Object>> {
    let mut held = BTreeSet::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        for (name, number) in info.lines().filter_map(|line| line.split_once(':')) {
            let kind = KINDS.into_iter().find(|kind| name.strip_suffix("_id") == Some(*kind));
            if let (Some(kind), Ok(id)) = (kind, number.trim().parse()) {
                held.insert((kind, id));
            }
        }
    }
    for kind in KINDS {
        ensure!(held.iter().any(|object| object.0 == kind), "no {kind} among the descriptors of process {pid}");
    }
    let hidden: Vec<Object> = held.difference(&shown()?).copied().collect();
    ensure!(hidden.is_empty(), "bpftool does not show {hidden:?} of process {pid}");
    Ok(held)
}

/// All objects of this host.
///
/// # Errors
/// When bpftool fails.
pub fn shown() -> Result<BTreeSet<Object>> {
    let bpftool = host::find("bpftool").context("bpftool is not installed")?;
    let mut shown = BTreeSet::new();
    for kind in KINDS {
        let output = Command::new(&bpftool).args(["--json", kind, "show"]).output()?;
        ensure!(output.status.success(), "bpftool {kind}: {}", String::from_utf8_lossy(&output.stderr));
        let list: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        shown.extend(list.iter().filter_map(|object| Some((kind, object.get("id")?.as_u64()?))));
    }
    Ok(shown)
}

/// Compares fields of `/proc/PID/status`, the first word of each, and what agent and forwarder have in common. Returns
/// the whole.
///
/// # Errors
/// Names the first field that is not as expected.
pub fn expect_status(pid: u32, fields: &[(&str, &str)]) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let nothing = "0000000000000000";
    let common = [("CapInh", nothing), ("CapAmb", nothing), ("NoNewPrivs", "1"), ("Seccomp", "2")];
    for (name, expected) in common.iter().chain(fields) {
        let found = status_field(&status, name);
        ensure!(found == Some(*expected), "{name} {found:?}, expected {expected:?}");
    }
    Ok(status)
}

/// The first word of a field of `/proc/PID/status`.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next())
}
