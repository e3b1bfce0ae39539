//! The bitmap of observed processes, shared with the kernel side.
//!
//! In: pids to observe or not. Out: bits of the BPF map `selected`, changed atomically, because the kernel side sets
//! bits in the same words when a selected process forks.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::record::PID_WORDS;

/// Mapping of the whole bitmap (512 KiB of address space; only touched pages are resident).
#[derive(Debug)]
pub struct SelectedProcesses {
    words: NonNull<AtomicU64>,
}

impl SelectedProcesses {
    const BYTES: usize = PID_WORDS * size_of::<AtomicU64>();

    /// Maps the BPF array `selected`, which must have `PID_WORDS` entries and be made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// What mmap says.
    pub fn map(map: &impl AsFd) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address the kernel chooses; nothing else of this process knows it.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )?
        };
        NonNull::new(address.cast()).map(|words| Self { words }).ok_or_else(|| io::Error::other("mmap gave null"))
    }

    /// Observes `pid` from now on, or no more. Pids beyond PID_MAX_LIMIT do not exist and are ignored.
    pub fn set(&self, pid: u32, observed: bool) {
        let index = pid as usize / 64;
        if index >= PID_WORDS {
            return;
        }
        // SAFETY: index is within the mapping of PID_WORDS words, which lives as long as self; the memory is only
        // ever accessed atomically, here and (by atomic instructions) in the kernel side.
        let word = unsafe { self.words.add(index).as_ref() };
        let bit = 1u64 << (pid % 64);
        if observed {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl Drop for SelectedProcesses {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, unmapped once; no reference into it outlives self.
        // A failure would leave a mapping behind at the end of the program, which harms nobody.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), Self::BYTES) };
    }
}
