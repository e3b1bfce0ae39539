//! Where probes may stand in a function of Go: the same as `code` does, for arm64.
//!
//! In: the instructions of one function (Arm Architecture Reference Manual, chapter C6), hostile as any other bytes. Out: a place
//! behind its beginning and all its return instructions; or nothing, if they are not as Go's compiler makes them since 1.18.
//!
//! Returns are told at their own instructions, which the kernel carries out itself on arm64 (`arch/arm64/kernel/probes`):
//! nothing is cheaper.

use super::code::Places;

/// Bytes of an instruction.
const WIDTH: usize = 4;
/// `ldr x16, [x28, #16]`: the stack's bound in the goroutine's object.
const BOUND: u32 = 0xf940_0b90;
/// `cmp sp, x16`
const COMPARE: u32 = 0xeb30_63ff;
/// `cmp x17, x16`
const COMPARE_BELOW: u32 = 0xeb10_023f;
/// `ret`
const RETURN: u32 = 0xd65f_03c0;

/// Places in a function that begins by looking at its stack.
pub(super) fn places(code: &[u8]) -> Option<Places> {
    let all: Vec<u32> = instructions(code).collect();
    let mut returns = Vec::new();
    for (at, _) in all.iter().enumerate().filter(|(_, instruction)| **instruction == RETURN) {
        // A word that is no instruction may be in the code as well: what returns has given the stack back just before.
        gives_back(*all.get(at.checked_sub(1)?)?).then_some(())?;
        returns.push((at * WIDTH) as u64);
    }
    Some(Places { entry: entry(&all)?, returns, result: None, keeps_arguments: false })
}

/// The one call in this code that leads to what is so far from its beginning.
pub(super) fn call_to(code: &[u8], distance: i64) -> Option<u64> {
    let mut calls = instructions(code).enumerate().filter_map(|(at, instruction)| {
        // bl: 26 bits with a sign, in instructions from its own place.
        let to = i64::from((instruction << 6).cast_signed() >> 6) + at as i64;
        (instruction >> 26 == 0b10_0101 && to * WIDTH as i64 == distance).then_some((at * WIDTH) as u64)
    });
    let call = calls.next()?;
    calls.next().is_none().then_some(call)
}

fn instructions(code: &[u8]) -> impl Iterator<Item = u32> + '_ {
    code.chunks_exact(WIDTH).filter_map(|bytes| bytes.try_into().ok().map(u32::from_le_bytes))
}

/// `ldr x30, [sp], #..`, or `add sp, sp, #..` where the frame is too large for that.
fn gives_back(instruction: u32) -> bool {
    instruction & 0xfff0_0fff == 0xf840_07fe || instruction & 0xff80_03ff == 0x9100_03ff
}

/// `ldr x16, [x28, #16]; [sub x17, sp, #..;] cmp sp|x17, x16; b.ls ..`: what follows that jump, which may begin the function anew.
/// Arguments stand in their registers there, and the stack is as it was.
fn entry(all: &[u32]) -> Option<u64> {
    let jump = match all {
        [BOUND, COMPARE, ..] => 2,
        [BOUND, below, COMPARE_BELOW, ..] if below & 0xff80_03ff == 0xd100_03f1 => 3,
        _ => return None,
    };
    let is_jump = all.get(jump)? & 0xff00_001f == 0x5400_0009;
    (is_jump && all.len() > jump + 1).then_some(((jump + 1) * WIDTH) as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn code(instructions: &[u32]) -> Vec<u8> {
        instructions.iter().flat_map(|instruction| instruction.to_le_bytes()).collect()
    }

    fn at(instructions: &[u32]) -> Option<(u64, Vec<u64>)> {
        places(&code(instructions)).map(|places| (places.entry, places.returns))
    }

    #[test]
    fn beginnings_and_ends_are_known() {
        // ldr x16,[x28,#16]; cmp sp,x16; b.ls +800; str x30,[sp,#-112]!; ldr x30,[sp],#112; ret (Go 1.26)
        let small = [BOUND, COMPARE, 0x5400_1909, 0xf819_0ffe, 0xf847_07fe, RETURN];
        assert_eq!(at(&small), Some((12, vec![20])));
        // .. sub x17,sp,#304; cmp x17,x16; b.ls; sub x20,sp,#432; ldp x29,x30,[sp,#-8]; add sp,sp,#432; ret
        let large =
            [BOUND, 0xd104_c3f1, COMPARE_BELOW, 0x5400_0a69, 0xd106_c3f4, 0xa97f_fbfd, 0x9106_c3ff, RETURN, RETURN];
        assert_eq!(at(large.get(..8).unwrap()), Some((16, vec![28])));
        // A word like a return that nothing leads to.
        assert_eq!(at(&large), None);
    }

    #[test]
    fn anything_else_has_no_places() {
        // b.hi in the place of b.ls; another register; nothing behind the jump; nothing.
        assert_eq!(at(&[BOUND, COMPARE, 0x5400_1908, RETURN]), None);
        assert_eq!(at(&[BOUND ^ 1, COMPARE, 0x5400_1909, 0xf847_07fe, RETURN]), None);
        assert_eq!(at(&[BOUND, COMPARE, 0x5400_1909]), None);
        assert_eq!(at(&[RETURN]), None);
        assert_eq!(places(b"\xc0\x03"), None);
    }

    #[test]
    fn the_call_is_found_by_where_it_leads() {
        // nop; bl +12; bl -4; ret
        let calls = code(&[0xd503_201f, 0x9400_0003, 0x97ff_ffff, RETURN]);
        assert_eq!(call_to(&calls, 16), Some(4));
        assert_eq!(call_to(&calls, 4), Some(8));
        assert_eq!(call_to(&calls, 8), None);
        assert_eq!(call_to(&code(&[0x9400_0002, 0x9400_0001]), 8), None);
    }
}
