//! How far the reader is: one small file, written in place after each delivery.
//!
//! In: the number of a segment and an offset. Out: the same after a restart, or nothing if the file is not whole, in which
//! case more is sent again, and nothing is missing.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use rustix::fs::{FileType, Mode, OFlags};

const NAME: &str = "position";
const LENGTH: usize = 20;

/// The file.
#[derive(Debug)]
pub(super) struct Position(File);

impl Position {
    /// Opens or makes it, with what it says.
    pub(super) fn open(folder: &OwnedFd) -> io::Result<(Self, Option<(u64, u64)>)> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, NAME, flags, Mode::RUSR | Mode::WUSR)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file `position` is no plain file"));
        }
        let file = File::from(file);
        let mut bytes = [0; LENGTH];
        let said = if file.read_exact_at(&mut bytes, 0).is_ok() { decode(&bytes) } else { None };
        Ok((Self(file), said))
    }

    /// Says that everything before `offset` of the segment `seq`, and all older ones, were delivered.
    pub(super) fn write(&self, seq: u64, offset: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(seq.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

fn decode(bytes: &[u8; LENGTH]) -> Option<(u64, u64)> {
    let (said, crc) = bytes.split_last_chunk::<4>()?;
    let (seq, offset) = said.split_first_chunk::<8>()?;
    let right = crc32fast::hash(said) == u32::from_le_bytes(*crc);
    right.then_some((u64::from_le_bytes(*seq), u64::from_le_bytes(*offset.first_chunk()?)))
}
