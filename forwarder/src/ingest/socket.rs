//! The ingest socket in the file system.
//!
//! In: its path. Out: a listening Unix socket of mode 0660 in a directory that others cannot write, or an error that
//! says what stands in the way.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown},
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
    /// There is something that is no socket.
    #[error("{0} is not a socket; it is left alone: remove it, or set spantap.socket (SPANTAP_SOCKET) to another path")]
    NotASocket(PathBuf),
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
        chown(directory, owner, None).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    chown(path, owner, None).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}
