//! What is read of TLS, and what is not, by program: for the log and the agent's status.
//!
//! In: libraries of processes, connections that nobody read. Out: at most [`MAX_PROGRAMS`] entries, and one line in the log
//! for each program and reason.

use std::time::{Duration, Instant};

use spantap_proto::v1;

use super::{Told, library::Unreadable};
use crate::{discovery::ProcFs, doctor::libraries_of};

/// Entries that are kept; more programs are not told apart, but counted in the last.
const MAX_PROGRAMS: usize = 64;
/// Looking through an executable for marks of libraries takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a connection was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    library: String,
    reason: String,
}

impl Report {
    /// `libraries`: those that are known of the process, with the reason for each that is not read.
    pub(super) fn of<'a>(
        libraries: impl Iterator<Item = (&'a str, Option<&'a Unreadable>)>,
        untied: bool,
        others: impl FnOnce() -> Option<String>,
    ) -> Self {
        let libraries: Vec<_> = libraries.collect();
        let read = libraries.iter().find(|(_, reason)| reason.is_none());
        if let (Some((library, _)), true) = (read, untied) {
            let reason = "it works in memory, and the program moves the bytes itself (memory BIO): its requests are \
                          reported, but not who the peer was";
            return Self { library: (*library).to_owned(), reason: reason.to_owned() };
        }
        if let Some((library, Some(reason))) = libraries.iter().find(|(_, reason)| reason.is_some()) {
            return Self { library: (*library).to_owned(), reason: reason.to_string() };
        }
        match (read, others()) {
            (Some((library, _)), _) => Self {
                library: (*library).to_owned(),
                reason: "none of its calls belonged to the connection: it began before it was read, or another library did it"
                    .to_owned(),
            },
            (None, Some(library)) => Self { library, reason: "this library is not read".to_owned() },
            (None, None) => Self {
                library: String::new(),
                reason: "no TLS library that is known: it may be linked into the program, without symbols".to_owned(),
            },
        }
    }
}

/// Libraries that are known, but not read.
pub(super) fn others(procfs: &ProcFs, pid: u32) -> Option<String> {
    let found = libraries_of(procfs, pid, Instant::now() + PATIENCE)?;
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(", "))
}

/// Notes a library of a program; `reason` if it is not read.
pub(super) fn library(told: &Told, executable: &str, library: &str, reason: Option<String>) {
    entry(told, executable, library, reason.as_deref().unwrap_or_default(), |_| {});
}

/// Counts a connection that was not read, and logs the first of its kind.
pub(super) fn connection(told: &Told, pid: u32, executable: &str, report: Report) {
    let Report { library, reason } = report;
    let first = entry(told, executable, &library, &reason, |entry| {
        entry.connections += 1;
        entry.connections == 1
    });
    if first == Some(true) {
        tracing::warn!(pid, executable, library, reason, "a TLS connection is not read in full");
    }
}

fn entry<T>(
    told: &Told,
    executable: &str,
    library: &str,
    reason: &str,
    change: impl FnOnce(&mut v1::TlsProgram) -> T,
) -> Option<T> {
    let mut entries = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let same =
        |entry: &v1::TlsProgram| entry.executable == executable && entry.library == library && entry.reason == reason;
    let at = match entries.iter().position(same) {
        Some(at) => at,
        None if entries.len() < MAX_PROGRAMS => {
            entries.push(v1::TlsProgram {
                executable: executable.to_owned(),
                library: library.to_owned(),
                reason: reason.to_owned(),
                connections: 0,
            });
            entries.len() - 1
        }
        None => return None,
    };
    entries.get_mut(at).map(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_nearest_one() {
        let none = || None;
        let gone = Unreadable::Replaced;
        let of = |libraries: &[(&'static str, Option<&Unreadable>)], untied| {
            Report::of(libraries.iter().copied(), untied, none)
        };
        assert!(of(&[("l", None)], true).reason.contains("memory BIO"));
        assert!(of(&[("l", None), ("m", Some(&gone))], false).reason.contains("restart the program"));
        assert!(of(&[("l", None)], false).reason.contains("another library"));
        assert!(of(&[], false).reason.contains("without symbols"));
        let go = Report::of(std::iter::empty(), false, || Some("Go crypto/tls".to_owned()));
        assert_eq!((go.library.as_str(), go.reason.as_str()), ("Go crypto/tls", "this library is not read"));
    }

    #[test]
    fn entries_are_bounded_and_count() {
        let told = Told::default();
        for program in 0..2 * MAX_PROGRAMS {
            library(&told, &program.to_string(), "l", None);
        }
        let report = Report { library: "l".to_owned(), reason: "r".to_owned() };
        connection(&told, 1, "0", report);
        assert_eq!(told.lock().map(|entries| entries.len()).unwrap_or(0), MAX_PROGRAMS);
    }
}
