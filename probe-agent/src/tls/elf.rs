//! The parts of an ELF file that lead to Go's tables, and to the data of CPython.
//!
//! In: an ELF file of 64 bits, little endian (System V ABI, chapters 4 and 5), hostile as any other. Out: its sections, places
//! of addresses in it, relocated words; and [`Window`], by which large tables are read piece by piece.

use crate::read_at::{ReadAt, read, u16_at, u32_at, u64_at};

/// Bytes that are read at once.
const PIECE: usize = 128 * 1024;
const MAX_SECTIONS: u16 = 512;
const MAX_SEGMENTS: u16 = 128;
const MAX_NAMES: u64 = 64 * 1024;
/// Relocations that are looked through, bytes: an executable of 200 MB has 20 MB of them.
const MAX_RELOCATIONS: u64 = 128 << 20;
const SECTION_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
const RELOCATION: usize = 24;
const SHT_RELA: u32 = 4;
const SHT_NOBITS: u32 = 8;
const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;

/// Processors whose programs are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    Amd64,
    Arm64,
}

impl Machine {
    /// By the number in a file's header (System V ABI, chapter 4).
    fn of(number: u16) -> Option<Self> {
        match number {
            62 => Some(Self::Amd64),
            183 => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The relocation by which a word is the base address plus what it says (AMD64 ABI, table 4.10; ELF for the Arm 64-bit
    /// Architecture, section 5.7.16).
    fn relative(self) -> u64 {
        match self {
            Self::Amd64 => 8,
            Self::Arm64 => 1027,
        }
    }
}

/// Whose instructions are in an ELF file of 64 bits, little endian; `None`: in no such file, or nobody's that are known.
pub(super) fn machine(file: &impl ReadAt) -> Option<Machine> {
    let header = read(file, 0, 20);
    header.starts_with(b"\x7fELF\x02\x01").then(|| Machine::of(u16_at(&header, 18)?))?
}

/// A section whose content is in the file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) name: Vec<u8>,
    kind: u32,
    pub(super) address: u64,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) size: u64,
}

struct Segment {
    executable: bool,
    offset: u64,
    address: u64,
    /// Bytes in the file.
    size: u64,
}

/// An open ELF file.
pub(super) struct Elf<'f, F> {
    pub(super) file: &'f F,
    pub(super) machine: Machine,
    pub(super) sections: Vec<Section>,
    segments: Vec<Segment>,
}

impl<'f, F: ReadAt> Elf<'f, F> {
    /// `None`: it is no such ELF file, is for another processor, or has no sections.
    pub(super) fn parse(file: &'f F) -> Option<Self> {
        let machine = machine(file)?;
        let header = read(file, 0, 64);
        let raw = table(file, &header, (40, 58, 60), SECTION_HEADER, MAX_SECTIONS)?;
        let named = raw.chunks_exact(SECTION_HEADER.into()).nth(u16_at(&header, 62)?.into())?;
        let names = read(file, u64_at(named, 24)?, u64_at(named, 32)?.min(MAX_NAMES) as usize);
        let sections = raw.chunks_exact(SECTION_HEADER.into()).filter_map(|raw| section(raw, &names)).collect();
        let raw = table(file, &header, (32, 54, 56), PROGRAM_HEADER, MAX_SEGMENTS)?;
        let segments = raw.chunks_exact(PROGRAM_HEADER.into()).filter_map(segment).collect();
        Some(Self { file, machine, sections, segments })
    }

    pub(super) fn section(&self, name: &[u8]) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where an address of code lies in the file.
    pub(super) fn code_offset(&self, address: u64) -> Option<u64> {
        self.offset(address, |segment| segment.executable)
    }

    /// The lowest address of code, not counting where it is loaded to.
    pub(super) fn first_code(&self) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.executable).map(|segment| segment.address).min()
    }

    /// What stands in the file for these addresses; fewer bytes where it ends.
    pub(super) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        self.offset(address, |_| true).map(|offset| read(self.file, offset, length)).unwrap_or_default()
    }

    fn offset(&self, address: u64, which: impl Fn(&Segment) -> bool) -> Option<u64> {
        self.segments.iter().filter(|segment| which(segment)).find_map(|segment| {
            let inside = address.checked_sub(segment.address).filter(|inside| *inside < segment.size)?;
            segment.offset.checked_add(inside)
        })
    }

    /// The address that stands at an address once the program is loaded, not counting where it is loaded to. 0: none.
    pub(super) fn word(&self, at: u64) -> Option<u64> {
        let there = u64_at(&read(self.file, self.offset(at, |_| true)?, 8), 0)?;
        if there != 0 {
            return Some(there);
        }
        // Go's own linker writes the word as well, others leave it to the relocation.
        self.relocated(at).or(Some(0))
    }

    fn relocated(&self, at: u64) -> Option<u64> {
        self.sections.iter().filter(|section| section.kind == SHT_RELA).find_map(|section| {
            let mut window = Window::new(self.file, section.offset, section.size.min(MAX_RELOCATIONS));
            let mut place = 0;
            loop {
                let entry = window.get(place, RELOCATION)?;
                if u64_at(entry, 0)? == at && u64_at(entry, 8)? == self.machine.relative() {
                    return u64_at(entry, 16);
                }
                place += RELOCATION as u64;
            }
        })
    }
}

fn section(raw: &[u8], names: &[u8]) -> Option<Section> {
    let name = names.get(u32_at(raw, 0)? as usize..)?;
    let name = name.iter().position(|&byte| byte == 0).and_then(|end| name.get(..end))?;
    let kind = u32_at(raw, 4)?;
    (kind != SHT_NOBITS).then_some(Section {
        name: name.to_vec(),
        kind,
        address: u64_at(raw, 16)?,
        offset: u64_at(raw, 24)?,
        size: u64_at(raw, 32)?,
    })
}

fn segment(raw: &[u8]) -> Option<Segment> {
    (u32_at(raw, 0)? == PT_LOAD).then_some(Segment {
        executable: u32_at(raw, 4)? & PF_X != 0,
        offset: u64_at(raw, 8)?,
        address: u64_at(raw, 16)?,
        size: u64_at(raw, 32)?,
    })
}

/// The table whose offset, entry size and count stand at these places of the file's header.
fn table(file: &impl ReadAt, header: &[u8], at: (usize, usize, usize), entry: u16, most: u16) -> Option<Vec<u8>> {
    let (size, count) = (u16_at(header, at.1)?, u16_at(header, at.2)?);
    if count == 0 || size != entry {
        return None;
    }
    Some(read(file, u64_at(header, at.0)?, usize::from(count.min(most)) * usize::from(entry)))
}

/// A part of a file, of which one piece is in memory.
pub(super) struct Window<'f, F> {
    file: &'f F,
    start: u64,
    size: u64,
    at: u64,
    piece: Vec<u8>,
}

impl<'f, F: ReadAt> Window<'f, F> {
    pub(super) fn new(file: &'f F, start: u64, size: u64) -> Self {
        Self { file, start, size, at: 0, piece: Vec::new() }
    }

    /// `length` bytes at `offset` of the part, [`PIECE`] at most; `None` beyond its end. Cheap if what was asked before lay near.
    pub(super) fn get(&mut self, offset: u64, length: usize) -> Option<&[u8]> {
        if offset.checked_add(length as u64)? > self.size {
            return None;
        }
        let inside = |at: u64, have: usize| offset >= at && offset + length as u64 <= at + have as u64;
        if !inside(self.at, self.piece.len()) {
            let most = usize::try_from(self.size - offset).unwrap_or(PIECE).min(PIECE);
            self.piece = read(self.file, self.start.checked_add(offset)?, most);
            self.at = offset;
        }
        self.piece.get(usize::try_from(offset - self.at).ok()?..)?.get(..length)
    }
}
