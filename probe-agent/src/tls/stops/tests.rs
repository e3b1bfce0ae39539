//! Functions as compilers make them, written and assembled for these tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

/// With a guard of the stack, as distributions build; both ways out lead over the jump that looks at the guard.
const GUARDED: &[u8] =
    b"\x48\x83\xec\x18\x64\x48\x8b\x04\x25\x28\x00\x00\x00\x48\x89\x44\x24\x08\x31\xc0\x85\xd2\x78\x29\
    \x48\x89\xe1\x48\x63\xd2\xe8\x7f\x00\x00\x00\x85\xc0\x7e\x03\x8b\x04\x24\x48\x8b\x54\x24\x08\
    \x64\x48\x2b\x14\x25\x28\x00\x00\x00\x75\x13\x48\x83\xc4\x18\x31\xd2\xc3\
    \xe8\x5c\x00\x00\x00\xb8\xff\xff\xff\xff\xeb\xdd\xe8\x50\x00\x00\x00";
/// Hands its arguments on: sub, call, then no jump.
const PASSING: &[u8] = b"\x48\x83\xec\x08\xe8\x47\x00\x00\x00\x31\xd2\x85\xc0\x0f\x48\xc2\x48\x83\xc4\x08\xc3";

fn stops(code: &[u8], arguments: u16) -> Option<(u64, Option<Vec<u64>>)> {
    choose(code, arguments, true).map(|choice| (choice.enter, choice.leave))
}

#[test]
fn the_first_and_the_last_cheap_place_are_taken() {
    assert_eq!(stops(GUARDED, FIRST | SECOND), Some((0x16, Some(vec![0x38]))));
}

#[test]
fn without_a_cheap_way_out_it_is_the_return_instruction() {
    assert_eq!(stops(PASSING, FIRST | SECOND | FOURTH), Some((4, Some(vec![0x14]))));
    // One way passes a cheap place, the other does not: je, call, cmp, jne, add, ret; xor, add, ret.
    let ways = b"\x48\x83\xec\x08\x48\x85\xff\x74\x0f\xe8\xf1\xff\xff\xff\x83\xfb\x01\x75\x07\x48\x83\xc4\x08\xc3\
        \x31\xc0\x48\x83\xc4\x08\xc3";
    assert_eq!(stops(ways, FIRST), Some((7, Some(vec![0x17, 0x1e]))));
}

#[test]
fn a_cheap_beginning_with_a_dear_end_is_left_to_the_kernel() {
    assert_eq!(stops(b"\x53\x48\x89\xfb\xe8\x32\x00\x00\x00\x5b\xc3", FIRST), None);
}

#[test]
fn arguments_that_moved_and_loops_to_the_beginning_keep_the_first_instruction() {
    // sub; mov %rdx,%rsi; call; add; ret
    let moved = b"\x48\x83\xec\x08\x48\x89\xd6\xe8\x18\x00\x00\x00\x48\x83\xc4\x08\xc3";
    assert_eq!(stops(moved, FIRST | SECOND), Some((0, Some(vec![0x10]))));
    assert_eq!(stops(moved, FIRST), Some((7, Some(vec![0x10]))));
    let loops = b"\x48\x83\xec\x08\x85\xd2\x74\x04\xff\xca\xeb\xf8\x31\xc0\x48\x83\xc4\x08\xc3";
    assert_eq!(stops(loops, FIRST), Some((0, Some(vec![0x12]))));
}

#[test]
fn what_is_not_certain_is_not_chosen() {
    for (code, why) in [
        (&b"\x53\x48\x89\xfb\xe8\x27\x00\x00\x00\x5b\xff\xe0"[..], "left by a jump to a register"),
        (b"\x48\x83\xec\x08\xe9\x00\x01\x00\x00", "left by a jump to another function"),
        (b"\x31\xc0\xc5\xf8\x77\xc3", "an instruction that is not known"),
        (b"\x48\x83\xec\x08", "it runs into the next function"),
        (b"\x75\x02\xb8\xc3\x90\x90\x90\xc3", "a jump into the middle of an instruction"),
        (b"\x48\x83", "half an instruction"),
        (b"", "nothing"),
    ] {
        assert_eq!(stops(code, FIRST), None, "{why}");
    }
}

proptest::proptest! {
    /// Whatever the code: places lie in it, where it is left the result stands, and no way out passes two of them.
    #[test]
    fn any_bytes_do_no_harm(code in proptest::collection::vec(proptest::sample::select(BYTES), 0..64)) {
        if let Some(Choice { enter, leave }) = choose(&code, FIRST | SECOND, true) {
            proptest::prop_assert!((enter as usize) < code.len());
            let leave: Vec<usize> = leave.unwrap().into_iter().map(|at| at as usize).collect();
            let graph = Graph::of(&code).unwrap();
            for at in &leave {
                let behind = graph.reach(graph.successors(*at).collect(), |_| false);
                proptest::prop_assert!(leave.iter().all(|other| !behind.contains(other)));
            }
            let open = graph.reach(vec![0], |at| leave.contains(&at));
            proptest::prop_assert!(open.iter().all(|at| graph.instructions[at].flow != Flow::Return));
        }
    }
}

/// Bytes that make short functions with jumps.
const BYTES: &[u8] = &[
    0x53, 0x5b, 0xc3, 0x74, 0xeb, 0x75, 0x00, 0x01, 0x02, 0x04, 0xfa, 0xf8, 0x31, 0xc0, 0xd2, 0xff, 0xe8, 0x48, 0x89,
    0xc7, 0x0b, 0x0f,
];

/// The C library of this machine, or this program where the library has no name of a known form.
#[test]
fn functions_of_a_real_file_end_where_its_symbols_say() {
    use object::{Object as _, ObjectSymbol as _};
    let path = std::env::current_exe().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::open(path).unwrap();
    let parsed = object::File::parse(&*bytes).unwrap();
    let functions: Vec<_> = parsed
        .symbols()
        .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 16 && symbol.is_definition())
        .step_by(97)
        .collect();
    assert!(functions.len() > 20, "{}", functions.len());
    let known = functions.iter().filter(|symbol| {
        let offset = offset_of(&parsed, symbol.address()).unwrap();
        let length = bounds::length(&file, offset);
        assert!(length.is_none_or(|length| length == symbol.size()), "{symbol:?} {length:?}");
        length.is_some()
    });
    assert!(known.count() * 10 > functions.len() * 9);
}

fn offset_of(file: &object::File<'_>, address: u64) -> Option<u64> {
    use object::{Object as _, ObjectSegment as _};
    file.segments()
        .find_map(|s| Some(s.file_range().0 + address.checked_sub(s.address()).filter(|inside| *inside < s.size())?))
}

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// One mapped segment and a table of one function, `PASSING`, at offset 0x100; numbers from the System V ABI.
fn small_file() -> Vec<u8> {
    let mut file = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 2, 0]);
    let mut segment = |at: usize, kind: u32, offset: u64, size: u64| {
        put(at, &kind.to_le_bytes());
        for (field, value) in [(8, offset), (16, 0x10_0000 + offset), (32, size)] {
            put(at + field, &value.to_le_bytes());
        }
    };
    segment(64, 1, 0, 0x200);
    segment(120, 0x6474_e550, 0x180, 20);
    put(0x100, PASSING);
    put(0x180, &[1, 0x1b, 3, 0x3b, 0, 0, 0, 0, 1, 0, 0, 0]);
    put(0x18c, &(-0x80_i32).to_le_bytes());
    put(0x190, &0x20_u32.to_le_bytes());
    put(0x1a0, &[16, 0, 0, 0, 4, 0, 0, 0]);
    put(0x1a8, &(-0xa8_i32).to_le_bytes());
    put(0x1ac, &(PASSING.len() as u32).to_le_bytes());
    file
}

#[test]
fn a_file_gives_its_functions_stops() {
    let stop = |when, offset| Stop { function: Function::WriteEx, when, offset };
    let planned = plan(&Bytes(small_file()), &[(Function::WriteEx, 0x100)]);
    assert_eq!(planned, [stop(When::Enter, 0x104), stop(When::Leave, 0x114)]);
    // No function begins there.
    let planned = plan(&Bytes(small_file()), &[(Function::WriteEx, 0x101), (Function::Forget, 0x100)]);
    let forget = Stop { function: Function::Forget, when: When::Enter, offset: 0x104 };
    assert_eq!(planned, [stop(When::Enter, 0x101), forget, stop(When::Return, 0x101)]);
}

proptest::proptest! {
    /// Files that lie about themselves get the first instruction, or places near it.
    #[test]
    fn hostile_files_end(changes in proptest::collection::vec((0..0x200_usize, proptest::num::u8::ANY), 0..12)) {
        let mut file = small_file();
        for (at, byte) in changes {
            file[at] = byte;
        }
        for stop in plan(&Bytes(file), &[(Function::ReadEx, 0x100)]) {
            proptest::prop_assert!((0x100..0x100 + MAX_CODE).contains(&stop.offset));
        }
    }
}
