//! What observed processes use: CPU, memory, disk.
//!
//! In: the table of processes, `/proc/PID/stat`, `status`, `io`. Out: `ProcessUsage` messages, a few at each step, so that
//! reading the files of thousands of processes never keeps the ring buffer waiting.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use spantap_proto::v1;

use crate::{
    clock,
    discovery::{ProcFs, Process, Processes},
    encode::BatchWriter,
};

/// Between steps.
pub(crate) const STEP: Duration = Duration::from_millis(100);

/// Processes that are read in one step, each with three small files: some milliseconds. With more than 3200 processes
/// and the default interval a round takes longer than the interval.
const PER_STEP: usize = 64;

/// Bytes read of each file; `status` has the mask of CPUs in its second kilobyte.
const MOST_BYTES: u64 = 4096;

const NANOSECONDS: u64 = 1_000_000_000;

/// Reads the usage of all selected processes once in an interval.
#[derive(Debug)]
pub(crate) struct Usage {
    procfs: ProcFs,
    interval: Duration,
    due: Instant,
    waiting: VecDeque<Subject>,
}

/// Whom to read.
#[derive(Debug, Clone, Copy)]
struct Subject {
    id: u32,
    pid: u32,
    start_boottime_ns: u64,
}

impl Usage {
    /// The first round is due at once.
    pub(crate) fn new(procfs: ProcFs, interval: Duration) -> Self {
        Self { procfs, interval, due: Instant::now(), waiting: VecDeque::new() }
    }

    /// Reads the next few processes into `writer`.
    pub(crate) fn step(&mut self, now: Instant, processes: &Processes, writer: &mut BatchWriter) {
        if self.waiting.is_empty() {
            if now < self.due {
                return;
            }
            self.due = now + self.interval;
            let subject = |process: &Process| Subject {
                id: process.id.get(),
                pid: process.pid,
                start_boottime_ns: process.start_boottime_ns,
            };
            self.waiting = processes.iter().filter(|process| process.entry.exports.metrics).map(subject).collect();
        }
        for _ in 0..PER_STEP {
            let Some(subject) = self.waiting.pop_front() else { return };
            // One that has ended meanwhile has no usage.
            if let Some(usage) = read(&self.procfs, subject) {
                writer.usage(&usage);
            }
        }
    }
}

fn read(procfs: &ProcFs, subject: Subject) -> Option<v1::ProcessUsage> {
    let stat = Stat::parse(&procfs.read(subject.pid, "stat", MOST_BYTES).ok()?)?;
    // The pid may be that of another process by now.
    if ticks(stat.start) != subject.start_boottime_ns {
        return None;
    }
    let io = procfs.read(subject.pid, "io", MOST_BYTES).unwrap_or_default();
    let status = procfs.read(subject.pid, "status", MOST_BYTES).unwrap_or_default();
    Some(v1::ProcessUsage {
        process: subject.id,
        time_ns: clock::monotonic_ns(),
        cpu_user_ns: ticks(stat.user),
        cpu_system_ns: ticks(stat.system),
        memory_usage: stat.resident_pages.saturating_mul(rustix::param::page_size() as u64),
        memory_virtual: stat.virtual_bytes,
        disk_read: field(&io, "read_bytes:").and_then(|text| text.parse().ok()),
        disk_written: field(&io, "write_bytes:").and_then(|text| text.parse().ok()),
        cpus: field(&status, "Cpus_allowed:").map_or(0, cpus),
    })
}

/// Nanoseconds of ticks of `USER_HZ`, rounded as discovery rounds the start of a process.
fn ticks(ticks: u64) -> u64 {
    ticks.saturating_mul((NANOSECONDS / rustix::param::clock_ticks_per_second().max(1)).max(1))
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Ticks.
    user: u64,
    /// Ticks.
    system: u64,
    /// Ticks of CLOCK_BOOTTIME.
    start: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(bytes: &[u8]) -> Option<Self> {
        // The name (field 2) may hold spaces and parentheses; nothing after it does.
        let name_end = bytes.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(bytes.get(name_end + 1..)?).ok()?;
        // The first field of the rest is field 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(22).collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            user: field(14)?,
            system: field(15)?,
            start: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The text after `name` at the start of a line.
fn field<'a>(file: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// CPUs in a mask such as `ff,ffffffff`.
fn cpus(mask: &str) -> u32 {
    mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn own() -> Subject {
        let bytes = std::fs::read("/proc/self/stat").unwrap();
        let start = ticks(Stat::parse(&bytes).unwrap().start);
        Subject { id: 7, pid: std::process::id(), start_boottime_ns: start }
    }

    #[test]
    fn fields_by_their_numbers() {
        let line = b"42 (a) b) S 7 42 42 0 -1 4194304 100 0 0 0 5 6 0 0 20 0 1 0 987654 1000 200 1844 4096";
        let want = Stat { user: 5, system: 6, start: 987_654, virtual_bytes: 1000, resident_pages: 200 };
        assert_eq!(Stat::parse(line), Some(want));
        assert_eq!(Stat::parse(b"42 (a) S 7 42"), None);
    }

    #[test]
    fn lines_and_masks() {
        let io = b"rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n";
        assert_eq!((field(io, "read_bytes:"), field(io, "write_bytes:")), (Some("4096"), Some("8192")));
        assert_eq!((cpus("3"), cpus("ff,ffffffff"), cpus("")), (2, 40, 0));
    }

    #[test]
    fn reads_a_real_process() {
        let before = read(&ProcFs::default(), own()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        // Works until the kernel has counted it.
        let after = loop {
            let after = read(&ProcFs::default(), own()).unwrap();
            if after.cpu_user_ns + after.cpu_system_ns > before.cpu_user_ns + before.cpu_system_ns {
                break after;
            }
            assert!(Instant::now() < until, "no CPU time in 20 s of work");
        };
        assert!(after.time_ns > before.time_ns && after.cpus >= 1 && after.process == 7);
        assert!(after.memory_usage > 100_000 && after.memory_virtual > after.memory_usage);
        assert!(after.disk_read.is_some() && after.disk_written.is_some());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_read() {
        let subject = own();
        assert_eq!(read(&ProcFs::default(), Subject { start_boottime_ns: 1, ..subject }), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Stat::parse(&bytes);
            let _ = field(&bytes, "a:");
        }
    }
}
