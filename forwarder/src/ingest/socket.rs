//! The ingest socket in the file system.
//!
//! In: its path. Out: a listening Unix socket of mode 0660 in a directory that only root and the forwarder's user can
//! write, or an error that says what stands in the way.
//!
//! Who can write the directory could put a socket of their own in the place of this one, and be told what the agent sees:
//! hence the rule for it, which a sticky bit does not soften (the place may be taken before it is ours). What stands
//! above the directory is the business of whoever set up the host.
//!
//! Starts at the same time come one after the other, by a lock beside the socket that the kernel lets go of with its
//! holder. The socket gets owner and mode before it listens: until then nobody can connect to it.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

/// How long another start may hold the lock; it needs it for some system calls only.
const PATIENCE: Duration = Duration::from_secs(3);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;
/// Of the socket: the agent's group may connect.
const SOCKET_MODE: Mode = Mode::from_raw_mode(0o660);
/// May write: the group, or others.
const WRITABLE: u32 = 0o022;

/// Why there is no ingest socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("another spantap listens on {0}: stop it, or set spantap.socket (SPANTAP_SOCKET) to another path")]
    InUse(PathBuf),
    /// There is a socket that we may not connect to, so that nobody knows whether somebody listens.
    #[error(
        "{path} is the socket of user {uid}, and another spantap may listen on it: stop that one, remove the file if \
         there is none, or set spantap.socket (SPANTAP_SOCKET) to another path"
    )]
    OfAnotherUser {
        /// Path of the socket.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Another forwarder is just starting, and does not come to an end.
    #[error(
        "another spantap is starting with {0}: wait for it or stop it, or set spantap.socket (SPANTAP_SOCKET) to another path"
    )]
    Starting(PathBuf),
    /// There is something that is no socket.
    #[error("{0} is not a socket; it is left alone: remove it, or set spantap.socket (SPANTAP_SOCKET) to another path")]
    NotASocket(PathBuf),
    /// There is a symbolic link.
    #[error(
        "{0} is a symbolic link: set spantap.socket (SPANTAP_SOCKET) to a path without one at its end or before it"
    )]
    Link(PathBuf),
    /// Others could replace the socket.
    #[error(
        "users beside its owner may write {path} (mode {mode:o}) and could replace the socket: chmod go-w {path}, or set \
         spantap.socket (SPANTAP_SOCKET) to a path in a directory that is not there yet, which is made"
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A stranger could replace the socket.
    #[error(
        "{path} belongs to user {uid}, who could replace the socket: chown {wanted} {path}, or set spantap.socket \
         (SPANTAP_SOCKET) to another path"
    )]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Who it should be.
        wanted: u32,
    },
    /// Root without the right to give files away.
    #[error("cannot give {path} to user {owner}: {error}; start Spantap with CAP_CHOWN, or as that user")]
    Owner {
        /// The socket or its directory.
        path: PathBuf,
        /// Numeric user id of who shall have it.
        owner: u32,
        /// What the system says.
        error: io::Error,
    },
    /// The file system says no.
    #[error(
        "cannot listen on {path}: {error}; set spantap.socket (SPANTAP_SOCKET) to a path that this user may create"
    )]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Listens on `path`, for `owner` (numeric user id) if given. A socket that nobody listens on any more is replaced; its
/// directory is made if it is missing.
///
/// # Errors
/// See [`BindError`].
pub fn bind(path: &Path, owner: Option<u32>) -> Result<UnixListener, BindError> {
    let failed = |error: io::Error| BindError::Io { path: path.to_owned(), error };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    // First of all: that another one runs explains whatever else is wrong.
    look(path)?;
    let directory = Directory::open(path, owner)?;
    let _alone = directory.lock(path, name)?;
    if look(path)? == Found::Stale {
        rustix::fs::unlinkat(&directory.file, name, AtFlags::empty()).map_err(|error| failed(error.into()))?;
    }
    listen(&directory, path, name, owner)
}

/// What stands at the path, if it can be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Stale,
}

fn look(path: &Path) -> Result<Found, BindError> {
    let failed = |error| BindError::Io { path: path.to_owned(), error };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(error)),
    };
    if found.file_type().is_symlink() {
        return Err(BindError::Link(path.to_owned()));
    }
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let socket = unix_socket().map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Err(Errno::CONNREFUSED) => Ok(Found::Stale),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        // Says nothing about whether somebody listens.
        Err(Errno::ACCESS | Errno::PERM) => Err(BindError::OfAnotherUser { path: path.to_owned(), uid: found.uid() }),
        // EAGAIN: it has more connections waiting than it takes. EPROTOTYPE: a socket of another kind, in use.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// What [`bind`] would say of the directory of `path` as it is; `None`: nothing, or it is not there yet. Changes nothing.
pub fn refused_directory(path: &Path, owner: Option<u32>) -> Option<BindError> {
    let directory = directory_of(path);
    let found = fs::symlink_metadata(directory).ok()?;
    if found.is_symlink() {
        return Some(BindError::Link(directory.to_owned()));
    }
    trusted(directory, found.uid(), found.mode(), owner).err()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Nobody but root and the forwarder's user may write the directory.
fn trusted(directory: &Path, uid: u32, mode: u32, owner: Option<u32>) -> Result<(), BindError> {
    let own = rustix::process::geteuid().as_raw();
    let path = directory.to_owned();
    if uid != 0 && uid != own && Some(uid) != owner {
        return Err(BindError::Stranger { path, uid, wanted: owner.unwrap_or(own) });
    }
    if mode & WRITABLE != 0 {
        return Err(BindError::Writable { path, mode: mode & 0o7777 });
    }
    Ok(())
}

/// A socket that never waits.
fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Makes the socket where there is nothing.
fn listen(directory: &Directory, path: &Path, name: &OsStr, owner: Option<u32>) -> Result<UnixListener, BindError> {
    let failed = |error: io::Error| BindError::Io { path: path.to_owned(), error };
    let socket = unix_socket().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    rustix::net::bind(&socket, &address).map_err(|error| failed(error.into()))?;
    if let Some(owner) = owner {
        let uid = Some(Uid::from_raw(owner));
        rustix::fs::chownat(&directory.file, name, uid, None, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| BindError::Owner { path: path.to_owned(), owner, error: error.into() })?;
    }
    rustix::fs::chmodat(&directory.file, name, SOCKET_MODE, AtFlags::empty()).map_err(|error| failed(error.into()))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|error| failed(error.into()))?;
    Ok(socket.into())
}

/// The socket's directory, which was found right.
#[derive(Debug)]
struct Directory {
    file: OwnedFd,
}

impl Directory {
    /// That of `path`, made if it is missing.
    fn open(path: &Path, owner: Option<u32>) -> Result<Self, BindError> {
        let failed = |error| BindError::Io { path: path.to_owned(), error };
        let directory = directory_of(path);
        let made = match fs::symlink_metadata(directory) {
            Ok(found) if found.is_symlink() => return Err(BindError::Link(directory.to_owned())),
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
                true
            }
            Err(error) => return Err(failed(error)),
        };
        // From here on by its descriptor: whatever its name becomes, this is what was looked at.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let found = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        trusted(directory, found.st_uid, found.st_mode, owner)?;
        let own = rustix::process::geteuid().as_raw();
        if let Some(owner) = owner.filter(|_| made && found.st_uid == own) {
            let path = directory.to_owned();
            rustix::fs::fchown(&file, Some(Uid::from_raw(owner)), None).map_err(|error| BindError::Owner {
                path,
                owner,
                error: error.into(),
            })?;
        }
        Ok(Self { file })
    }

    /// Waits until no other start is under way, and keeps others waiting for as long as the file is held.
    fn lock(&self, path: &Path, name: &OsStr) -> Result<OwnedFd, BindError> {
        let failed = |error: Errno| BindError::Io { path: path.to_owned(), error: error.into() };
        let mut lock = name.to_owned();
        lock.push(".lock");
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.file, &lock, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let directory = rustix::fs::fstat(&self.file).map_err(failed)?;
        if rustix::process::geteuid().is_root() {
            // Whoever owns the directory may start without us the next time.
            let owner = directory.st_uid;
            rustix::fs::fchown(&file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(directory.st_gid)))
                .map_err(|error| BindError::Owner { path: path.to_owned(), owner, error: error.into() })?;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(BindError::Starting(path.to_owned())),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
