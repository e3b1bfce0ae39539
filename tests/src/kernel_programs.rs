//! BPF programs in the kernel.
//!
//! In: a process, or a number of a program. Out: which programs it holds, how long they ran, whether they are still there (needs bpftool).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::host;

/// The kernel takes programs down after their last descriptor is closed: with each probe of a TLS library it waits until nobody can be in
/// it any more, a second and more for all of them, and longer where others end at the same time.
const GONE: Duration = Duration::from_secs(60);

/// The programs whose descriptors, or those of links to them, a process holds.
///
/// # Errors
/// When the process is gone, or may not be looked at.
pub fn of(pid: u32) -> Result<BTreeSet<u32>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let texts = fs::read_dir(&folder).context(folder)?.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    Ok(texts.filter_map(id).collect())
}

/// Time and runs of all programs that a process holds, nanoseconds; counted only while the kernel's statistics are on
/// (`kernel.bpf_stats_enabled`). 0 for what cannot be read.
pub fn time(pid: u32) -> (u64, u64) {
    let mut programs: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        // A link's fdinfo names its program too, but has no times.
        if let (Some(id), Some(time), Some(runs)) = (value("prog_id"), value("run_time_ns"), value("run_cnt")) {
            programs.insert(id, (time, runs));
        }
    }
    programs.values().fold((0, 0), |(time, runs), (t, r)| (time + t, runs + r))
}

/// Whether a program is in the kernel.
pub fn is_loaded(program: u32) -> bool {
    let bpftool = host::find("bpftool").unwrap_or_default();
    let shown = Command::new(bpftool).args(["prog", "show", "id", &program.to_string()]).output();
    shown.is_ok_and(|shown| shown.status.success())
}

/// The programs of a process that observes: at least those of a hook set, all of them in the kernel.
///
/// # Errors
/// When there are fewer.
pub fn attached(pid: u32) -> Result<BTreeSet<u32>> {
    let programs = of(pid)?;
    ensure!(
        programs.len() >= 8 && programs.iter().all(|program| is_loaded(*program)),
        "programs of {pid}: {programs:?}"
    );
    Ok(programs)
}

/// Waits until none of them is in the kernel any more. A link keeps its program, so nothing is attached then, either.
///
/// # Errors
/// When one stays.
pub fn wait_gone(programs: &BTreeSet<u32>) -> Result<()> {
    let left = || programs.iter().copied().filter(|program| is_loaded(*program)).collect::<Vec<_>>();
    host::wait_for("the end of the programs", GONE, || left().is_empty().then_some(()))
        .with_context(|| format!("left in the kernel: {:?}", left()))
}
