//! The spool's folder, looked at and not touched.
//!
//! In: `spantap.spool`, the user that the forwarder becomes. Out: a check: whose it is, whether another forwarder has it, what
//! waits in it, and whether the disk has room for what it may become.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::FlockOperation;
use spantap_config::{Config, Spool};
use spantap_doctor::{Check, Group, Lack};

use crate::{export::spool::SpoolError, privilege::Target};

const ID: &str = "destinations.spool";
/// Entries of a folder that are looked at: a spool has some tens.
const MAX_ENTRIES: usize = 65_536;
const MIB: u64 = 1 << 20;

/// `None` if no spool is configured. To be called with the privilege of the start.
pub(super) fn look(config: &Config) -> Option<Check> {
    let spool = config.spool.as_ref()?;
    let own = rustix::process::geteuid().as_raw();
    // A user that is not there is another check's.
    let target = Target::find(config.forwarder.user.as_deref()).ok().flatten();
    let wanted = target.as_ref().map_or(own, Target::uid);
    Some(judge(spool, wanted, running(config)))
}

/// Signals that are spooled: as many folders may grow to the bound.
fn running(config: &Config) -> u64 {
    u64::from(config.traces.is_some()) + u64::from(config.metrics.is_some())
}

fn judge(spool: &Spool, wanted: u32, signals: u64) -> Check {
    let path = &spool.path;
    let failed = |error: &SpoolError| {
        let fix = "do what it says, or take spantap.spool.path out";
        Check::failed(Group::Destinations, ID, Lack::Thing, error.to_string(), fix)
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match path.parent().filter(|parent| parent.is_dir()) {
                Some(parent) => room(spool, parent, 0, signals, format!("{} is made at the start", path.display())),
                None => failed(&SpoolError::NoParent { path: path.clone(), uid: wanted }),
            };
        }
        Err(error) => return failed(&SpoolError::Io { path: path.clone(), uid: wanted, error }),
    };
    if !found.is_dir() {
        return failed(&SpoolError::NotAFolder(path.clone()));
    }
    if found.uid() != wanted {
        return failed(&SpoolError::Stranger { path: path.clone(), uid: found.uid(), wanted });
    }
    if found.mode() & 0o077 != 0 {
        return failed(&SpoolError::Open { path: path.clone(), mode: found.mode() & 0o7777 });
    }
    let waiting: Vec<(String, u64)> = ["traces", "metrics"]
        .into_iter()
        .map(|name| (name.to_owned(), bytes(&path.join(name))))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    let held = waiting.iter().map(|(_, bytes)| bytes).sum();
    let mut finding = match waiting.as_slice() {
        [] => format!("{} is empty", path.display()),
        _ => {
            let each: Vec<String> =
                waiting.iter().map(|(name, bytes)| format!("{} of {name}", shown(*bytes))).collect();
            format!("{} holds {}", path.display(), each.join(" and "))
        }
    };
    if is_locked(&path.join("lock")) {
        finding += "; a running spantap has it";
    }
    room(spool, path, held, signals, finding)
}

/// Whether the disk of `place` has room for what is not there yet.
fn room(spool: &Spool, place: &Path, held: u64, signals: u64, finding: String) -> Check {
    let Ok(disk) = rustix::fs::statvfs(place) else {
        return Check::unknown(
            Group::Destinations,
            ID,
            format!("{finding}; how full the disk is, is not told"),
            "df tells",
        );
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let most = spool.max_bytes.saturating_mul(signals);
    let finding = format!("{finding}; it may grow to {}, and {} are free", shown(most), shown(free));
    if free < most.saturating_sub(held) {
        let fix = "make room, or set spantap.spool.max_size to less: what finds no room stays in memory, then is lost";
        return Check::degraded(Group::Destinations, ID, finding, fix);
    }
    Check::ok(Group::Destinations, ID, finding)
}

/// Bytes of the files in a folder; none if it is not there.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).filter(fs::Metadata::is_file).map(|data| data.len()).sum()
}

/// Whether a forwarder holds the lock. One that starts in this very moment may take this look for another.
fn is_locked(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

fn shown(bytes: u64) -> String {
    match bytes {
        0 => "nothing".to_owned(),
        1..MIB => "less than 1 MiB".to_owned(),
        _ => format!("{} MiB", bytes / MIB),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

    use spantap_doctor::State;

    use super::*;
    use crate::export::spool::Directory;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn of(path: PathBuf, max_bytes: u64) -> Check {
        judge(&Spool { path, max_bytes, max_age: Duration::from_secs(60) }, own(), 2)
    }

    #[test]
    fn what_is_there_is_told_and_what_is_not_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let check = of(path.clone(), 1);
        assert!(check.state == State::Ok && check.finding.contains("is made at the start"), "{check:?}");
        assert!(!path.exists(), "looked at, not made");
        let held = Directory::open(&path, None).unwrap();
        fs::create_dir(path.join("traces")).unwrap();
        fs::write(path.join("traces/1"), vec![0; 3 << 20]).unwrap();
        let check = of(path.clone(), 16 << 20);
        assert!(check.finding.contains("holds 3 MiB of traces; a running spantap has it"), "{check:?}");
        drop(held);
        assert!(!of(path.clone(), 1).finding.contains("running"));
        let check = of(path, u64::MAX / 4);
        assert!(
            check.state == State::Degraded && check.fix.as_deref().is_some_and(|fix| fix.contains("max_size")),
            "{check:?}"
        );
    }

    #[test]
    fn what_a_start_would_refuse_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        for (path, words) in [(file, "no folder"), (open, "chmod 700"), (folder.path().join("a/b"), "install -d")] {
            let check = of(path, 1);
            assert!(check.state == State::Failed && check.finding.contains(words), "{check:?}");
        }
        let spool = Spool { path: folder.path().to_owned(), max_bytes: 1, max_age: Duration::from_secs(60) };
        let check = judge(&spool, own() + 1, 1);
        assert!(check.finding.contains("chown"), "{check:?}");
    }
}
