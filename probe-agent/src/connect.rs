//! The way to the forwarder's socket, and whether it is the forwarder's.
//!
//! In: the path of the ingest socket, who may be the forwarder. Out: a connection to that user, or what stands in the way.
//!
//! Whoever can write the socket's directory can put a socket of their own in its place: the same rule as the forwarder has
//! for it, and after it the user at the other end is asked of the kernel.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use tokio::net::UnixStream;

/// May write: the group, or others.
const WRITABLE: u32 = 0o022;

/// Where the forwarder is and whom we accept as such.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Path of the ingest socket.
    pub socket: PathBuf,
    /// Users that may own the other end, beside root and ourselves; any owner of the socket file if empty.
    pub uids: Vec<u32>,
    /// The agent's own user, asked for once: the sealed agent need not.
    own: u32,
}

impl Destination {
    /// The forwarder at `socket`, under one of `uids`.
    pub fn new(socket: PathBuf, uids: Vec<u32>) -> Self {
        Self { socket, uids, own: geteuid().as_raw() }
    }

    /// Whether this user may be the forwarder; `owner`: of the socket.
    fn knows(&self, uid: u32, owner: u32) -> bool {
        let known = uid == 0 || uid == self.own || self.uids.contains(&uid);
        known || self.uids.is_empty() && uid == owner
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket is not for us.
    #[error("{0}; the agent is not in the socket's group: if the forwarder's user has changed, start the agent again")]
    ShutOut(io::Error),
    /// It is not there, or nobody listens.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Somebody else is at the other end.
    #[error("the other end of the socket belongs to user {0}, who may not be the forwarder (spantap.forwarder_uids)")]
    ForeignUser(u32),
    /// Somebody else could be.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl ConnectError {
    /// Whether it is over only when somebody does something about it.
    pub fn lasts(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// What is wrong with the directory of the socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// A name for another one, which may change.
    #[error(
        "{0} is a symbolic link: set spantap.socket (SPANTAP_SOCKET) to a path without one at its end or before it"
    )]
    Link(PathBuf),
    /// Others could replace the socket.
    #[error(
        "users beside its owner may write {path} (mode {mode:o}) and could replace the socket: chmod go-w {path}, or set \
         spantap.socket (SPANTAP_SOCKET) to a path in another directory"
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A stranger could.
    #[error(
        "{path} belongs to user {uid}, who may not be the forwarder and could replace the socket: chown it to root or to the \
         forwarder's user, or list that user in spantap.forwarder_uids"
    )]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
}

/// Looks at the directory of the socket; `owner`: of the socket.
///
/// # Errors
/// [`ConnectError::Folder`], or that it cannot be looked at.
pub fn check_folder(destination: &Destination, owner: u32) -> Result<(), ConnectError> {
    let path = destination.socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = fs::symlink_metadata(path)?;
    let path = path.to_owned();
    if found.is_symlink() {
        return Err(FolderError::Link(path).into());
    }
    if !destination.knows(found.uid(), owner) {
        return Err(FolderError::Stranger { path, uid: found.uid() }.into());
    }
    if found.mode() & WRITABLE != 0 {
        return Err(FolderError::Writable { path, mode: found.mode() & 0o7777 }.into());
    }
    Ok(())
}

/// Connects to the forwarder.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(destination: &Destination) -> Result<UnixStream, ConnectError> {
    let found = fs::symlink_metadata(&destination.socket)?;
    if found.is_symlink() {
        return Err(FolderError::Link(destination.socket.clone()).into());
    }
    let owner = found.uid();
    check_folder(destination, owner)?;
    let stream = UnixStream::connect(&destination.socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ConnectError::ShutOut(error),
        _ => ConnectError::Io(error),
    })?;
    let peer = stream.peer_cred()?.uid();
    if !destination.knows(peer, owner) {
        return Err(ConnectError::ForeignUser(peer));
    }
    Ok(stream)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixListener,
    };

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        _listener: UnixListener,
        destination: Destination,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let destination = Destination::new(run.join("ingest.sock"), Vec::new());
        Place { _listener: UnixListener::bind(&destination.socket).unwrap(), _folder: folder, destination }
    }

    fn set_mode(place: &Place, mode: u32) {
        fs::set_permissions(place.destination.socket.parent().unwrap(), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_is_refused() {
        let place = place();
        for mode in [0o775, 0o757, 0o1777] {
            set_mode(&place, mode);
            let error = connect(&place.destination).await.unwrap_err();
            assert!(matches!(error, ConnectError::Folder(FolderError::Writable { .. })), "{mode:o}: {error}");
            assert!(error.lasts() && error.to_string().contains("chmod go-w"), "{error}");
        }
        for mode in [0o755, 0o700, 0o2755] {
            set_mode(&place, mode);
            connect(&place.destination).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_as_folder_is_refused() {
        let place = place();
        let link = place._folder.path().join("link");
        symlink(place.destination.socket.parent().unwrap(), &link).unwrap();
        let destination = Destination { socket: link.join("ingest.sock"), ..place.destination.clone() };
        let error = connect(&destination).await.unwrap_err();
        assert!(matches!(error, ConnectError::Folder(FolderError::Link(_))), "{error}");
        let link = place.destination.socket.with_file_name("other.sock");
        symlink(&place.destination.socket, &link).unwrap();
        let error = connect(&Destination::new(link, Vec::new())).await.unwrap_err();
        assert!(matches!(error, ConnectError::Folder(FolderError::Link(_))), "{error}");
    }

    #[tokio::test]
    async fn the_folder_of_a_stranger_is_refused() {
        let mut place = place();
        let folder = place.destination.socket.parent().unwrap().to_owned();
        if chown(&folder, Some(4321), None).is_err() {
            eprintln!("SKIP the_folder_of_a_stranger_is_refused: giving a folder away takes root");
            return;
        }
        let error = connect(&place.destination).await.unwrap_err();
        assert!(matches!(error, ConnectError::Folder(FolderError::Stranger { uid: 4321, .. })), "{error}");
        place.destination.uids = vec![4321];
        connect(&place.destination).await.unwrap();
        // Who has both the folder and the socket is the forwarder, unless a list says who that is.
        place.destination.uids.clear();
        chown(&place.destination.socket, Some(4321), None).unwrap();
        connect(&place.destination).await.unwrap();
        place.destination.uids = vec![1];
        let error = connect(&place.destination).await.unwrap_err();
        assert!(matches!(error, ConnectError::Folder(FolderError::Stranger { .. })), "{error}");
    }
}
