//! What an executable was compiled from, by the sections of its ELF file.
//!
//! In: an ELF file of 64 bits, little endian (System V ABI, chapter 4), hostile as any other. Out: Go, Rust or neither.
//! At most [`MAX_READ_BYTES`] are read, whatever the file claims about itself.

use super::language::Language;
use crate::read_at::{self, ReadAt, u16_at, u32_at, u64_at};

/// Bytes that are read of one file at most.
pub(crate) const MAX_READ_BYTES: usize = 1024 * 1024;

const FILE_HEADER: usize = 64;
const SECTION_HEADER: usize = 64;
/// Executables have some 40 sections; with more than this, those behind are not looked at.
const MAX_SECTIONS: usize = 512;
const MAX_NAMES_BYTES: usize = 64 * 1024;
const MAX_COMMENT_BYTES: usize = 4 * 1024;
const MAX_CONSTANTS_BYTES: usize = 512 * 1024;
const NO_BITS: u32 = 8;
const COMPRESSED: u64 = 0x800;

/// First bytes of the section that every Go linker since 1.13 writes, and that stripping keeps.
const GO_BUILD_INFORMATION: &[u8] = b"\xff Go buildinf:";
/// In `.comment`, from the Rust compiler itself.
const RUST_COMPILER: &[u8] = b"rustc version ";
/// In `.rodata`, from the places of panics in Rust's own library; still there when `.comment` was stripped.
const RUST_LIBRARY: &[u8] = b"/library/core/src/";

/// The language that the file's sections show; `None` for C, C++, interpreters, and what is no such ELF file.
pub(crate) fn language_of(file: &impl ReadAt) -> Option<Language> {
    let mut reader = Reader { file, left: MAX_READ_BYTES };
    let sections = Sections::read(&mut reader)?;
    if let Some(section) = sections.find(b".go.buildinfo") {
        let start = reader.read(section.offset, section.size.min(GO_BUILD_INFORMATION.len()));
        if start == GO_BUILD_INFORMATION {
            return Some(Language::Go);
        }
    }
    for (name, limit, mark) in
        [(b".comment" as &[u8], MAX_COMMENT_BYTES, RUST_COMPILER), (b".rodata", MAX_CONSTANTS_BYTES, RUST_LIBRARY)]
    {
        if let Some(section) = sections.find(name) {
            let content = reader.read(section.offset, section.size.min(limit));
            if content.windows(mark.len()).any(|window| window == mark) {
                return Some(Language::Rust);
            }
        }
    }
    None
}

struct Reader<'a, F> {
    file: &'a F,
    left: usize,
}

impl<F: ReadAt> Reader<'_, F> {
    /// Up to `length` bytes from `offset` on; fewer where the file or the allowance ends.
    fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let bytes = read_at::read(self.file, offset, length.min(self.left));
        self.left -= bytes.len();
        bytes
    }
}

struct Section {
    name: usize,
    offset: u64,
    size: usize,
}

impl Section {
    /// One entry of the section header table; `None` if its content is not in the file as it is.
    fn parse(header: &[u8]) -> Option<Self> {
        let kind = u32_at(header, 4)?;
        let flags = u64_at(header, 8)?;
        if kind == NO_BITS || flags & COMPRESSED != 0 {
            return None;
        }
        Some(Self {
            name: usize::try_from(u32_at(header, 0)?).ok()?,
            offset: u64_at(header, 24)?,
            size: usize::try_from(u64_at(header, 32)?).unwrap_or(usize::MAX),
        })
    }
}

struct Sections {
    headers: Vec<Section>,
    names: Vec<u8>,
}

impl Sections {
    fn read<F: ReadAt>(reader: &mut Reader<'_, F>) -> Option<Self> {
        let file_header = reader.read(0, FILE_HEADER);
        if !file_header.starts_with(b"\x7fELF\x02\x01") || usize::from(u16_at(&file_header, 58)?) != SECTION_HEADER {
            return None;
        }
        let offset = u64_at(&file_header, 40)?;
        let count = usize::from(u16_at(&file_header, 60)?).min(MAX_SECTIONS);
        let names_index = usize::from(u16_at(&file_header, 62)?);
        let table = reader.read(offset, count * SECTION_HEADER);
        let mut entries = table.chunks_exact(SECTION_HEADER);
        let names = Section::parse(entries.clone().nth(names_index)?)?;
        Some(Self {
            headers: entries.by_ref().filter_map(Section::parse).collect(),
            names: reader.read(names.offset, names.size.min(MAX_NAMES_BYTES)),
        })
    }

    fn find(&self, name: &[u8]) -> Option<&Section> {
        self.headers.iter().find(|section| {
            self.names
                .get(section.name..)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
