//! A segment: one file of records, written at its end, read from its beginning, removed as a whole.
//!
//! In: records; the folder, by its descriptor. Out: records again, up to the first that is not whole. Every name is opened
//! without following links, and only a plain file of our own is read.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::record::{HEAD, Head, MAX_BODY};

/// What a segment begins with: the format and its version.
pub(super) const MAGIC: &[u8; 8] = b"SPTSPL01";
/// Where its first record begins.
pub(super) const START: u64 = MAGIC.len() as u64;
/// How the name of a segment ends; before it stand 16 hexadecimal digits.
const SUFFIX: &str = ".seg";
/// No segment of ours is larger.
const MAX_SIZE: u64 = (MAX_BODY as u64) * 2;

/// What is known of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number: larger ones are younger.
    pub(super) seq: u64,
    /// Where its last whole record ends.
    pub(super) size: u64,
    /// Where the first record begins that was not delivered.
    pub(super) read: u64,
    /// Items from there on.
    pub(super) items: u64,
    /// When its youngest record was made, milliseconds since 1970.
    pub(super) newest: u64,
    /// Bytes after the last whole record.
    pub(super) damaged: u64,
    file: Option<File>,
}

/// What the next record of a segment is.
pub(super) enum Next {
    /// All are delivered.
    End,
    /// No record can be read from here on.
    Damaged,
    /// A record, and where it ends. The body is missing if it is not what was written.
    Record(Head, Option<Bytes>, u64),
}

/// Name of the segment with this number.
fn name(seq: u64) -> String {
    format!("{seq:016x}{SUFFIX}")
}

/// Number of the segment with this name, if it is one.
pub(super) fn number(name: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(name).ok()?.strip_suffix(SUFFIX)?;
    let right = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if right { u64::from_str_radix(digits, 16).ok() } else { None }
}

impl Segment {
    /// A new, empty one.
    pub(super) fn create(folder: &OwnedFd, seq: u64) -> io::Result<Self> {
        // Exactly these flags are let through by the forwarder's filter of system calls.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, name(seq), flags, Mode::RUSR | Mode::WUSR)?);
        if let Err(error) = file.write_all(MAGIC) {
            let _ = remove(folder, seq);
            return Err(error);
        }
        Ok(Self { seq, size: START, read: START, items: 0, newest: 0, damaged: 0, file: Some(file) })
    }

    /// One that is there. Records that begin before `from` were delivered, if a record begins, or the last ends, just there.
    pub(super) fn scan(folder: &OwnedFd, seq: u64, from: Option<u64>) -> io::Result<Self> {
        let (file, length) = open(folder, seq)?;
        let mut segment = Self { seq, size: START, read: START, items: 0, newest: 0, damaged: 0, file: None };
        let mut magic = [0; MAGIC.len()];
        let known = length <= MAX_SIZE && file.read_exact_at(&mut magic, 0).is_ok() && &magic == MAGIC;
        if !known {
            segment.damaged = length;
            return Ok(segment);
        }
        while let Some(head) = head_at(&file, segment.size, length) {
            if from == Some(segment.size) {
                (segment.read, segment.items) = (segment.size, 0);
            }
            segment.items += u64::from(head.items);
            segment.newest = segment.newest.max(head.sealed);
            segment.size += head.record();
        }
        // Beyond: the file was cut off before what was delivered.
        if from.is_some_and(|from| from >= segment.size) {
            (segment.read, segment.items) = (segment.size, 0);
        }
        segment.damaged = length.saturating_sub(segment.size);
        Ok(segment)
    }

    /// Writes a record at the end. After an error the segment is as before, or, if not even that can be had, has bytes at its end that are not read.
    pub(super) fn append(&mut self, head: Head, body: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let written = file.write_all(&head.encode()).and_then(|()| file.write_all(body));
        if let Err(error) = written {
            // The file's own position follows the end that is left.
            let back = file.set_len(self.size).and_then(|()| io::Seek::seek(file, io::SeekFrom::Start(self.size)));
            if back.is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.size += head.record();
        self.items += u64::from(head.items);
        self.newest = self.newest.max(head.sealed);
        Ok(())
    }

    /// Whether it can be written to.
    pub(super) fn is_writable(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the first record that was not delivered.
    pub(super) fn next(&mut self, folder: &OwnedFd) -> Next {
        if self.read >= self.size {
            return Next::End;
        }
        let opened;
        let file = match &self.file {
            Some(file) => file,
            None => match open(folder, self.seq) {
                Ok((file, _)) => {
                    opened = file;
                    &opened
                }
                Err(_) => return Next::Damaged,
            },
        };
        let Some(head) = head_at(file, self.read, self.size) else { return Next::Damaged };
        let mut body = vec![0; head.len as usize];
        let whole = file.read_exact_at(&mut body, self.read + HEAD as u64).is_ok() && head.is_of(&body);
        Next::Record(head, whole.then(|| body.into()), self.read + head.record())
    }

    /// Brings what was written to the disk itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Nothing more is written to it.
    pub(super) fn finish(&mut self) {
        self.file = None;
    }

    /// Removes the file.
    pub(super) fn remove(self, folder: &OwnedFd) -> io::Result<()> {
        remove(folder, self.seq)
    }
}

/// The record that begins at `at` and ends before `end`, if there is a whole one.
fn head_at(file: &File, at: u64, end: u64) -> Option<Head> {
    let mut bytes = [0; HEAD];
    if at.checked_add(HEAD as u64)? > end {
        return None;
    }
    file.read_exact_at(&mut bytes, at).ok()?;
    Head::decode(&bytes).filter(|head| at.checked_add(head.record()).is_some_and(|last| last <= end))
}

/// Opens a segment for reading, with its length.
fn open(folder: &OwnedFd, seq: u64) -> io::Result<(File, u64)> {
    // Without waiting: what has the name may be a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, name(seq), flags, Mode::empty())?);
    // By std and by the real user: these are calls that a confined forwarder may make.
    let (found, own) = (file.metadata()?, rustix::process::getuid().as_raw());
    if !found.is_file() || found.uid() != own {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no file of user {own}", name(seq))));
    }
    Ok((file, found.len()))
}

fn remove(folder: &OwnedFd, seq: u64) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(folder, name(seq), AtFlags::empty())?)
}
