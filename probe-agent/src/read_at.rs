//! Bytes of files at their places.
//!
//! In: a file, hostile as any other, and offsets in it. Out: as many bytes as there are; numbers, little endian, or `None` where
//! the bytes end before them. Nothing here trusts what a file says of itself: callers bound the lengths that they ask for.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Something with bytes at offsets.
pub(crate) trait ReadAt {
    /// Fills a part of `buffer` from `offset` on; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// Up to `length` bytes; fewer where the file ends.
pub(crate) fn read(file: &impl ReadAt, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let filled = fill_start(file, offset, &mut bytes);
    bytes.truncate(filled);
    bytes
}

/// Fills all of `bytes`, or tells that the file ends before.
pub(crate) fn fill(file: &impl ReadAt, offset: u64, bytes: &mut [u8]) -> Option<()> {
    (fill_start(file, offset, bytes) == bytes.len()).then_some(())
}

/// How many of `bytes` could be filled.
fn fill_start(file: &impl ReadAt, offset: u64, bytes: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let Some(at) = offset.checked_add(filled as u64) else { break };
        match file.read_at(rest, at) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    filled
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// The number of two bytes at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

/// The number of four bytes at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

/// The number of eight bytes at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
pub(crate) mod tests {
    use super::*;

    /// A file in memory.
    pub(crate) struct Bytes(pub(crate) Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }
}
