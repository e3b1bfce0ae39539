//! Where probes may stand in a function of Go.
//!
//! In: the instructions of one function (AMD64), hostile as any other bytes. Out: a place behind its beginning and all its
//! return instructions; or nothing, if anything about them is not as Go's compiler makes it since 1.17: a probe inside of an
//! instruction would break the program.

use std::collections::BTreeMap;

use super::super::instruction::{self, Flow, Instruction};

/// Places in a function, as offsets from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Arguments stand in their registers. The kernel need not step over the instruction there, and behind the check of the
    /// stack's size it is, where that can be, passed once only: that check may begin the function anew.
    pub(super) entry: u64,
    /// Return instructions.
    pub(super) returns: Vec<u64>,
}

/// Places in a function that begins by looking at its stack. Some have no need to: they have none.
pub(super) fn places(code: &[u8]) -> Option<Places> {
    let all = decode(code)?;
    let returns = all.iter().filter(|(_, instruction)| instruction.flow == Flow::Return).map(|(at, _)| *at as u64);
    Some(Places { entry: entry(code, &all)?, returns: returns.collect() })
}

/// All instructions, one behind the other, by their offsets.
fn decode(code: &[u8]) -> Option<BTreeMap<usize, Instruction>> {
    let mut all = BTreeMap::new();
    let mut at = 0;
    while at < code.len() {
        let instruction = instruction::decode(code.get(at..)?)?;
        all.insert(at, instruction);
        at += instruction.length;
    }
    // Every jump within the function leads to where an instruction begins.
    let sound = all.iter().all(|(at, instruction)| {
        let (Flow::Jump(distance) | Flow::Branch(distance)) = instruction.flow else { return true };
        let target = usize::try_from((at + instruction.length) as i64 + distance);
        target.is_ok_and(|target| target >= code.len() || all.contains_key(&target))
    });
    sound.then_some(all)
}

/// `cmp rsp, [r14+16]`, `cmp r12, [r14+16]`: the stack's bound (`stackguard0`) in the goroutine's object, all versions.
const COMPARES: [&[u8]; 2] = [b"\x49\x3b\x66\x10", b"\x4d\x3b\x66\x10"];
/// `lea r12, [rsp-..]`, by a distance of 1 byte and of 4: functions that need much of the stack.
const ADDRESSES: [(&[u8], usize); 2] = [(b"\x4c\x8d\x64\x24", 5), (b"\x4c\x8d\xa4\x24", 8)];
/// `push rbp`
const PUSH: u8 = 0x55;

/// `[lea r12, [rsp-..];] cmp rsp|r12, [r14+16]; jbe ..; [push rbp]`: the jump, or better the push.
fn entry(code: &[u8], all: &BTreeMap<usize, Instruction>) -> Option<u64> {
    let address = ADDRESSES.iter().find(|(begin, _)| code.starts_with(begin));
    let compare = address.map_or(0, |(_, length)| *length);
    if !COMPARES.iter().any(|begin| code.get(compare..).is_some_and(|rest| rest.starts_with(begin))) {
        return None;
    }
    let jump = compare + 4;
    let length = match code.get(jump..)? {
        [0x76, ..] => 2,
        [0x0f, 0x86, ..] => 6,
        _ => return None,
    };
    let push = jump + length;
    let entry = if code.get(push) == Some(&PUSH) { push } else { jump };
    all.contains_key(&entry).then_some(entry as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginnings_of_all_versions_are_known() {
        // cmp rsp,[r14+16]; jbe +4; push rbp; pop rbp; ret; int3; jmp -13 (Go 1.21 and later)
        let late = b"\x49\x3b\x66\x10\x76\x04\x55\x5d\xc3\xcc\xeb\xf4";
        assert_eq!(places(late), Some(Places { entry: 6, returns: vec![8] }));
        // lea r12,[rsp-40]; cmp r12,[r14+16]; jbe +5; sub rsp,8; ret; ret (Go 1.17 to 1.20)
        let early = b"\x4c\x8d\x64\x24\xd8\x4d\x3b\x66\x10\x76\x05\x48\x83\xec\x08\xc3\xc3";
        assert_eq!(places(early), Some(Places { entry: 9, returns: vec![15, 16] }));
    }

    #[test]
    fn anything_else_has_no_places() {
        // The same with the goroutine in thread-local storage, as before 1.17.
        assert_eq!(places(b"\x64\x48\x8b\x0c\x25\xf8\xff\xff\xff\x48\x3b\x61\x10\x76\x02\xc3\xc3\xc3"), None);
        // A jump into the middle of an instruction.
        assert_eq!(places(b"\x49\x3b\x66\x10\x76\x02\x48\x83\xec\x08\xc3"), None);
        // Bytes that are no instruction (06 in 64 bits), and instructions that end too early.
        assert_eq!(places(b"\x49\x3b\x66\x10\x76\x00\x55\x06\xc3"), None);
        assert_eq!(places(b"\x49\x3b\x66\x10\x76\x00\x55\xc3\x48\x83"), None);
        assert_eq!(places(b""), None);
    }
}
