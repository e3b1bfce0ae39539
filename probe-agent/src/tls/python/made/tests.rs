//! Functions as compilers make them, written and assembled for these tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::read_at::tests::Bytes;

const AT: u64 = 0x100;

/// From a list of old ones: `jmp` at 0x1e; or made anew: `je` at 0x10, behind which is nothing to return.
const MAKER: &[u8] = b"\x53\x85\xd2\x75\x16\xe8\x00\x00\x00\x00\x48\x89\xc3\x48\x85\xc0\x74\x0e\x48\x89\x4b\x08\
    \x48\x89\xd8\x5b\xc3\x48\x8b\x18\xeb\xf2\x31\xdb\xeb\xf2";
/// As Debian has it: push; call; test; je to a rare part; pop; jmp to another function.
const FIRST: &[u8] = b"\x56\xe8\x1a\x00\x00\x00\x48\x85\xc0\x0f\x84\x71\x00\x00\x00\x59\xe9\x2b\x00\x00\x00";
const RARE: &[u8] = b"\x31\xc0\x5a\xc3";
const OTHER: &[u8] = b"\x53\xe8\x55\xfe\xff\xff\x48\x89\xc3\x48\x85\xc0\x74\x04\x48\x89\x68\x18\x48\x89\xd8\x5b\xc3";

/// A mapped segment and a table of these functions; numbers from the System V ABI and the Linux Standard Base.
fn file(functions: &[(u64, &[u8])]) -> Bytes {
    let mut file = vec![0; 0x400];
    let mut put = |at: u64, bytes: &[u8]| file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 2, 0]);
    for (at, kind, offset, size) in [(64, 1_u32, 0_u64, 0x400_u64), (120, 0x6474_e550, 0x300, 0x100)] {
        put(at, &kind.to_le_bytes());
        for (field, value) in [(8, offset), (16, 0x10_0000 + offset), (32, size)] {
            put(at + field, &value.to_le_bytes());
        }
    }
    put(0x300, &[1, 0x1b, 3, 0x3b, 0, 0, 0, 0, functions.len() as u8, 0, 0, 0]);
    for (number, (begin, code)) in (0..).zip(functions) {
        let (row, description) = (0x30c + number * 8, 0x380 + number * 16);
        let distance = |from: u64, to: u64| (to.wrapping_sub(from) as u32).to_le_bytes();
        put(*begin, code);
        put(row, &distance(0x300, *begin));
        put(row + 4, &distance(0x300, description));
        put(description, &[16, 0, 0, 0, 4, 0, 0, 0]);
        put(description + 8, &distance(description + 8, *begin));
        put(description + 12, &(code.len() as u32).to_le_bytes());
    }
    Bytes(file)
}

fn found(functions: &[(u64, &[u8])]) -> Option<Vec<u64>> {
    Some(places(&file(functions), AT)?.into_iter().map(|at| at - AT).collect())
}

#[test]
fn each_way_that_returns_an_object_has_a_place() {
    assert_eq!(found(&[(AT, MAKER)]), Some(vec![0x10, 0x1e]));
}

#[test]
fn other_parts_are_followed() {
    let (other, rare) = (AT + 0x40, AT + 0x80);
    assert_eq!(found(&[(AT, FIRST), (other, OTHER), (rare, RARE)]), Some(vec![0x4c]));
    // The rare part makes something that is not seen.
    let making = b"\xe8\x00\x00\x00\x00\x5a\xc3";
    assert_eq!(found(&[(AT, FIRST), (other, OTHER), (rare, making)]), None);
    for unknown in [vec![(AT, FIRST), (other, OTHER)], vec![(AT, FIRST), (rare, RARE)], vec![]] {
        assert_eq!(found(&unknown), None, "{unknown:?}");
    }
}

#[test]
fn what_is_not_certain_is_not_chosen() {
    for (code, why) in [
        (&b"\x53\xe8\x00\x00\x00\x00\x5b\xc3"[..], "no register but the result's holds it"),
        (b"\x53\xe8\x00\x00\x00\x00\x48\x89\xc3\x5b\xc3", "nothing cheap behind it"),
        (b"\x53\xe8\x00\x00\x00\x00\x48\x89\xc3\x85\xc0\x74\x00\x48\x8b\x03\x5b\xc3", "something else is returned"),
        (b"\x53\xe8\x00\x00\x00\x00\x48\x89\xc3\x85\xc0\x74\x00\x89\xd8\x5b\xc3", "half of it is returned"),
        (b"\x53\x48\x89\xfb\x85\xc0\x74\x04\x48\x8b\x03\xc3\x48\x89\xd8\xc3", "one way returns something else"),
        (b"\x48\x89\xc3\x85\xc0\x74\x00\x48\x89\xd8\xff\xe0", "left by a jump to a register"),
        (b"\x48\x89\xc3\x85\xc0\x74\x00\x48\x89\xd8", "it runs into the next function"),
    ] {
        assert_eq!(found(&[(AT, code)]), None, "{why}");
    }
}

#[test]
fn makers_that_end_in_the_same_function_share_its_places() {
    let file = file(&[(AT, FIRST), (AT + 0x40, OTHER), (AT + 0x80, RARE)]);
    let made = Stop { function: Function::PyMade, when: When::Enter, offset: AT + 0x4c };
    let copied = Stop { function: Function::PyCopied, when: When::Return, offset: 0x200 };
    assert_eq!(stops(&file, &[AT, AT + 0x40, 0x200]), [copied, made]);
}

proptest::proptest! {
    /// Whatever the code: places are few, lie in it, and are those of instructions that it leads to.
    #[test]
    fn any_bytes_do_no_harm(code in proptest::collection::vec(proptest::sample::select(BYTES), 1..64)) {
        let file = file(&[(AT, &code)]);
        if let Some(places) = places(&file, AT) {
            let read = read(&file, AT).unwrap();
            proptest::prop_assert!(places.len() <= MAX_PLACES && places.iter().all(|at| read[at].instruction.emulated));
        }
    }
}

/// Bytes that make short functions with jumps.
const BYTES: &[u8] = &[
    0x53, 0x5b, 0xc3, 0x74, 0xeb, 0x75, 0x00, 0x01, 0x02, 0x04, 0xfa, 0xf8, 0x31, 0xc0, 0xd8, 0xff, 0xe8, 0x48, 0x89,
    0xc3, 0x0b, 0x0f,
];
