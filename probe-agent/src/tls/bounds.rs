//! Where a function of an ELF file ends.
//!
//! In: an ELF file of 64 bits, little endian, hostile as any other, and the offset of a function in it. Out: the function's
//! length, from the table that unwinding searches (`.eh_frame_hdr`: Linux Standard Base, Core, section 10.6), which a stripped
//! file has as well. `None` where there is no such table, or it is not in the form that all linkers write.

use crate::read_at::{ReadAt, fill, u16_at, u32_at, u64_at};

/// Segments that are looked at.
const MAX_SEGMENTS: u16 = 64;
const SEGMENT: u16 = 56;
const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// Version 1; then how values are written: by 4 bytes from their own place, 4 bytes, pairs of 4 bytes from the table's start.
const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
/// Places looked at in a table: one of 2^32 rows needs 32.
const STEPS: u32 = 33;

/// A part of the file that is mapped: offset in the file, address, bytes.
struct Mapped(u64, u64, u64);

/// Bytes of the function that begins at `offset` of the file.
pub(super) fn length(file: &impl ReadAt, offset: u64) -> Option<u64> {
    let header: [u8; 64] = read(file, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") || u16_at(&header, 54)? != SEGMENT {
        return None;
    }
    let (mut mapped, mut table) = (Vec::new(), None);
    for number in 0..u64::from(u16_at(&header, 56)?.min(MAX_SEGMENTS)) {
        let at = u64_at(&header, 32)?.checked_add(number * u64::from(SEGMENT))?;
        let segment: [u8; SEGMENT as usize] = read(file, at)?;
        match u32_at(&segment, 0)? {
            PT_LOAD => mapped.push(Mapped(u64_at(&segment, 8)?, u64_at(&segment, 16)?, u64_at(&segment, 32)?)),
            PT_GNU_EH_FRAME => table = Some((u64_at(&segment, 8)?, u64_at(&segment, 16)?)),
            _ => {}
        }
    }
    let address = mapped
        .iter()
        .find_map(|part| Some(part.1.wrapping_add(offset.checked_sub(part.0).filter(|i| *i < part.2)?)))?;
    let (table_at, table_address) = table?;
    let head: [u8; 12] = read(file, table_at)?;
    if !head.starts_with(&FORM) {
        return None;
    }
    let row = |number: u32| -> Option<(u64, u64)> {
        let row: [u8; 8] = read(file, table_at.checked_add(12 + u64::from(number) * 8)?)?;
        Some((relative(table_address, u32_at(&row, 0)?), relative(table_address, u32_at(&row, 4)?)))
    };
    let (mut low, mut high) = (0, u32_at(&head, 8)?);
    for _ in 0..STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        let (begin, description) = row(middle)?;
        if begin == address {
            return described(file, &mapped, description, address);
        }
        if begin < address { low = middle + 1 } else { high = middle }
    }
    None
}

/// Length in a function's description, if it is of the function that begins at `address`.
fn described(file: &impl ReadAt, mapped: &[Mapped], description: u64, address: u64) -> Option<u64> {
    let at =
        mapped.iter().find_map(|part| part.0.checked_add(description.checked_sub(part.1).filter(|i| *i < part.2)?))?;
    // Length, distance to what it shares with others, first address, bytes.
    let row: [u8; 16] = read(file, at)?;
    let begin = relative(description.wrapping_add(8), u32_at(&row, 8)?);
    (u32_at(&row, 4)? != 0 && begin == address).then(|| u32_at(&row, 12).map(u64::from))?
}

fn relative(base: u64, distance: u32) -> u64 {
    base.wrapping_add_signed(i64::from(distance.cast_signed()))
}

fn read<const N: usize>(file: &impl ReadAt, offset: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill(file, offset, &mut bytes).map(|()| bytes)
}
