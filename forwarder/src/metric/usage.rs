//! What a process uses, as points of its series.
//!
//! In: a reading and the one before. Out: values by instrument, each with the part of the whole that it stands for.

use super::{
    attribute::{Attribute, Mask},
    instrument::Source,
    point::Amount,
    series::Part,
};
use crate::model::Usage;

/// Seconds of nanoseconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Values of one instrument, each with its part of the whole.
pub(super) type Values = [Option<(Option<Part>, Amount)>; 2];

/// The values as they are where their parts are kept, else their sum.
pub(super) fn kept(values: Values, mask: Mask) -> Values {
    let [first, second] = values;
    let Some((Some(part), _)) = first.or(second) else { return values };
    let attribute = match part {
        Part::User | Part::System => Attribute::CpuMode,
        Part::Read | Part::Write => Attribute::DiskDirection,
    };
    if mask.has(attribute) {
        return values;
    }
    let sum = match (first.map(|(_, one)| one), second.map(|(_, other)| other)) {
        (Some(Amount::Int(one)), Some(Amount::Int(other))) => Some(Amount::Int(one.saturating_add(other))),
        (Some(one), Some(other)) => Some(Amount::Double(one.as_f64() + other.as_f64())),
        (one, other) => one.or(other),
    };
    [sum.map(|sum| (None, sum)), None]
}

/// The values that `source` takes of a reading; `before` is the last one of the same process. Of counters it is what was added
/// since then, so that a sum can be begun anew.
pub(super) fn values(source: Source, now: &Usage, before: Option<&Usage>) -> Values {
    let both = |[one, other]: [Part; 2], [first, second]: [Option<Amount>; 2]| {
        [first.map(|amount| (Some(one), amount)), second.map(|amount| (Some(other), amount))]
    };
    let more = |of: fn(&Usage) -> Option<u64>| of(now)?.checked_sub(before.and_then(of).unwrap_or(0));
    let whole = |bytes| [Some((None, Amount::Int(bytes))), None];
    match source {
        Source::CpuTime => both(
            [Part::User, Part::System],
            [more(|u| Some(u.cpu_user)), more(|u| Some(u.cpu_system))].map(|ns| Some(Amount::Double(seconds(ns?)))),
        ),
        Source::CpuUtilization => {
            let share = |of: fn(&Usage) -> u64| {
                let before = before?;
                let elapsed = now.time.0.checked_sub(before.time.0).filter(|elapsed| *elapsed > 0)?;
                let room = elapsed as f64 * f64::from(Some(now.cpus).filter(|cpus| *cpus > 0)?);
                Some(Amount::Double(of(now).checked_sub(of(before))? as f64 / room))
            };
            both([Part::User, Part::System], [share(|u| u.cpu_user), share(|u| u.cpu_system)])
        }
        Source::MemoryUsage => whole(now.memory),
        Source::MemoryVirtual => whole(now.memory_virtual),
        Source::DiskIo => both(
            [Part::Read, Part::Write],
            [more(|u| u.disk_read), more(|u| u.disk_written)].map(|bytes| bytes.map(Amount::Int)),
        ),
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MonotonicNs, ProcessId};

    const SECOND: u64 = 1_000_000_000;

    fn reading(time: u64, cpu_user: u64, cpu_system: u64) -> Usage {
        Usage {
            process: ProcessId(1),
            time: MonotonicNs(time),
            cpu_user,
            cpu_system,
            memory: 4096,
            memory_virtual: 8192,
            disk_read: Some(10),
            disk_written: None,
            cpus: 2,
        }
    }

    #[test]
    fn shares_are_of_the_time_between_two_readings_and_of_all_cpus() {
        let (one, two) = (reading(SECOND, SECOND, 0), reading(5 * SECOND, 3 * SECOND, SECOND));
        assert_eq!(values(Source::CpuUtilization, &one, None), [None, None]);
        let shares = values(Source::CpuUtilization, &two, Some(&one));
        assert_eq!(
            shares,
            [Some((Some(Part::User), Amount::Double(0.25))), Some((Some(Part::System), Amount::Double(0.125)))]
        );
        assert_eq!(kept(shares, Mask::of(&[])), [Some((None, Amount::Double(0.375))), None]);
        for odd in [reading(SECOND, 0, 0), reading(0, 0, 0), Usage { cpus: 0, ..two }, reading(9 * SECOND, 0, 0)] {
            assert_eq!(
                values(Source::CpuUtilization, &odd, Some(&one)).map(|v| v.filter(|(p, _)| *p == Some(Part::User))),
                [None, None],
                "{odd:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let now = reading(0, 0, 0);
        assert_eq!(values(Source::DiskIo, &now, None), [Some((Some(Part::Read), Amount::Int(10))), None]);
        assert_eq!(values(Source::MemoryUsage, &now, None), [Some((None, Amount::Int(4096))), None]);
        assert_eq!(
            values(Source::CpuTime, &reading(0, SECOND / 2, 0), None)[0],
            Some((Some(Part::User), Amount::Double(0.5)))
        );
    }
}
