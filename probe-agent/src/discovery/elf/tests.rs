#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::{cell::Cell, fs::File};

use proptest::prelude::*;

use super::*;

struct Counted<'a> {
    bytes: &'a [u8],
    read: Cell<usize>,
}

impl ReadAt for Counted<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read.set(self.read.get() + count);
        Ok(count)
    }
}

fn language(bytes: &[u8]) -> Option<Language> {
    language_of(&Counted { bytes, read: Cell::new(0) })
}

/// An ELF file that consists of the given sections and nothing else.
pub(crate) fn elf_with(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; FILE_HEADER];
    let mut names = vec![0];
    let mut headers = vec![[0; SECTION_HEADER]];
    let mut add = |file: &mut Vec<u8>, name_at: usize, content: &[u8]| {
        let mut header = [0; SECTION_HEADER];
        header[0..4].copy_from_slice(&u32::try_from(name_at).unwrap().to_le_bytes());
        header[4..8].copy_from_slice(&1_u32.to_le_bytes());
        header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        file.extend_from_slice(content);
        headers.push(header);
    };
    for (name, content) in sections {
        let name_at = names.len();
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        add(&mut file, name_at, content);
    }
    add(&mut file, 0, &names);
    let table_at = file.len() as u64;
    let count = u16::try_from(headers.len()).unwrap();
    file.extend(headers.concat());
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[40..48].copy_from_slice(&table_at.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    file
}

#[test]
fn knows_go_by_its_build_information() {
    assert_eq!(
        language(&elf_with(&[(".text", b"x"), (".go.buildinfo", b"\xff Go buildinf:\x08\x02")])),
        Some(Language::Go)
    );
    assert_eq!(language(&elf_with(&[(".go.buildinfo", b"something else")])), None);
}

#[test]
fn knows_rust_by_its_compiler_or_its_library() {
    let comment = b"GCC: (Debian 12.2.0) 12.2.0\0rustc version 1.95.0 (abc 2026-04-01)\0";
    assert_eq!(language(&elf_with(&[(".comment", comment)])), Some(Language::Rust));
    let constants = b"...\0/rustc/0123/library/core/src/fmt/mod.rs...";
    assert_eq!(language(&elf_with(&[(".rodata", constants)])), Some(Language::Rust));
    assert_eq!(language(&elf_with(&[(".comment", b"GCC: (GNU) 14.1\0"), (".rodata", b"hello")])), None);
}

#[test]
fn this_test_is_written_in_rust_and_the_shell_is_not() {
    assert_eq!(language_of(&File::open("/proc/self/exe").unwrap()), Some(Language::Rust));
    assert_eq!(language_of(&File::open("/bin/sh").unwrap()), None);
}

#[test]
fn reads_no_more_than_allowed_of_a_file_that_claims_to_be_huge() {
    let mut file = elf_with(&[(".comment", b"C"), (".rodata", b"C")]);
    let headers_at = usize::try_from(u64_at(&file, 40).unwrap()).unwrap();
    for index in 1..4 {
        let size_at = headers_at + index * SECTION_HEADER + 32;
        file[size_at..size_at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    }
    file.resize(8 * MAX_READ_BYTES, 0);
    let counted = Counted { bytes: &file, read: Cell::new(0) };
    assert_eq!(language_of(&counted), None);
    assert!(counted.read.get() > MAX_CONSTANTS_BYTES, "read {}", counted.read.get());
    assert!(counted.read.get() <= MAX_READ_BYTES, "read {}", counted.read.get());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = language(&bytes);
        let mut with_magic = b"\x7fELF\x02\x01".to_vec();
        with_magic.extend(bytes);
        let _ = language(&with_magic);
    }

    #[test]
    fn damaged_files_never_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40)) {
        let mut file = elf_with(&[(".go.buildinfo", b"\xff Go buildinf:"), (".comment", b"rustc version 1")]);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = language(&file);
    }
}
