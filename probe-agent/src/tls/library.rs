//! Looking at one file: is there a TLS library in it that can be read?
//!
//! In: a process, and which of its files. Out: the open file and where its functions begin, or the reason why it is not read.

use std::{
    fs::{File, OpenOptions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use super::{
    go::{self, Unusable},
    mapped::Mapped,
    order::{CIPHER, Function, OPENSSL, reads},
    symbols,
};
use crate::discovery::ProcFs;

/// Why a library is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// The file is not what it was when the program mapped it.
    #[error("its file was deleted or replaced since the program started: restart the program")]
    Replaced,
    /// It cannot be opened.
    #[error("its file cannot be opened: {0}")]
    Closed(String),
    /// Not all functions are there.
    #[error("it has no symbols of SSL_read, SSL_write and SSL_free")]
    Symbols,
    /// The kernel refuses to attach.
    #[error("attaching is refused: {0}")]
    Refused(String),
    /// Go's functions are not as they have to be.
    #[error("its crypto/tls of Go is not read: {0}")]
    Go(#[from] Unusable),
    /// More than are looked at.
    #[error("too many TLS libraries at once")]
    Many,
}

/// An open file, and the functions in it.
pub(super) type Readable = (File, Vec<(Function, u64)>);

/// Opens the file through the process's own root, and makes sure that it is the one that is mapped.
pub(super) fn mapped(procfs: &ProcFs, pid: u32, mapped: &Mapped) -> Result<Readable, Unreadable> {
    let file = open_mapped(procfs, pid, mapped)?;
    let places = places(&file);
    if reads(&places) { Ok((file, places)) } else { Err(Unreadable::Symbols) }
}

/// The same, without a look at its functions.
pub(super) fn open_mapped(procfs: &ProcFs, pid: u32, mapped: &Mapped) -> Result<File, Unreadable> {
    if mapped.deleted {
        return Err(Unreadable::Replaced);
    }
    let relative = mapped.path.strip_prefix(b"/").unwrap_or(&mapped.path);
    let path = procfs.path(pid, "root").join(Path::new(std::ffi::OsStr::from_bytes(relative)));
    let file = open(&path)?;
    let inode = file.metadata().map_err(|error| Unreadable::Closed(error.to_string()))?.ino();
    if inode != mapped.key.1 {
        return Err(Unreadable::Replaced);
    }
    Ok(file)
}

/// Where the function begins that writes ciphertext.
pub(super) fn cipher(file: &File) -> Option<u64> {
    symbols::find(file, &[CIPHER])?.get(CIPHER).copied()
}

/// The program's own file, if a library with symbols is linked into it, or Go's.
pub(super) fn executable(file: File) -> Option<Result<Readable, Unreadable>> {
    let mut places = places(&file);
    let openssl = reads(&places);
    if !openssl {
        places.clear();
    }
    match go::find(&file) {
        Some(Ok(go)) => places.extend(go),
        Some(Err(unusable)) if !openssl => return Some(Err(unusable.into())),
        _ => {}
    }
    (!places.is_empty()).then_some(Ok((file, places)))
}

/// The program's own file.
pub(super) fn open_executable(procfs: &ProcFs, pid: u32) -> Result<File, Unreadable> {
    open(&procfs.path(pid, "exe"))
}

/// Never waits: a path is the process's own word and may be a pipe's.
fn open(path: &Path) -> Result<File, Unreadable> {
    let closed = |error: std::io::Error| Unreadable::Closed(error.to_string());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(closed)?;
    match file.metadata().map_err(closed)?.is_file() {
        true => Ok(file),
        false => Err(Unreadable::Closed("it is no file".to_owned())),
    }
}

fn places(file: &File) -> Vec<(Function, u64)> {
    let names: Vec<&str> = OPENSSL.iter().map(|(name, _)| *name).collect();
    let found = symbols::find(file, &names).unwrap_or_default();
    let mut places: Vec<(Function, u64)> =
        OPENSSL.iter().filter_map(|(name, function)| Some((*function, *found.get(name)?))).collect();
    // Two names of one function would count its bytes twice.
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|(_, offset)| seen.insert(*offset));
    places
}
