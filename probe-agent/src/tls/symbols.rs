//! Where functions begin in an ELF file.
//!
//! In: an ELF file of 64 bits, little endian (System V ABI, chapters 4 and 5), hostile as any other, and names. Out: offsets
//! in the file, from `.dynsym` and `.symtab`. Both tables are read piece by piece: those of a large program have tens of
//! megabytes, the memory used here is [`PIECE`].

use std::collections::BTreeMap;

use memchr::memmem;

use crate::read_at::{ReadAt, read, u16_at, u32_at, u64_at};

/// Bytes that are read at once.
const PIECE: usize = 128 * 1024;
/// Bytes of symbols and of their names that are looked through, for each of both tables.
const MAX_TABLE: u64 = 128 << 20;
/// Sections and segments that are looked at.
const MAX_HEADERS: u16 = 512;
const SYMBOL: usize = 24;
const SECTION_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const PT_LOAD: u32 = 1;
const PT_TLS: u32 = 7;
/// Longest name of which a part is looked for, and how many that have it.
const LONGEST_NAME: usize = 4096;
const MAX_NAMES: usize = 16;
const PF_X: u32 = 1;
const STT_FUNC: u8 = 2;

/// Of each of `names` that the file defines as a function: the offset of its first instruction in the file.
/// `None`: the file is no such ELF file.
pub(super) fn find<'n>(file: &impl ReadAt, names: &[&'n str]) -> Option<BTreeMap<&'n str, u64>> {
    find_apart(file, file, names)
}

/// The same, with the symbols of `code` in a file of their own, which has the same addresses.
pub(super) fn find_apart<'n>(
    code: &impl ReadAt,
    file: &impl ReadAt,
    names: &[&'n str],
) -> Option<BTreeMap<&'n str, u64>> {
    let segments = segments(code)?;
    let mut found = BTreeMap::new();
    look(file, names, |name, kind, address| {
        if kind == STT_FUNC
            && let Some(offset) = offset_of(&segments, address)
        {
            found.entry(name).or_insert(offset);
        }
    })?;
    Some(found)
}

/// Of each of `names` that the file defines, function or not: its address, not counting where it is loaded to.
pub(super) fn addresses<'n>(file: &impl ReadAt, names: &[&'n str]) -> Option<BTreeMap<&'n str, u64>> {
    let mut found = BTreeMap::new();
    look(file, names, |name, _, address| {
        found.entry(name).or_insert(address);
    })?;
    Some(found)
}

fn look<'n>(file: &impl ReadAt, names: &[&'n str], mut take: impl FnMut(&'n str, u8, u64)) -> Option<()> {
    let sections = table(file, &elf_header(file)?, (40, 58, 60), SECTION_HEADER)?;
    for section in sections.chunks_exact(SECTION_HEADER.into()) {
        if !matches!(u32_at(section, 4)?, SHT_DYNSYM | SHT_SYMTAB) || u64_at(section, 56)? != SYMBOL as u64 {
            continue;
        }
        let link = u32_at(section, 40)? as usize;
        let Some(texts) = sections.chunks_exact(SECTION_HEADER.into()).nth(link) else { continue };
        let places = names_in(file, u64_at(texts, 24)?, u64_at(texts, 32)?, names);
        if !places.is_empty() {
            symbols(file, u64_at(section, 24)?, u64_at(section, 32)?, &places, &mut take);
        }
    }
    Some(())
}

fn elf_header(file: &impl ReadAt) -> Option<Vec<u8>> {
    Some(read(file, 0, 64)).filter(|header| header.starts_with(b"\x7fELF\x02\x01"))
}

fn segments(file: &impl ReadAt) -> Option<Vec<u8>> {
    table(file, &elf_header(file)?, (32, 54, 56), PROGRAM_HEADER)
}

/// Offset and length of each part of the file that is of this type (`p_type`).
pub(super) fn parts(file: &impl ReadAt, kind: u32) -> Vec<(u64, u64)> {
    let of =
        |segment: &[u8]| Some((u64_at(segment, 8)?, u64_at(segment, 32)?)).filter(|_| u32_at(segment, 0) == Some(kind));
    segments(file).unwrap_or_default().chunks_exact(PROGRAM_HEADER.into()).filter_map(of).collect()
}

/// The table whose offset, entry size and count stand at these places of the file's header.
fn table(file: &impl ReadAt, header: &[u8], at: (usize, usize, usize), entry: u16) -> Option<Vec<u8>> {
    let (size, count) = (u16_at(header, at.1)?, u16_at(header, at.2)?);
    if count > 0 && size != entry {
        return None;
    }
    Some(read(file, u64_at(header, at.0)?, usize::from(count.min(MAX_HEADERS)) * usize::from(entry)))
}

/// For each of `marks` the names of symbols that have it in them, [`MAX_NAMES`] at most: of functions whose names end in a hash.
pub(super) fn names_with(file: &impl ReadAt, marks: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut found: Vec<Vec<String>> = vec![Vec::new(); marks.len()];
    let sections = table(file, &elf_header(file)?, (40, 58, 60), SECTION_HEADER)?;
    for section in sections.chunks_exact(SECTION_HEADER.into()) {
        if u32_at(section, 4)? != SHT_SYMTAB || u64_at(section, 56)? != SYMBOL as u64 {
            continue;
        }
        let link = u32_at(section, 40)? as usize;
        let Some(texts) = sections.chunks_exact(SECTION_HEADER.into()).nth(link) else { continue };
        let (offset, size) = (u64_at(texts, 24)?, u64_at(texts, 32)?.min(MAX_TABLE));
        let mut at = 0;
        while at < size {
            let piece = read(file, offset.saturating_add(at), usize::try_from(size - at).unwrap_or(PIECE).min(PIECE));
            for (mark, names) in marks.iter().zip(&mut found) {
                for place in memmem::find_iter(&piece, mark) {
                    let begin = memchr::memrchr(0, piece.get(..place)?).map_or(0, |zero| zero + 1);
                    // What goes beyond the piece is whole in the next one.
                    let Some(length) = piece.get(begin..).and_then(|rest| memchr::memchr(0, rest)) else { continue };
                    let name = String::from_utf8_lossy(piece.get(begin..begin + length)?).into_owned();
                    if names.len() < MAX_NAMES && !names.contains(&name) && (begin > 0 || at == 0) {
                        names.push(name);
                    }
                }
            }
            at += if piece.len() < PIECE { piece.len().max(1) } else { PIECE - LONGEST_NAME } as u64;
        }
    }
    Some(found)
}

/// Bytes that each thread has of a file's own variables, as they are laid out below the thread pointer (ELF TLS, variant II).
pub(super) fn thread_bytes(file: &impl ReadAt) -> Option<u64> {
    let segments = segments(file)?;
    let tls = segments.chunks_exact(PROGRAM_HEADER.into()).find(|segment| u32_at(segment, 0) == Some(PT_TLS))?;
    let (size, align) = (u64_at(tls, 40)?, u64_at(tls, 48)?.max(1));
    size.checked_next_multiple_of(align)
}

/// Where the names stand in a table of texts. A name may be the end of a longer one: linkers put them together.
pub(super) fn names_in<'n>(file: &impl ReadAt, offset: u64, size: u64, names: &[&'n str]) -> BTreeMap<u32, &'n str> {
    let wanted: Vec<(memmem::Finder<'_>, Vec<u8>, &'n str)> = Vec::new();
    let mut wanted = wanted;
    for name in names {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        wanted.push((memmem::Finder::new(&text).into_owned(), text, name));
    }
    let longest = wanted.iter().map(|(_, text, _)| text.len()).max().unwrap_or(0);
    let mut places = BTreeMap::new();
    let size = size.min(MAX_TABLE);
    let mut at = 0;
    while at < size {
        let piece = read(file, offset.saturating_add(at), usize::try_from(size - at).unwrap_or(PIECE).min(PIECE));
        if piece.is_empty() {
            break;
        }
        for (finder, _, name) in &wanted {
            for place in finder.find_iter(&piece) {
                places.insert((at + place as u64) as u32, *name);
            }
        }
        // The next piece begins so that a name across both is found.
        let step = if piece.len() < PIECE { piece.len() } else { PIECE - longest };
        at += step as u64;
    }
    places
}

fn symbols<'n>(
    file: &impl ReadAt,
    offset: u64,
    size: u64,
    places: &BTreeMap<u32, &'n str>,
    take: &mut impl FnMut(&'n str, u8, u64),
) {
    const WHOLE: usize = PIECE / SYMBOL * SYMBOL;
    let size = size.min(MAX_TABLE);
    let mut at = 0;
    while at < size {
        let piece = read(file, offset.saturating_add(at), usize::try_from(size - at).unwrap_or(WHOLE).min(WHOLE));
        for symbol in piece.chunks_exact(SYMBOL) {
            let (Some(name), Some(address)) = (u32_at(symbol, 0), u64_at(symbol, 8)) else { continue };
            let (kind, section) = (symbol.get(4).map_or(0, |info| info & 15), u16_at(symbol, 6).unwrap_or(0));
            if section != 0
                && let Some(name) = places.get(&name)
            {
                take(name, kind, address);
            }
        }
        if piece.len() < SYMBOL {
            break;
        }
        at += piece.len() as u64;
    }
}

/// Where an address of code lies in the file.
fn offset_of(segments: &[u8], address: u64) -> Option<u64> {
    segments.chunks_exact(PROGRAM_HEADER.into()).find_map(|segment| {
        let (start, in_file) = (u64_at(segment, 16)?, u64_at(segment, 32)?);
        let inside = address.checked_sub(start).filter(|inside| *inside < in_file)?;
        (u32_at(segment, 0)? == PT_LOAD && u32_at(segment, 4)? & PF_X != 0)
            .then(|| u64_at(segment, 8)?.checked_add(inside))?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

    use super::*;
    use crate::read_at::tests::Bytes;

    /// This test program itself, read by another reader of ELF files as well.
    #[test]
    fn functions_of_a_real_file_are_found() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let oracle = object::File::parse(&*bytes).unwrap();
        let expected = |name: &str| {
            let symbol = oracle.symbols().find(|symbol| symbol.name() == Ok(name) && symbol.is_definition())?;
            let inside =
                |s: &object::Segment<'_, '_>| symbol.address().checked_sub(s.address()).filter(|i| *i < s.size());
            oracle.segments().find_map(|s| Some(s.file_range().0 + inside(&s)?))
        };
        let found = find(&Bytes(bytes.clone()), &["main", "_start", "no_such_function"]).unwrap();
        assert_eq!(found.get("main").copied(), Some(expected("main").unwrap()));
        assert_eq!(found.get("_start").copied(), expected("_start"));
        assert!(!found.contains_key("no_such_function"));
    }

    #[test]
    fn names_across_pieces_and_at_the_end_of_longer_ones_are_found() {
        let mut texts = vec![b'x'; PIECE - 4];
        texts.extend(b"my_SSL_read\0SSL_readier\0SSL_write\0");
        let size = texts.len() as u64;
        let places = names_in(&Bytes(texts), 0, size, &["SSL_read", "SSL_write"]);
        let names: Vec<_> = places.values().copied().collect();
        assert_eq!(names, ["SSL_read", "SSL_write"]);
        assert_eq!(*places.first_key_value().unwrap().0 as usize, PIECE - 4 + 3);
    }

    #[test]
    fn hostile_files_end() {
        assert!(find(&Bytes(b"\x7fELF\x02\x01".to_vec()), &["f"]).is_none());
        assert!(find(&Bytes(Vec::new()), &["f"]).is_none());
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for at in (0..64).chain([100, 1000]) {
            let mut broken = bytes.get(..200_000.min(bytes.len())).unwrap().to_vec();
            for value in [0, 0x7f, 0xff] {
                broken[at] = value;
                let _ = find(&Bytes(broken.clone()), &["main"]);
            }
        }
    }
}
