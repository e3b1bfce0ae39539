//! The ingest socket's place in the file system.
//!
//! In: its path. Out: whether a start could listen there, or who listens there already. Nothing is made or removed;
//! somebody who listens is connected to and left at once.

use std::{
    fmt, fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{AccessFlags, Uid, User, faccessat, getuid},
};
use spantap_doctor::{Check, Group, Lack};

use crate::ingest::{BindError, refused_directory};

const ID: &str = "socket.path";
const ELSEWHERE: &str = "set spantap.socket (SPANTAP_SOCKET) to another path, for both programs";

/// Who listens on the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    /// Name or number of the user.
    pub(super) user: String,
    /// Process, if it can be known.
    pub(super) pid: Option<u32>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "Process {pid} of user {}", self.user),
            None => write!(f, "A process of user {}", self.user),
        }
    }
}

/// What is at the path.
#[derive(Debug)]
enum There {
    /// Somebody listens; the name of the program, if it can be known.
    Listening(Listener, Option<String>),
    /// A socket that nobody listens on.
    Stale,
    /// Something else, as it is called.
    Other(&'static str),
    /// Nothing.
    Nothing,
    /// It cannot be looked at.
    Hidden(io::Error),
}

/// The directory that a socket would be made in.
#[derive(Debug)]
struct Directory {
    /// The directory itself, or the first above it that is there.
    path: PathBuf,
    /// Whether this user may make something there.
    writable: Result<(), nix::Error>,
    /// Why a start takes it for no safe place.
    refused: Option<BindError>,
}

/// Looks. `owner`: the user that the socket is made for, if that is another one.
pub(super) fn look(path: &Path, owner: Option<u32>) -> (Check, Option<Listener>) {
    let there = there(path);
    let check = judge(path, &there, &directory(path, owner), getuid().is_root());
    let listener = match there {
        There::Listening(listener, _) if check.exit_code.is_none() => Some(listener),
        _ => None,
    };
    (check, listener)
}

fn there(path: &Path) -> There {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return There::Nothing,
        Err(error) => return There::Hidden(error),
    };
    let kind = found.file_type();
    if kind.is_symlink() {
        return There::Other("a symbolic link");
    }
    if !kind.is_socket() {
        return There::Other(if kind.is_dir() { "a folder" } else { "a file" });
    }
    match UnixStream::connect(path) {
        Ok(stream) => match getsockopt(&stream, PeerCredentials) {
            Ok(peer) => {
                // Zero: a process of another PID namespace.
                let pid = u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0);
                let name = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
                // The socket knows who began to listen; that may have been root, who then became another user.
                let uid = pid.and_then(user_of).unwrap_or(peer.uid());
                There::Listening(Listener { user: name_of(uid), pid }, name.map(|name| name.trim().to_owned()))
            }
            Err(error) => There::Hidden(error.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => There::Stale,
        // The kernel's list of Unix sockets is open to everyone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let list = fs::read_to_string("/proc/net/unix").unwrap_or_default();
            if listed(&list, path) {
                There::Listening(Listener { user: name_of(found.uid()), pid: None }, None)
            } else {
                There::Stale
            }
        }
        Err(error) => There::Hidden(error),
    }
}

/// Whether a list of Unix sockets (proc_net(5)) has one that listens at `path`: its flags are those of SO_ACCEPTCON.
fn listed(list: &str, path: &Path) -> bool {
    list.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let listens = fields.nth(3) == Some("00010000");
        listens && fields.nth(3).is_some_and(|found| Path::new(found) == path)
    })
}

/// Effective user of a process, as its `status` tells everyone: `Uid:` real, effective, saved, of the file system.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn directory(socket: &Path, owner: Option<u32>) -> Directory {
    let folders = socket.ancestors().skip(1);
    let path = folders.into_iter().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let flags = AccessFlags::W_OK | AccessFlags::X_OK;
    Directory {
        writable: faccessat(AT_FDCWD, &path, flags, AtFlags::AT_EACCESS),
        refused: refused_directory(socket, owner),
        path,
    }
}

fn judge(path: &Path, there: &There, directory: &Directory, root: bool) -> Check {
    let (path, folder) = (path.display(), directory.path.display());
    let failed = |lack, finding: String, fix: &str| Check::failed(Group::Socket, ID, lack, finding, fix);
    match there {
        There::Other(what) => {
            return failed(
                Lack::Thing,
                format!("{path} is {what}, not a socket; a start leaves it alone"),
                &format!("remove it, or {ELSEWHERE}"),
            );
        }
        There::Hidden(error) => {
            return failed(Lack::Privilege, format!("{path} cannot be reached: {error}"), ELSEWHERE);
        }
        There::Listening(_, Some(name)) if !name.starts_with("spantap") => {
            return failed(Lack::Thing, format!("{name} listens on {path}"), ELSEWHERE);
        }
        There::Listening(listener, _) => {
            return Check::ok(Group::Socket, ID, format!("{path}: {listener} listens there"));
        }
        There::Stale | There::Nothing => {}
    }
    if let Some(refused) = &directory.refused {
        let (why, fix) = match refused {
            BindError::Writable { path, mode } => (
                format!("users beside its owner may write {} (mode {mode:o})", path.display()),
                format!("chmod go-w {}", path.display()),
            ),
            BindError::Stranger { path, uid, wanted } => {
                (format!("{} belongs to user {uid}", path.display()), format!("chown {wanted} {}", path.display()))
            }
            other => return failed(Lack::Thing, other.to_string(), ELSEWHERE),
        };
        return failed(
            Lack::Thing,
            format!("{why}, who could replace the socket; a start refuses that"),
            &format!("{fix}, or {ELSEWHERE}"),
        );
    }
    if let Err(error) = directory.writable {
        let lack = if root { Lack::Thing } else { Lack::Privilege };
        let finding = format!("{path} cannot be made: {folder}: {}", error.desc());
        return failed(lack, finding, &format!("run it as root (sudo), or {ELSEWHERE}; one that this user may make"));
    }
    let what = match there {
        There::Stale => "is a socket that nobody listens on; a start replaces it",
        _ => "can be made",
    };
    Check::ok(Group::Socket, ID, format!("{path} {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixListener};

    use spantap_doctor::State;

    use super::*;

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn what_can_be_at_the_path() {
        let folder = folder(0o755);
        let path = folder.path().join("sub/ingest.sock");
        assert_eq!(look(&path, None).0.state, State::Ok, "the folder is made as well");
        assert!(!path.exists() && !folder.path().join("sub").exists(), "nothing was made");

        let path = folder.path().join("ingest.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let there = there(&path);
        assert!(matches!(&there, There::Listening(who, Some(_)) if who.pid == Some(std::process::id())), "{there:?}");
        assert_eq!(user_of(std::process::id()), Some(nix::unistd::geteuid().as_raw()));
        drop(listener);
        let (stale, nobody) = look(&path, None);
        assert!(stale.state == State::Ok && stale.finding.contains("a start replaces it"), "{stale:?}");
        assert!(nobody.is_none() && path.exists(), "left alone");

        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(look(&link, None).0.finding.contains("a symbolic link"));
        let file = folder.path().join("file.sock");
        fs::write(&file, "").unwrap();
        assert_eq!(look(&file, None).0.exit_code, Some(Lack::Thing));
        assert_eq!(look(&file.join("below/ingest.sock"), None).0.state, State::Failed);
    }

    #[test]
    fn a_folder_that_others_may_write_is_no_place() {
        for mode in [0o777, 0o1777, 0o775] {
            let folder = folder(mode);
            let check = look(&folder.path().join("x.sock"), None).0;
            assert_eq!(check.exit_code, Some(Lack::Thing), "{check:?}");
            assert!(check.fix.is_some_and(|fix| fix.starts_with("chmod go-w ")), "{mode:o}");
            // One that is made there is another folder.
            assert_eq!(look(&folder.path().join("sub/x.sock"), None).0.state, State::Ok, "{mode:o}");
        }
    }

    #[test]
    fn a_strangers_folder_is_told_with_whose_it_has_to_be() {
        let refused = Some(BindError::Stranger { path: "/srv/x".into(), uid: 7, wanted: 65534 });
        let place = Directory { path: "/srv/x".into(), writable: Ok(()), refused };
        let check = judge(Path::new("/srv/x/ingest.sock"), &There::Nothing, &place, true);
        assert_eq!(check.exit_code, Some(Lack::Thing), "{check:?}");
        assert!(check.finding.contains("user 7") && check.fix.is_some_and(|fix| fix.contains("chown 65534 /srv/x")));
    }

    #[test]
    fn judgement_of_what_this_test_cannot_make() {
        let path = Path::new("/run/spantap/ingest.sock");
        let place = |writable| Directory { path: "/run".into(), writable, refused: None };
        let of = |there: &There, writable, root| judge(path, there, &place(writable), root);
        assert_eq!(of(&There::Nothing, Err(nix::Error::EACCES), false).exit_code, Some(Lack::Privilege));
        assert_eq!(of(&There::Stale, Err(nix::Error::EROFS), true).exit_code, Some(Lack::Thing));
        let who = Listener { user: "nobody".to_owned(), pid: None };
        let running = of(&There::Listening(who.clone(), None), Err(nix::Error::EACCES), false);
        assert!(running.state == State::Ok && running.finding.contains("nobody"), "{running:?}");
        let foreign = of(&There::Listening(who, Some("nginx".to_owned())), Ok(()), true);
        assert!(foreign.exit_code == Some(Lack::Thing) && foreign.finding.contains("nginx"), "{foreign:?}");
    }

    #[test]
    fn the_kernels_list_of_sockets() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path
0000: 00000002 00000000 00010000 0001 01 100 /run/a.sock
0000: 00000003 00000000 00000000 0001 03 101 /run/b.sock
0000: 00000003 00000000 00000000 0001 03 102
";
        assert!(listed(list, Path::new("/run/a.sock")));
        assert!(!listed(list, Path::new("/run/b.sock")), "connected, not listening");
        assert!(!listed(list, Path::new("/run/c.sock")));
    }
}
