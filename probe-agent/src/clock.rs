//! Clocks: the anchor between kernel time and wall time, and the length of a jiffy.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use spantap_proto::v1::ClockAnchor;

/// Nanoseconds of `clock`.
fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CLOCK_MONOTONIC now, nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The same instant on both clocks. Of three tries the one with the least time between two readings of the monotonic
/// clock wins: being interrupted between the readings would shift every wall-clock time.
pub fn anchor() -> ClockAnchor {
    let try_once = || {
        let before = nanoseconds(ClockId::Monotonic);
        let realtime_ns = nanoseconds(ClockId::Realtime);
        let after = nanoseconds(ClockId::Monotonic);
        (after - before, ClockAnchor { monotonic_ns: before + (after - before) / 2, realtime_ns })
    };
    let tries = [try_once(), try_once(), try_once()];
    tries.into_iter().min_by_key(|(doubt, _)| *doubt).map(|(_, anchor)| anchor).unwrap_or_default()
}

/// Measures the length of a jiffy over a quarter of a second; `None` where the kernel does not tell its jiffies.
pub async fn jiffy_ns() -> Option<u64> {
    let first = read_timer_list()?;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let second = read_timer_list()?;
    let jiffies = second.1.checked_sub(first.1).filter(|count| *count > 0)?;
    let measured = second.0.checked_sub(first.0)? / jiffies;
    // The kernel knows these rates only (CONFIG_HZ); take the one that was meant.
    [100u64, 250, 300, 1000]
        .into_iter()
        .map(|rate| 1_000_000_000 / rate)
        .min_by_key(|length| length.abs_diff(measured))
        .filter(|length| length.abs_diff(measured) < length / 5)
}

/// (nanoseconds, jiffies) of one instant.
fn read_timer_list() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/timer_list").ok()?;
    let now = text.lines().find_map(|line| line.strip_prefix("now at "))?.strip_suffix(" nsecs")?;
    let jiffies = text.lines().find_map(|line| line.strip_prefix("jiffies: "))?;
    Some((now.parse().ok()?, jiffies.trim().parse().ok()?))
}
