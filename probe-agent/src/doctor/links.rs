//! Which of the selected programs are linked by what their runtime tells, and of which that cannot be.
//!
//! In: memory maps and executables of selected processes, both hostile; which links are wanted, and whether TLS is read, which takes the same.
//! Out: one check.

use spantap_doctor::{Check, Group};

use super::{executables, processes::bounded, tls::Reading};
use crate::{
    discovery::{ProcFs, Process},
    tls::{Linkable, Links, linkable},
};

const ID: &str = "processes.links";

/// Looks at what `selected` runs. `wanted`: what is to be linked, if anything.
pub(super) fn look(procfs: &ProcFs, selected: &[Process], wanted: Option<Links>, reading: Reading) -> Check {
    let Some(wanted) = wanted else {
        return Check::ok(Group::Processes, ID, "spantap.links is off: spans have the parents that headers name");
    };
    let (found, missing) =
        executables::each(procfs, selected, move |procfs, pid, _| linkable(procfs, pid, wanted).map_err(drop).ok());
    let mut found: Vec<_> = found.into_iter().filter_map(|(name, found)| Some((name, found?))).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    judge(&found, missing, wanted, reading)
}

fn judge(found: &[(String, Linkable)], missing: usize, wanted: Links, reading: Reading) -> Check {
    let runtimes = |last: &str| match wanted.tokio {
        true => format!("Go, Node, CPython's asyncio {last} tokio"),
        false => format!("Go, Node {last} CPython's asyncio"),
    };
    let unseen = match missing {
        0 => String::new(),
        missing => format!("; programs that could not be looked at: {missing}"),
    };
    if found.is_empty() {
        let what = format!("no selected program is one of {}{unseen}", runtimes("or"));
        return match missing {
            0 => Check::ok(Group::Processes, ID, what),
            _ => Check::unknown(Group::Processes, ID, what, "run doctor as root: sudo spantap doctor"),
        };
    }
    let whole = |(name, program): &(String, Linkable)| match &program.but {
        None => format!("{name}: {}, linked", program.runtime),
        Some(but) => format!("{name}: {}, {but}", program.runtime),
    };
    if reading != Reading::On {
        let what =
            format!("what runtimes tell is not linked: it takes what reading TLS takes; programs: {}", found.len());
        return Check::degraded(Group::Processes, ID, format!("{what}{unseen}"), "see processes.tls")
            .with_details(bounded(found.iter().map(|(name, program)| format!("{name}: {}", program.runtime))));
    }
    let without: Vec<_> = found.iter().filter(|(_, program)| program.but.is_some()).collect();
    if without.is_empty() {
        let what = format!("requests of {} are linked; programs: {}{unseen}", runtimes("and"), found.len());
        return Check::ok(Group::Processes, ID, what).with_details(bounded(found.iter().map(whole)));
    }
    Check::degraded(
        Group::Processes,
        ID,
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
        let state = |found: &[_], missing, reading| judge(found, missing, Links { tokio: true }, reading).state;
        assert_eq!(state(&good, 0, Reading::On), State::Ok);
        assert_eq!(state(&good, 0, Reading::Off), State::Degraded);
        assert_eq!(state(&[], 0, Reading::On), State::Ok);
        assert_eq!(state(&[], 1, Reading::On), State::Unknown);
        for (tokio, names) in [(false, "Go, Node or CPython's asyncio"), (true, "Go, Node, CPython's asyncio or tokio")]
        {
            assert!(judge(&[], 0, Links { tokio }, Reading::On).finding.ends_with(names));
        }
        let check = judge(&both, 0, Links { tokio: false }, Reading::On);
        assert_eq!((check.state, check.details), (State::Degraded, vec!["stripped: Node, no symbols".to_owned()]));
    }
}
