//! Symbols of a stripped file that lie in a file of their own.
//!
//! In: the stripped file, and one that is said to have its symbols; both hostile. Out: where that one is looked for, as
//! distributions lay it down (GDB manual, "Debugging Information in Separate Files"); the functions that it names. Found by
//! build id only, which all of them write, not by `.gnu_debuglink`.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use super::{bounds, symbols};
use crate::read_at::{ReadAt, read, u32_at};

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";
/// Bytes of notes that are looked through.
const MAX_NOTES: u64 = 4096;
/// Those of SHA-1 are the usual length.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=64;

/// Path of the file with the symbols, without the root.
pub(super) fn path(file: &impl ReadAt) -> Option<PathBuf> {
    let id = build_id(file)?;
    let mut text = String::from("usr/lib/debug/.build-id/");
    for (at, byte) in id.iter().enumerate() {
        if at == 1 {
            text.push('/');
        }
        let _ = write!(text, "{byte:02x}");
    }
    Some(PathBuf::from(text + ".debug"))
}

/// As [`symbols::find`]. Only what the stripped file's own table says to be the beginning of a function: a program stopped
/// anywhere else is harmed, and others may run the same file.
pub(super) fn find<'n>(code: &impl ReadAt, symbols: &impl ReadAt, names: &[&'n str]) -> Option<BTreeMap<&'n str, u64>> {
    if build_id(code)? != build_id(symbols)? {
        return None;
    }
    let mut found = symbols::find_apart(code, symbols, names)?;
    found.retain(|_, offset| bounds::length(code, *offset).is_some());
    Some(found)
}

/// The note in one of the parts that hold notes (System V ABI, chapter 5, "Note Section").
fn build_id(file: &impl ReadAt) -> Option<Vec<u8>> {
    symbols::parts(file, PT_NOTE).into_iter().find_map(|(offset, length)| {
        let notes = read(file, offset, usize::try_from(length.min(MAX_NOTES)).ok()?);
        let mut rest = &notes[..];
        loop {
            let (name, description) = (u32_at(rest, 0)? as usize, u32_at(rest, 4)? as usize);
            let begin = 12 + name.checked_next_multiple_of(4)?;
            let bytes = rest.get(begin..begin.checked_add(description)?)?;
            let is_id =
                u32_at(rest, 8) == Some(NT_GNU_BUILD_ID) && rest.get(12..)?.starts_with(GNU) && name == GNU.len();
            if is_id && LENGTHS.contains(&description) {
                return Some(bytes.to_vec());
            }
            rest = rest.get(begin.checked_add(description.checked_next_multiple_of(4)?)?..)?;
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::read_at::tests::Bytes;

    /// An ELF file of nothing but one part with these notes.
    fn with_notes(notes: &[u8]) -> Bytes {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64 + 56, 0);
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64] = PT_NOTE as u8;
        file[64 + 8] = 64 + 56;
        file[64 + 32..64 + 34].copy_from_slice(&(notes.len() as u16).to_le_bytes());
        file.extend(notes);
        Bytes(file)
    }

    fn note(kind: u8, name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut note = vec![name.len() as u8, 0, 0, 0, description.len() as u8, 0, 0, 0, kind, 0, 0, 0];
        note.extend(name);
        note.resize(note.len().next_multiple_of(4), 0);
        note.extend(description);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    #[test]
    fn the_path_is_that_of_the_build_id() {
        let id: Vec<u8> = (0xa0..0xb4).collect();
        let mut notes = note(1, GNU, &[0; 16]);
        notes.extend(note(NT_GNU_BUILD_ID as u8, b"Go\0", &[7; 9]));
        notes.extend(note(NT_GNU_BUILD_ID as u8, GNU, &id));
        let expected = "usr/lib/debug/.build-id/a0/a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3.debug";
        assert_eq!(path(&with_notes(&notes)).unwrap().to_str(), Some(expected));
        for short in 0..notes.len() {
            assert_eq!(path(&with_notes(&notes[..short.min(notes.len() - 1)])), None, "{short}");
        }
        assert_eq!(path(&with_notes(&[0xff; 64])), None);
        assert_eq!(path(&Bytes(Vec::new())), None);
    }

    /// This test program itself, in the place of both.
    #[test]
    fn another_build_and_what_begins_no_function_are_not_taken() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let own = Bytes(bytes);
        let names = ["main", "_start", "no_such_function"];
        let plain = symbols::find(&own, &names).unwrap();
        let known = |name: &str| plain.get(name).filter(|offset| bounds::length(&own, **offset).is_some()).copied();
        let Some(found) = find(&own, &own, &names) else {
            assert_eq!(path(&own), None, "linked without a build id");
            return;
        };
        assert_eq!(found.get("main").copied(), known("main"));
        assert!(found.contains_key("main"), "{plain:?}");
        assert_eq!(find(&own, &with_notes(&note(NT_GNU_BUILD_ID as u8, GNU, &[1; 20])), &names), None);
    }
}
