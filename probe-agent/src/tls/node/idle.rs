//! Where V8 is done with its microtasks, if there were any.
//!
//! In: the code of `MicrotaskQueue::RunMicrotasks`, hostile as any other, and where `OnCompleted` is. Out: the calls of
//! `OnCompleted` that follow the running of some. Node has the queue run after each callback, and mostly nothing is in it: no
//! reaction can have run then, and a stop there would tell nothing.

use std::collections::BTreeSet;

use super::instruction::{self, Flow};

/// Bytes of the function that are looked at; it takes some 1,000.
pub(super) const MAX_CODE: usize = 2048;
/// Calls that are stopped at, at most; there are two.
const MAX_CALLS: usize = 4;

/// The calls, as distances from the beginning of `code`. `done`: the distance of `OnCompleted` from there. `None`: the code
/// is not understood.
pub(super) fn calls(code: &[u8], done: i64) -> Option<Vec<u64>> {
    let (mut open, mut seen, mut found) = (vec![some_wait(code)?], BTreeSet::new(), Vec::new());
    while let Some(at) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        let rest = code.get(at..)?;
        let instruction = instruction::decode(rest)?;
        let next = at + instruction.length;
        let far = |distance: i64| usize::try_from(i64::try_from(next).ok()?.checked_add(distance)?).ok();
        match instruction.flow {
            Flow::Next => open.push(next),
            Flow::Jump(distance) => open.push(far(distance)?),
            Flow::Branch(distance) => open.extend([next, far(distance)?]),
            Flow::Call => {
                if instruction.emulated && target(rest, next) == Some(done) {
                    found.push(at as u64);
                }
                open.push(next);
            }
            Flow::Return | Flow::Never => {}
            Flow::Elsewhere => return None,
        }
    }
    found.sort_unstable();
    (1..=MAX_CALLS).contains(&found.len()).then_some(found)
}

/// Where a call by a distance leads that ends at `next`.
fn target(call: &[u8], next: usize) -> Option<i64> {
    let distance = i32::from_le_bytes(*call.get(1..)?.first_chunk::<4>()?);
    i64::try_from(next).ok()?.checked_add(distance.into())
}

/// Where the function goes on if something is in the queue: after `cmp qword [queue + 8], 0` and `je`, to which it comes straight.
fn some_wait(code: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = code.get(at..)?;
        let instruction = instruction::decode(rest)?;
        let next = at + instruction.length;
        if is_compared(rest) {
            let branch = code.get(next..)?;
            let is_equal = matches!(branch, [0x74, ..] | [0x0f, 0x84, ..]);
            return is_equal.then_some(next + instruction::decode(branch)?.length);
        }
        if !matches!(instruction.flow, Flow::Next | Flow::Call) {
            return None;
        }
        at = next;
    }
}

/// `cmp qword [register + 8], 0`: how many wait stands behind the table of the class's functions.
fn is_compared(code: &[u8]) -> bool {
    match code {
        [0x48 | 0x49, 0x83, 0x7c, 0x24, 8, 0, ..] => true,
        [0x48 | 0x49, 0x83, modrm, 8, 0, ..] => modrm & 0xf8 == 0x78 && modrm & 7 != 4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// push %rbx; mov %rdi,%rbx; cmpq $0,0x8(%rbx); je +0x13; call +0x40; test %eax,%eax; jne +6; call DONE; ret; call DONE; ret;
    /// call DONE; ret
    const CODE: &[u8] = b"\x53\x48\x89\xfb\x48\x83\x7b\x08\x00\x74\x15\xe8\x40\x00\x00\x00\x85\xc0\x75\x06\
        \xe8\xe7\x00\x00\x00\xc3\xe8\xe1\x00\x00\x00\xc3\xe8\xdb\x00\x00\x00\xc3";
    const DONE: i64 = 0x100;

    #[test]
    fn only_calls_after_something_ran_are_stopped_at() {
        assert_eq!(calls(CODE, DONE), Some(vec![20, 26]));
        assert_eq!(calls(CODE, DONE + 1), None, "another function");
    }

    #[test]
    fn code_that_is_not_understood_has_none() {
        for short in 0..32 {
            assert_eq!(calls(CODE.get(..short).unwrap_or_default(), DONE), None, "{short}");
        }
        for (at, byte) in [(7, 0x10), (8, 1), (9, 0x75), (4, 0x40), (11, 0xc5), (19, 0x80)] {
            let mut other = CODE.to_vec();
            if let Some(place) = other.get_mut(at) {
                *place = byte;
            }
            assert_eq!(calls(&other, DONE), None, "{at}");
        }
        // A jump through a register may lead anywhere.
        assert_eq!(calls(b"\x48\x83\x7b\x08\x00\x74\x02\xff\xe0", DONE), None);
    }
}
