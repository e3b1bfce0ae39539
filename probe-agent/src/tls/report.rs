//! What is read of TLS, and what is not, by program: for the log and the agent's status.
//!
//! In: libraries of processes, connections that nobody read. Out: at most [`MAX_PROGRAMS`] entries, and one line in the log
//! for each program and reason.

use std::time::{Duration, Instant};

use spantap_proto::v1;

use super::{Told, library::Unreadable};
use crate::{
    discovery::ProcFs,
    doctor::{libraries_of, may_be_read},
};

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
    /// `libraries`: those that are known of the process, with the reason for each that is not read; `others`: what was found by marks,
    /// `None` if the process ended before it was looked through.
    pub(super) fn of<'a>(
        libraries: impl Iterator<Item = (&'a str, Option<&'a Unreadable>)>,
        untied: bool,
        others: Option<&[&'static str]>,
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
        let Some((library, _)) = read else {
            let (library, reason) = match others {
                None => (String::new(), "the process had ended before it was looked at"),
                Some([]) => {
                    (String::new(), "no TLS library that is known: it may be linked into the program, without symbols")
                }
                Some(others) => (others.join(", "), "this library is not read"),
            };
            return Self { library, reason: reason.to_owned() };
        };
        let others: Vec<&str> =
            others.unwrap_or_default().iter().filter(|other| !may_be_read(other)).copied().collect();
        let reason = match others.is_empty() {
            true => {
                "none of its calls belonged to the connection: it began before it was read, or another library did it"
                    .to_owned()
            }
            false => format!(
                "none of its calls belonged to the connection: {} may have, which is not read",
                others.join(", ")
            ),
        };
        Self { library: (*library).to_owned(), reason }
    }
}

/// Libraries that are known by their files or marks in the program.
pub(super) fn others(procfs: &ProcFs, pid: u32) -> Vec<&'static str> {
    libraries_of(procfs, pid, Instant::now() + PATIENCE).unwrap_or_default().into_iter().collect()
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
        let gone = Unreadable::Replaced;
        let of = |libraries: &[(&'static str, Option<&Unreadable>)], untied| {
            Report::of(libraries.iter().copied(), untied, Some(&["OpenSSL"]))
        };
        assert!(of(&[("l", None)], true).reason.contains("memory BIO"));
        assert!(of(&[("l", None), ("m", Some(&gone))], false).reason.contains("restart the program"));
        assert!(of(&[("l", None)], false).reason.contains("another library"));
        let none = Report::of(std::iter::empty(), false, Some(&[]));
        assert!(none.reason.contains("without symbols"));
        assert!(Report::of(std::iter::empty(), false, None).reason.contains("had ended"));
        let both = Report::of([("l", None)].into_iter(), false, Some(&["OpenSSL, static", "rustls"]));
        assert!(both.reason.contains("rustls may have") && !both.reason.contains("OpenSSL"), "{}", both.reason);
        let go = Report::of(std::iter::empty(), false, Some(&["Go crypto/tls"]));
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
