//! The spool's folder: made or found right, and ours alone.
//!
//! In: its path, the user that the forwarder becomes. Out: its descriptor and a lock that the kernel lets go of with its
//! holder, or an error that says what stands in the way. From then on names are looked up from the descriptor only: whatever
//! the path becomes, this is what was looked at.
//!
//! Whoever can write the folder could have anything sent in our name, and whoever can read it sees what was observed:
//! hence mode 0700 and no stranger as its owner.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FlockOperation, Gid, Mode, OFlags, Uid},
    io::Errno,
};

/// Of the folder and those in it.
const MODE: Mode = Mode::RWXU;
/// Bits that the folder must not have: anything for the group or others.
const FOREIGN: u32 = 0o077;
const LOCK: &str = "lock";

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another forwarder has it.
    #[error(
        "spantap.spool.path: another spantap keeps its spool in {0}: stop it, or set the key (SPANTAP_SPOOL_PATH) to another \
         folder"
    )]
    InUse(PathBuf),
    /// There is a symbolic link, or something that is no folder.
    #[error(
        "spantap.spool.path: {0} is a symbolic link or no folder; set the key (SPANTAP_SPOOL_PATH) to a folder, by its own path"
    )]
    NotAFolder(PathBuf),
    /// The folder around it is missing.
    #[error("spantap.spool.path: the folder around {path} is not there: install -d -o {uid} -m 700 {path}")]
    NoParent {
        /// The folder.
        path: PathBuf,
        /// Whom it should belong to.
        uid: u32,
    },
    /// The folder belongs to somebody else.
    #[error(
        "spantap.spool.path: {path} belongs to user {uid}, and the forwarder is user {wanted}: chown -R {wanted} {path}"
    )]
    Stranger {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Whom it should belong to.
        wanted: u32,
    },
    /// Others may read or write it.
    #[error("spantap.spool.path: others may read or write {path} (mode {mode:o}): chmod 700 {path}")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be given to the user that the forwarder becomes.
    #[error(
        "spantap.spool.path: cannot give {path} to user {uid}: {error}; make it before: install -d -o {uid} -m 700 {path}"
    )]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whom it should belong to.
        uid: u32,
        /// What the system says.
        error: io::Error,
    },
    /// Anything else.
    #[error(
        "spantap.spool.path: {path}: {error}; the forwarder is user {uid} and must be able to write there: \
         install -d -o {uid} -m 700 {path}"
    )]
    Io {
        /// The folder, or the one in it.
        path: PathBuf,
        /// Whom it should belong to.
        uid: u32,
        /// What the system says.
        error: io::Error,
    },
}

/// The folder, locked for as long as a clone of this lives.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Locked>);

#[derive(Debug)]
struct Locked {
    path: PathBuf,
    folder: OwnedFd,
    _lock: OwnedFd,
}

impl Directory {
    /// Opens the folder, making it if only itself is missing, and locks it. `owner` is the user that the forwarder is to
    /// become; `None`: it stays who it is.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn open(path: &Path, owner: Option<u32>) -> Result<Self, SpoolError> {
        let own = rustix::process::geteuid().as_raw();
        let wanted = owner.unwrap_or(own);
        let failed = |error: Errno| SpoolError::Io { path: path.to_owned(), uid: wanted, error: error.into() };
        let made = match rustix::fs::mkdir(path, MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => return Err(SpoolError::NoParent { path: path.to_owned(), uid: wanted }),
            Err(error) => return Err(failed(error)),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => SpoolError::NotAFolder(path.to_owned()),
            error => failed(error),
        })?;
        let give = |file: &OwnedFd| {
            let uid = Some(Uid::from_raw(wanted));
            rustix::fs::fchown(file, uid, None::<Gid>).map_err(|error| SpoolError::Owner {
                path: path.to_owned(),
                uid: wanted,
                error: error.into(),
            })
        };
        if made && wanted != own {
            give(&folder)?;
        }
        let found = rustix::fs::fstat(&folder).map_err(failed)?;
        if found.st_uid != wanted {
            return Err(SpoolError::Stranger { path: path.to_owned(), uid: found.st_uid, wanted });
        }
        if found.st_mode & FOREIGN != 0 {
            return Err(SpoolError::Open { path: path.to_owned(), mode: found.st_mode & 0o7777 });
        }
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&folder, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        if wanted != own {
            give(&lock)?;
        }
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(Arc::new(Locked { path: path.to_owned(), folder, _lock: lock }))),
            Err(Errno::WOULDBLOCK) => Err(SpoolError::InUse(path.to_owned())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Its path, for people.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The folder in it with this name, made if it is missing. To be called as the user who goes on.
    pub(super) fn sub(&self, name: &str) -> Result<OwnedFd, SpoolError> {
        let own = rustix::process::geteuid().as_raw();
        let path = self.path().join(name);
        let failed = |error: Errno| SpoolError::Io { path: path.clone(), uid: own, error: error.into() };
        match rustix::fs::mkdirat(&self.0.folder, name, MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.0.folder, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => SpoolError::NotAFolder(path.clone()),
            Errno::ACCESS => {
                let uid = rustix::fs::statat(&self.0.folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                let uid = uid.map_or(u32::MAX, |found| found.st_uid);
                SpoolError::Stranger { path: path.clone(), uid, wanted: own }
            }
            error => failed(error),
        })?;
        let found = rustix::fs::fstat(&folder).map_err(failed)?;
        if found.st_uid != own {
            return Err(SpoolError::Stranger { path, uid: found.st_uid, wanted: own });
        }
        if found.st_mode & FOREIGN != 0 {
            return Err(SpoolError::Open { path, mode: found.st_mode & 0o7777 });
        }
        Ok(folder)
    }

    /// What stood in the way of opening a folder in it.
    pub(super) fn failure(&self, name: &str, error: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path().join(name), uid: rustix::process::geteuid().as_raw(), error }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.folder.as_fd()
    }
}

#[cfg(test)]
mod tests;
