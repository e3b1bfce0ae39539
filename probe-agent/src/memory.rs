//! Giving memory back.
//!
//! Loading reads the types of the whole kernel, which takes some forty megabytes for a moment. The C library keeps what
//! is freed for later; this process never needs so much again.
#![allow(unsafe_code)]

/// Returns freed memory to the kernel. The allocator of musl does that by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and looks only at the allocator's own lists, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
