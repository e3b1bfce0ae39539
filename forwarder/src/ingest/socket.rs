//! The ingest socket in the file system.
//!
//! In: its path. Out: a listening Unix socket of mode 0660 in a directory that others cannot write, or an error that
//! says what stands in the way.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Why there is no ingest socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("another spantap listens on {0}: stop it, or set spantap.socket (SPANTAP_SOCKET) to another path")]
    InUse(PathBuf),
    /// Another user's, who lets nobody in to see whether somebody listens there.
    #[error(
        "{path} is the socket of user {owner}, and another spantap may listen on it: stop that one, remove the file if \
         there is none, or set spantap.socket (SPANTAP_SOCKET) to another path"
    )]
    Foreign {
        /// Path of the socket.
        path: PathBuf,
        /// Numeric user id of its owner.
        owner: u32,
    },
    /// There is something that is no socket.
    #[error("{0} is not a socket; it is left alone: remove it, or set spantap.socket (SPANTAP_SOCKET) to another path")]
    NotASocket(PathBuf),
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
    let failed = |error| BindError::Io { path: path.to_owned(), error };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        give(directory, owner)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(found) => match UnixStream::connect(path) {
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(BindError::Foreign { path: path.to_owned(), owner: found.uid() });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            // Its backlog is full: somebody who does not answer at the moment is somebody.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(BindError::InUse(path.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    give(path, owner)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn give(path: &Path, owner: Option<u32>) -> Result<(), BindError> {
    let Some(owner) = owner else { return Ok(()) };
    chown(path, Some(owner), None).map_err(|error| BindError::Owner { path: path.to_owned(), owner, error })
}
