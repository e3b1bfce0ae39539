//! Which of the selected programs are linked by what their runtime tells, and of which that cannot be.
//!
//! In: memory maps and executables of selected processes, both hostile; whether links are wanted, and TLS read, which takes the same.
//! Out: one check.

use spantap_doctor::{Check, Group};

use super::{executables, processes::bounded, tls::Reading};
use crate::{
    discovery::{ProcFs, Process},
    tls::{Linkable, linkable},
};

/// Looks at what `selected` runs.
pub(super) fn look(procfs: &ProcFs, selected: &[Process], wanted: bool, reading: Reading) -> Check {
    let (found, missing) =
        executables::each(procfs, selected, |procfs, pid, _| linkable(procfs, pid).map_err(drop).ok());
    let mut found: Vec<_> = found.into_iter().filter_map(|(name, found)| Some((name, found?))).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    judge(&found, missing, wanted, reading)
}

fn judge(found: &[(String, Linkable)], missing: usize, wanted: bool, reading: Reading) -> Check {
    let id = "processes.links";
    let unseen = match missing {
        0 => String::new(),
        missing => format!("; programs that could not be looked at: {missing}"),
    };
    if !wanted {
        return Check::ok(Group::Processes, id, "spantap.links is off: spans have the parents that headers name");
    }
    if found.is_empty() {
        let what = format!("no selected program is one of Go's net/http, Node or CPython's asyncio{unseen}");
        return match missing {
            0 => Check::ok(Group::Processes, id, what),
            _ => Check::unknown(Group::Processes, id, what, "run doctor as root: sudo spantap doctor"),
        };
    }
    let whole = |(name, program): &(String, Linkable)| match &program.but {
        None => format!("{name}: {}, linked", program.runtime),
        Some(but) => format!("{name}: {}, {but}", program.runtime),
    };
    if reading != Reading::On {
        let what =
            format!("what runtimes tell is not linked: it takes what reading TLS takes; programs: {}", found.len());
        return Check::degraded(Group::Processes, id, format!("{what}{unseen}"), "see processes.tls")
            .with_details(bounded(found.iter().map(|(name, program)| format!("{name}: {}", program.runtime))));
    }
    let without: Vec<_> = found.iter().filter(|(_, program)| program.but.is_some()).collect();
    if without.is_empty() {
        let what = format!("requests of Go, Node and CPython's asyncio are linked; programs: {}{unseen}", found.len());
        return Check::ok(Group::Processes, id, what).with_details(bounded(found.iter().map(whole)));
    }
    Check::degraded(
        Group::Processes,
        id,
        format!("requests of programs are not linked, or not all: {} of {}{unseen}", without.len(), found.len()),
        "take builds with symbols, of the versions in docs/links.md; or propagate context in the programs",
    )
    .with_details(bounded(without.into_iter().map(whole)))
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    #[test]
    fn what_is_not_linked_limits() {
        let program = |but: Option<&str>| Linkable { runtime: "Node", but: but.map(str::to_owned) };
        let good = [("node".to_owned(), program(None))];
        let both = [("node".to_owned(), program(None)), ("stripped".to_owned(), program(Some("no symbols")))];
        let state = |found: &[_], missing, wanted, reading| judge(found, missing, wanted, reading).state;
        assert_eq!(state(&good, 0, true, Reading::On), State::Ok);
        assert_eq!(state(&both, 0, false, Reading::On), State::Ok);
        assert_eq!(state(&good, 0, true, Reading::Off), State::Degraded);
        assert_eq!(state(&[], 0, true, Reading::On), State::Ok);
        assert_eq!(state(&[], 1, true, Reading::On), State::Unknown);
        let check = judge(&both, 0, true, Reading::On);
        assert_eq!((check.state, check.details), (State::Degraded, vec!["stripped: Node, no symbols".to_owned()]));
    }
}
