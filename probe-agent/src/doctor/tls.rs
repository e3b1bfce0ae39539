//! Which of the selected processes may speak TLS, and whether it is read.
//!
//! In: `/proc/PID/maps` and the executables of selected processes, both hostile. Out: the libraries that they map, or
//! that are linked into them, by program. Bounded in files, bytes and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    time::Instant,
};

use memchr::memmem;
use spantap_doctor::{Check, Group};

use super::{executables, processes::bounded};
use crate::discovery::{ProcFs, Process};

/// Bytes of an executable that are looked through: Node's has 120 MB.
const MAX_EXECUTABLE: u64 = 192 << 20;
const CHUNK: usize = 1 << 20;
/// Longer than any mark, so that one across two chunks is found.
const OVERLAP: usize = 64;

/// Beginnings of file names of shared libraries, and what they are.
const LIBRARIES: [(&str, &str); 6] = [
    ("libssl3.so", "NSS"),
    ("libssl.so", "OpenSSL"),
    ("libgnutls.so", "GnuTLS"),
    ("libmbedtls.so", "Mbed TLS"),
    ("libwolfssl.so", "wolfSSL"),
    ("libjvm.so", "Java"),
];

/// What is found in executables that have a library linked into them.
const MARKS: [(&[u8], &str); 6] = [
    (b"crypto/tls.(*Conn).Write", GO),
    (b"BoringSSL", "BoringSSL"),
    (b"OpenSSL 3.", "OpenSSL, static"),
    (b"OpenSSL 1.", "OpenSSL, static"),
    // The text of its version is there only if the program asks for it; names of its sources are for errors.
    (b"ssl/ssl_lib.c\0", "OpenSSL, static"),
    (b"/rustls-0.", "rustls"),
];

/// Whether libraries that can be read will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Yes.
    On,
    /// The configuration says no.
    Off,
    /// It takes a capability that is missing.
    NotAllowed,
}

/// What is read (tls.rs); OpenSSL that is linked into a program only if its symbols are there.
const READ: [&str; 3] = ["OpenSSL", "GnuTLS", GO];
const GO: &str = "Go crypto/tls";
/// The same where its functions are not as they have to be.
const OTHER_GO: &str = "Go crypto/tls, older than 1.17 or otherwise unknown";

/// Looks at what `selected` runs.
pub(in crate::doctor) fn look(procfs: &ProcFs, selected: &[Process], reading: Reading) -> Check {
    let (looked, missing) = executables::each(procfs, selected, libraries_of);
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for (name, libraries) in looked {
        found.entry(name).or_default().extend(libraries);
    }
    found.retain(|_, libraries| !libraries.is_empty());
    judge(&found, missing, reading)
}

/// Whether what [`libraries_of`] calls so may be read; what is linked into a program only if its symbols are there.
pub(crate) fn may_be_read(library: &str) -> bool {
    READ.contains(&library) || ["OpenSSL, static", "BoringSSL"].contains(&library)
}

/// `None` if it could not be looked at.
pub(crate) fn libraries_of(procfs: &ProcFs, pid: u32, deadline: Instant) -> Option<BTreeSet<&'static str>> {
    let maps = procfs.maps(pid).ok()?;
    let mapped = mapped(&maps);
    if !mapped.is_empty() {
        return Some(mapped);
    }
    let file = File::open(procfs.path(pid, "exe")).ok()?;
    let mut found = linked(&file, deadline)?;
    if found.contains(GO) && !crate::tls::reads_go(&file) {
        found.remove(GO);
        found.insert(OTHER_GO);
    }
    Some(found)
}

/// Libraries whose files are mapped: the last field of each line (proc_pid_maps(5)) is a path.
fn mapped(maps: &[u8]) -> BTreeSet<&'static str> {
    let names = maps.split(|&byte| byte == b'\n').filter_map(|line| line.rsplit(|&byte| byte == b'/').next());
    names
        .filter_map(|name| LIBRARIES.iter().find(|(begin, _)| name.starts_with(begin.as_bytes())))
        .map(|(_, what)| *what)
        .collect()
}

/// Libraries that are part of the executable itself; `None` if there was no time to look.
fn linked(file: impl Read, deadline: Instant) -> Option<BTreeSet<&'static str>> {
    let marks: Vec<_> = MARKS.iter().map(|(mark, what)| (memmem::Finder::new(mark), *what)).collect();
    let mut file = file.take(MAX_EXECUTABLE);
    let mut found = BTreeSet::new();
    let mut buffer = Vec::with_capacity(CHUNK + OVERLAP);
    loop {
        if Instant::now() >= deadline {
            return None;
        }
        let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut buffer).ok()?;
        if count == 0 {
            return Some(found);
        }
        found.extend(marks.iter().filter(|(mark, _)| mark.find(&buffer).is_some()).map(|(_, what)| *what));
        buffer.drain(..buffer.len().saturating_sub(OVERLAP));
    }
}

fn judge(found: &BTreeMap<String, BTreeSet<&'static str>>, not_looked_at: usize, reading: Reading) -> Check {
    let id = "processes.tls";
    let missing = if not_looked_at > 0 {
        format!("; programs that could not be looked at: {not_looked_at}")
    } else {
        String::new()
    };
    if found.is_empty() && not_looked_at > 0 {
        return Check::unknown(
            Group::Processes,
            id,
            format!("no TLS library found{missing}"),
            "run doctor as root: sudo spantap doctor",
        );
    }
    if found.is_empty() {
        return Check::ok(Group::Processes, id, "no selected program has a TLS library that is known here");
    }
    let unread: Vec<_> = found
        .iter()
        .filter(|(_, libraries)| reading != Reading::On || libraries.iter().any(|it| !READ.contains(it)))
        .collect();
    if unread.is_empty() && not_looked_at == 0 {
        return Check::ok(
            Group::Processes,
            id,
            format!("TLS is read, of OpenSSL, GnuTLS and Go; selected programs with it: {}", found.len()),
        );
    }
    let (why, way_out) = match reading {
        Reading::On => (
            "TLS of other libraries than OpenSSL, GnuTLS and Go's is not read",
            "what they send in plain text is seen; observe behind the proxy that ends TLS, or count on `encrypted` in \
             spantap_losses_total to tell how many connections were not read",
        ),
        Reading::Off => ("TLS is not read: spantap.tls is off", "set spantap.tls: auto"),
        Reading::NotAllowed => (
            "TLS is not read: that takes CAP_SYS_ADMIN",
            "give the agent CAP_SYS_ADMIN, which only a small process keeps (docs/privileges.md)",
        ),
    };
    Check::degraded(
        Group::Processes,
        id,
        format!("{why}; selected programs that may speak it: {}{missing}", unread.len()),
        way_out,
    )
    .with_details(bounded(
        unread
            .iter()
            .map(|(name, libraries)| format!("{name}: {}", libraries.iter().copied().collect::<Vec<_>>().join(", "))),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use spantap_doctor::State;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn mapped_libraries_are_told_apart() {
        let maps = b"55d0-55d1 r--p 00000000 fe:00 12 /usr/sbin/nginx
7f00-7f01 r-xp 00000000 fe:00 13 /usr/lib/x86_64-linux-gnu/libssl.so.3
7f02-7f03 r-xp 00000000 fe:00 14 /usr/lib/firefox/libssl3.so
7f04-7f05 r-xp 00000000 fe:00 15 /usr/lib/libgnutls.so.30.34.3 (deleted)
7f06-7f07 rw-p 00000000 00:00 0 [stack]
\xff\xfe/";
        assert_eq!(mapped(maps), BTreeSet::from(["OpenSSL", "NSS", "GnuTLS"]));
        assert!(mapped(b"").is_empty());
        assert!(mapped(b"7f00-7f01 r-xp 0 fe:00 1 /srv/libssl.sock-of-mine/server").is_empty());
    }

    #[test]
    fn marks_are_found_across_chunks() {
        for shift in [0, 1, 11, 23, 24, 25] {
            let mut file = vec![0; CHUNK - shift];
            file.extend(b"crypto/tls.(*Conn).Write");
            file.resize(2 * CHUNK, 0);
            assert_eq!(linked(&file[..], soon()).unwrap(), BTreeSet::from(["Go crypto/tls"]), "{shift}");
        }
        assert_eq!(linked(&b"x OpenSSL 1.1.1 (compatible; BoringSSL)"[..], soon()).unwrap().len(), 2);
        assert!(linked(&[0; 3 * CHUNK][..], soon()).unwrap().is_empty());
        assert_eq!(linked(&b"BoringSSL"[..], Instant::now()), None, "no time left");
    }

    #[test]
    fn what_may_be_encrypted_limits() {
        let found = BTreeMap::from([("nginx".to_owned(), BTreeSet::from(["OpenSSL"]))]);
        for reading in [Reading::Off, Reading::NotAllowed] {
            let check = judge(&found, 0, reading);
            assert_eq!((check.state, check.details.as_slice()), (State::Degraded, &["nginx: OpenSSL".to_owned()][..]));
        }
        assert_eq!(judge(&found, 0, Reading::On).state, State::Ok);
        let other = BTreeMap::from([("firefox".to_owned(), BTreeSet::from(["NSS"]))]);
        assert_eq!(judge(&other, 0, Reading::On).details, ["firefox: NSS"]);
        for (library, state) in [(GO, State::Ok), (OTHER_GO, State::Degraded)] {
            let found = BTreeMap::from([("server".to_owned(), BTreeSet::from([library]))]);
            assert_eq!(judge(&found, 0, Reading::On).state, state, "{library}");
        }
        assert_eq!(judge(&BTreeMap::new(), 0, Reading::On).state, State::Ok);
        assert_eq!(judge(&BTreeMap::new(), 2, Reading::On).state, State::Unknown);
        assert!(judge(&found, 2, Reading::On).finding.ends_with("looked at: 2"));
    }

    #[test]
    fn this_process_is_looked_at() {
        let procfs = ProcFs::default();
        let libraries = libraries_of(&procfs, procfs.own_pid().unwrap(), soon()).unwrap();
        // The marks themselves are part of it.
        assert!(libraries.contains("BoringSSL"), "{libraries:?}");
    }
}
