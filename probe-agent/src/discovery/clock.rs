//! Start times of processes on the clocks of the kernel.
//!
//! In: ticks of `/proc/PID/stat`, or nanoseconds of a kernel event. Out: one unit for both, so that they compare equal.

use std::sync::LazyLock;

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds in one tick of `USER_HZ`, the unit in which `/proc` tells times.
static TICK: LazyLock<u64> = LazyLock::new(|| (NANOSECONDS / rustix::param::clock_ticks_per_second().max(1)).max(1));

/// Start of a process in ticks of CLOCK_BOOTTIME. The kernel knows nanoseconds, `/proc` shows whole ticks;
/// rounded down to ticks the two are the same, so this is what identifies a process together with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticks(pub u64);

impl Ticks {
    /// Rounds nanoseconds of CLOCK_BOOTTIME (`task->start_boottime`) down.
    pub(crate) fn from_nanoseconds(boottime_ns: u64) -> Self {
        Self(boottime_ns / *TICK)
    }

    /// The first nanosecond of the tick on CLOCK_BOOTTIME.
    pub(crate) fn nanoseconds(self) -> u64 {
        self.0.saturating_mul(*TICK)
    }

    /// The first nanosecond of the tick since the Unix epoch, as the wall clock stands now.
    pub(crate) fn realtime_ns(self) -> u64 {
        let boottime = now(rustix::time::ClockId::Boottime);
        let realtime = now(rustix::time::ClockId::Realtime);
        realtime.saturating_sub(boottime.saturating_sub(self.nanoseconds()))
    }
}

fn now(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(NANOSECONDS).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_exact_time_and_its_tick_are_the_same_start() {
        let from_proc = Ticks(987_654);
        let exact = from_proc.nanoseconds() + *TICK - 1;
        assert_eq!(Ticks::from_nanoseconds(exact), from_proc);
        assert_ne!(Ticks::from_nanoseconds(exact + 1), from_proc);
    }

    #[test]
    fn the_wall_clock_of_a_start_lies_in_the_past() {
        let started_now = Ticks::from_nanoseconds(now(rustix::time::ClockId::Boottime));
        let unix_now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let distance = u64::try_from(unix_now.as_nanos()).unwrap().abs_diff(started_now.realtime_ns());
        assert!(distance < NANOSECONDS, "{distance} ns apart");
    }
}
