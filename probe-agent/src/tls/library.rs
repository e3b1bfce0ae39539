//! Looking at one file: is there a TLS library in it that can be read?
//!
//! In: a process, and which of its files. Out: the open file and where its functions begin, or the reason why it is not read.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use super::{
    debug_file,
    go::{self, Unusable},
    mapped::Mapped,
    names::{CIPHER, Family},
    order::Place,
    symbols,
};
use crate::discovery::ProcFs;

/// Why a library is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// The file is not what it was when the program mapped it.
    #[error(
        "its file was deleted or replaced since the program started: restart the program, or give the agent \
         CAP_CHECKPOINT_RESTORE"
    )]
    Replaced,
    /// It cannot be opened.
    #[error("its file cannot be opened: {0}")]
    Closed(String),
    /// Not all functions are there.
    #[error("it has no symbols of the functions that receive, send and end a session")]
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
pub(super) type Readable = (File, Vec<Place>);

/// Opens the file, and looks what there is to read in it.
pub(super) fn mapped(procfs: &ProcFs, pid: u32, mapped: &Mapped) -> Result<Readable, Unreadable> {
    let file = open_mapped(procfs, pid, mapped)?;
    let families: &[Family] = match mapped.family() {
        Some(family) => &[family],
        None => &[],
    };
    let places = places(procfs, pid, &file, families);
    if places.is_empty() { Err(Unreadable::Symbols) } else { Ok((file, places)) }
}

/// The same, without a look at its functions. The kernel gives the very file that is mapped, deleted or not, to whom it
/// allows that (CAP_CHECKPOINT_RESTORE); else the one of its name in the process's own root, if that is the same.
pub(super) fn open_mapped(procfs: &ProcFs, pid: u32, mapped: &Mapped) -> Result<File, Unreadable> {
    let (begin, end) = mapped.range;
    if let Ok(file) = open(&procfs.path(pid, "map_files").join(format!("{begin:x}-{end:x}"))) {
        return Ok(file);
    }
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
pub(super) fn executable(procfs: &ProcFs, pid: u32, file: File) -> Option<Result<Readable, Unreadable>> {
    let mut places = places(procfs, pid, &file, &Family::ALL);
    match go::find(&file) {
        Some(Ok(go)) => places.extend(go),
        Some(Err(unusable)) if places.is_empty() => return Some(Err(unusable.into())),
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

/// What there is to read of these libraries; empty if none is there in full. Where the file was stripped, a file with its
/// symbols may lie apart: as the process sees it, or on this host.
fn places(procfs: &ProcFs, pid: u32, file: &File, families: &[Family]) -> Vec<Place> {
    let names: Vec<&str> = families.iter().flat_map(|family| family.names()).collect();
    let of = |found: BTreeMap<&str, u64>| -> Vec<Place> {
        families.iter().filter_map(|family| family.places(file, &found)).flatten().collect()
    };
    let found = of(symbols::find(file, &names).unwrap_or_default());
    if !found.is_empty() {
        return found;
    }
    let Some(path) = debug_file::path(file) else { return found };
    let roots = [procfs.path(pid, "root"), PathBuf::from("/")];
    let files = roots.iter().filter_map(|root| open(&root.join(&path)).ok());
    let of_file = |symbols: File| of(debug_file::find(file, &symbols, &names).unwrap_or_default());
    files.map(of_file).find(|places| !places.is_empty()).unwrap_or_default()
}
