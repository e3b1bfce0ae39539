//! Readings from `/proc`: CPU time, memory.
//!
//! In: process ids. Out: numbers; 0 for what cannot be read.

/// Kernel and user time of a process so far, microseconds. The clock ticks at 100 Hz on every Linux that people see.
pub(super) fn cpu_us(pid: u32) -> u64 {
    const US_PER_TICK: u64 = 10_000;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields are counted behind the name, which may hold blanks: 14 and 15 of the whole are 12 and 13 there.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let field = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    (field(11) + field(12)) * US_PER_TICK
}

/// Children of a process.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Memory of a process, kilobytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Peak of what is resident (VmHWM), since the start or [`forget_peak`].
    pub(super) peak: u64,
    /// Part of it that is shared with the kernel: the ring buffer's pages.
    pub(super) ring: u64,
}

/// Lets the peak of a process's memory begin anew (proc_pid_clear_refs(5), value 5), so that it is that of the load, not
/// that of the start.
pub(super) fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Memory of a process.
pub(super) fn memory(pid: u32) -> Memory {
    let kb = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).map(kb).unwrap_or_default();
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut ring, mut within) = (0, false);
    for line in smaps.lines() {
        if line.split_whitespace().next().is_some_and(|first| first.contains('-') && !first.ends_with(':')) {
            within = line.contains("bpf-map") || line.contains("bpf_ringbuf");
        } else if within && line.starts_with("Rss:") {
            ring += kb(line);
        }
    }
    Memory { peak, ring }
}
