//! Arrays of the kernel side that lie in this process's memory.
//!
//! In: a BPF array of 64-bit words, made with `BPF_F_MMAPABLE`. Out: its words, read and changed atomically: the kernel side does
//! so at the same time. Until Linux 5.19 a process without CAP_BPF may not read or write an array by a system call, and the
//! agent has given that up by then.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// A mapping of a whole array; only touched pages are resident.
#[derive(Debug)]
pub struct MappedWords {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and its words are only ever accessed atomically.
unsafe impl Send for MappedWords {}

impl MappedWords {
    /// Maps a BPF array that holds `count` words (entries times words of an entry).
    ///
    /// # Errors
    /// What mmap says: the array is shorter, or was made without `BPF_F_MMAPABLE`.
    pub fn map(map: &impl AsFd, count: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address the kernel chooses; nothing else of this process knows it.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                Self::bytes(count),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )?
        };
        let words = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        Ok(Self { words, count })
    }

    /// The kernel rounds such arrays up to whole pages.
    fn bytes(count: usize) -> usize {
        count.saturating_mul(size_of::<AtomicU64>()).next_multiple_of(page_size())
    }

    /// The word at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.count {
            return None;
        }
        // SAFETY: index is within the mapping of `count` words, which lives as long as self; the memory is only ever accessed
        // atomically, here and (by single stores or atomic instructions) in the kernel side.
        Some(unsafe { self.words.add(index).as_ref() })
    }

    /// Writes words from the first on; what does not fit is left out.
    pub fn write(&self, words: impl IntoIterator<Item = u64>) {
        for (index, word) in words.into_iter().enumerate() {
            if let Some(place) = self.get(index) {
                place.store(word, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, unmapped once; no reference into it outlives self.
        // A failure would leave a mapping behind at the end of the program, which harms nobody.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), Self::bytes(self.count)) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    /// A file is mapped the same way.
    #[test]
    fn words_are_those_of_the_file_and_end_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        std::fs::write(&path, [0u8; 24]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let words = MappedWords::map(&file, 3).unwrap();
        words.write([1, 2, 3, 4]);
        words.get(1).unwrap().fetch_add(40, Ordering::Relaxed);
        assert!(words.get(3).is_none());
        drop(words);
        let mut bytes = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        let read: Vec<u64> = bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        assert_eq!(read, [1, 42, 3]);
    }
}
