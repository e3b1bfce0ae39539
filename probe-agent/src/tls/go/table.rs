//! Go's own table of functions, `.gopclntab`, which every Go program has, stripped or not.
//!
//! In: an ELF file, hostile as any other, and names of functions. Out: where they begin and end. Layout: `pcHeader` and
//! `_func` of src/runtime/symtab.go and runtime2.go, Go 1.16 to 1.26. It is read piece by piece: it has 20 MB in a program of 100.

use std::{collections::BTreeMap, ops::Range};

use memchr::memmem;

use super::super::elf::{Elf, Machine, Section, Window};
use crate::{
    read_at::{ReadAt, read, u32_at, u64_at},
    tls::symbols,
};

/// First word of the table: Go 1.16 and 1.17; 1.18 and 1.19; since then.
const MAGIC: [u32; 3] = [0xffff_fffa, 0xffff_fff0, 0xffff_fff1];
/// What follows it: two bytes of nothing, length of the shortest instruction, size of a pointer.
fn form(machine: Machine) -> [u8; 4] {
    [0, 0, if machine == Machine::Arm64 { 4 } else { 1 }, 8]
}
const HEADER: usize = 72;
/// Functions of one program at most; the largest known have some 500,000.
const MAX_FUNCTIONS: u64 = 4_000_000;
/// Sections in which the table lies; the last two hold other things before it: linkers other than Go's put it there.
const NAMES: [&[u8]; 4] = [b".gopclntab", b".data.rel.ro.gopclntab", b".data.rel.ro", b".rodata"];
/// Sections of which every program of Go has one, stripped or not.
const MARKS: [&[u8]; 3] = [b".go.buildinfo", b".note.go.buildid", b".gopclntab"];
/// Bytes that are searched for the table where it has no section of its own.
const MAX_SEARCH: u64 = 256 << 20;
/// The table begins at a multiple of this.
const ALIGNMENT: u64 = 16;
/// Where `runtime.text` stands in `moduledata`, Go 1.18 to 1.26: behind a pointer, six slices and three pointers.
const MODULE_TEXT: u64 = 8 + 6 * 24 + 3 * 8;

/// What a table says of itself.
pub(super) struct Table {
    /// Offset in the file, and address.
    start: u64,
    address: u64,
    /// Bytes that it may have at most.
    size: u64,
    /// Entries are addresses, not offsets in the text (Go 1.16 and 1.17).
    absolute: bool,
    functions: u64,
    /// Offset and size of the names.
    names: (u64, u64),
    /// Offset of the functions.
    places: u64,
    text: u64,
}

impl Table {
    /// The table of a program; `None`: it is not Go's, or too old.
    pub(super) fn of<F: ReadAt>(elf: &Elf<'_, F>) -> Option<Self> {
        // Nobody else's sections are searched: a program of 100 MB would take long.
        MARKS.iter().find_map(|name| elf.section(name))?;
        NAMES.iter().filter_map(|name| elf.section(name)).find_map(|section| {
            Self::parse(elf, section, 0).or_else(|| {
                let mut from = 0;
                loop {
                    let at = search(elf, section, from)?;
                    if let Some(table) = Self::parse(elf, section, at) {
                        return Some(table);
                    }
                    from = at + ALIGNMENT;
                }
            })
        })
    }

    fn parse<F: ReadAt>(elf: &Elf<'_, F>, section: &Section, at: u64) -> Option<Self> {
        let start = section.offset.checked_add(at)?;
        let size = section.size.checked_sub(at)?;
        let header = read(elf.file, start, HEADER);
        let magic = u32_at(&header, 0)?;
        if !MAGIC.contains(&magic) || header.get(4..8)? != form(elf.machine) {
            return None;
        }
        let absolute = magic == MAGIC[0];
        let word = |number: usize| u64_at(&header, 8 + 8 * number);
        // Since 1.18 the address of the text stands between the counts and the offsets.
        let first = if absolute { 2 } else { 3 };
        let (names, units, places) = (word(first)?, word(first + 1)?, word(first + 4)?);
        let functions = word(0)?;
        let sound = functions > 0 && functions <= MAX_FUNCTIONS && names < units && units < places && places < size;
        if !sound {
            return None;
        }
        Some(Self {
            start,
            address: section.address.checked_add(at)?,
            size,
            absolute,
            functions,
            names: (names, units - names),
            places,
            text: if absolute { 0 } else { word(2)? },
        })
    }

    /// Of each of `names` that there is: addresses from its entry to its end, relative to the text (see [`Self::texts`]).
    pub(super) fn find<'n>(&self, file: &impl ReadAt, names: &[&'n str]) -> BTreeMap<&'n str, Range<u64>> {
        let mut found = BTreeMap::new();
        let wanted = symbols::names_in(file, self.start.saturating_add(self.names.0), self.names.1, names);
        if wanted.is_empty() {
            return found;
        }
        let (start, size) = (self.start.saturating_add(self.places), self.size - self.places);
        let (mut entries, mut functions) = (Window::new(file, start, size), Window::new(file, start, size));
        let word = if self.absolute { 8 } else { 4 };
        let number = |bytes: &[u8], at| if word == 8 { u64_at(bytes, at) } else { u32_at(bytes, at).map(u64::from) };
        for function in 0..self.functions {
            // Its entry, where it is described, and the entry of the next one, or the end of all.
            let Some(entry) = entries.get(function * 2 * word as u64, 3 * word) else { break };
            let (Some(from), Some(place), Some(to)) = (number(entry, 0), number(entry, word), number(entry, 2 * word))
            else {
                break;
            };
            let name = functions.get(place, word + 4).and_then(|described| u32_at(described, word));
            if let Some(name) = name.and_then(|name| wanted.get(&name))
                && from < to
            {
                found.entry(*name).or_insert(from..to);
                if found.len() == names.len() {
                    break;
                }
            }
        }
        found
    }

    /// Addresses at which the text may begin, the likeliest first: which one it is has to show in the functions themselves.
    pub(super) fn texts<F: ReadAt>(&self, elf: &Elf<'_, F>) -> Vec<u64> {
        if self.absolute {
            return vec![0];
        }
        let header = || elf.word(self.address.checked_add(24)?);
        // Since 1.26 the header does not say it any more, and `moduledata` has a section of its own.
        let module = || elf.word(elf.section(b".go.module")?.address.checked_add(MODULE_TEXT)?);
        let section = || Some(elf.section(b".text")?.address);
        let mut texts = vec![self.text];
        texts.extend([module(), header(), section()].into_iter().flatten());
        texts.retain(|&text| text != 0);
        texts.dedup();
        texts
    }
}

/// Where in a section a table may begin, from `from` on.
fn search<F: ReadAt>(elf: &Elf<'_, F>, section: &Section, from: u64) -> Option<u64> {
    const PIECE: u64 = 1 << 20;
    let mut at = from;
    let end = section.size.min(MAX_SEARCH);
    while at < end {
        // A mark that lies across two pieces cannot be: pieces are multiples of its alignment.
        let piece = read(elf.file, section.offset.checked_add(at)?, (end - at).min(PIECE) as usize);
        if piece.is_empty() {
            return None;
        }
        let aligned = |place: &usize| section.address.wrapping_add(at + *place as u64).is_multiple_of(ALIGNMENT);
        let places = MAGIC.iter().filter_map(|magic| {
            let mark: Vec<u8> = magic.to_le_bytes().into_iter().chain(form(elf.machine)).collect();
            memmem::find_iter(&piece, &mark).find(aligned)
        });
        if let Some(place) = places.min() {
            return Some(at + place as u64);
        }
        at += piece.len() as u64;
    }
    None
}
