//! Where probes may stand in a function of Go.
//!
//! In: the instructions of one function (AMD64), hostile as any other bytes. Out: a place behind its beginning and all its
//! return instructions; or nothing, if anything about them is not as Go's compiler makes it since 1.17: a probe inside of an
//! instruction would break the program.

use std::collections::BTreeMap;

use super::super::instruction::{self, Flow, Instruction, RESULT};

/// Places in a function, as offsets from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Arguments stand in their registers. The kernel need not step over the instruction there, and behind the check of the
    /// stack's size it is, where that can be, passed once only: that check may begin the function anew.
    pub(super) entry: u64,
    /// Return instructions.
    pub(super) returns: Vec<u64>,
    /// Where the result stands on the stack until it returns, if all ways out say the same: so many bytes below the return
    /// address. Functions that defer others keep it there, for those might change it.
    pub(super) result: Option<u16>,
    /// Its first three arguments are stored above the return address, where they have their places, before it calls anything.
    pub(super) keeps_arguments: bool,
}

/// Places in a function that begins by looking at its stack. Some have no need to: they have none.
pub(super) fn places(code: &[u8]) -> Option<Places> {
    let all = decode(code)?;
    let returns: Vec<usize> = all.iter().filter(|(_, i)| i.flow == Flow::Return).map(|(at, _)| *at).collect();
    let result = result(code, &all, &returns);
    Some(Places {
        entry: entry(code, &all)?,
        returns: returns.into_iter().map(|at| at as u64).collect(),
        result,
        keeps_arguments: keeps_arguments(code, &all),
    })
}

/// `mov [rsp+..], ` rax, rbx and rcx, by a distance of 1 byte and of 4.
const STORES: [(&[u8], &[u8]); 3] = [
    (&[0x48, 0x89, 0x44, 0x24], &[0x48, 0x89, 0x84, 0x24]),
    (&[0x48, 0x89, 0x5c, 0x24], &[0x48, 0x89, 0x9c, 0x24]),
    (&[0x48, 0x89, 0x4c, 0x24], &[0x48, 0x89, 0x8c, 0x24]),
];

/// `[push rbp;] .. sub rsp, a; .. mov [rsp+..], rax; ..` in whatever order, before the first call or jump but that of the entry.
fn keeps_arguments(code: &[u8], all: &BTreeMap<usize, Instruction>) -> bool {
    let (mut depth, mut entered, mut kept) = (0, false, [false; 3]);
    for (at, instruction) in all {
        if instruction.flow != Flow::Next {
            // The first one is that of the check of the stack's size.
            if std::mem::replace(&mut entered, true) {
                break;
            }
            continue;
        }
        let Some(bytes) = code.get(*at..at + instruction.length) else { break };
        if bytes == [PUSH] {
            depth += 8;
        }
        depth += number(bytes, &[0x48, 0x83, 0xec], &[0x48, 0x81, 0xec]).unwrap_or(0);
        for ((place, (short, long)), kept) in (1..).zip(STORES).zip(&mut kept) {
            *kept |= entered && number(bytes, short, long) == Some(depth + 8 * place);
        }
    }
    kept == [true; 3]
}

/// Whether the place of an entry is the jump that may begin the function anew.
pub(super) fn is_jump(code: &[u8], entry: u64) -> bool {
    usize::try_from(entry).ok().and_then(|at| code.get(at)) != Some(&PUSH)
}

/// Instructions of one way out that are looked at.
const WAY_OUT: usize = 10;

/// Ways out that do not load the result from the stack (it may be in another register as well) say nothing.
fn result(code: &[u8], all: &BTreeMap<usize, Instruction>, returns: &[usize]) -> Option<u16> {
    let mut loads = returns.iter().filter_map(|at| loaded(code, all, *at));
    let first = loads.next()?;
    // One more, at the least, is where a panic that was caught goes on: it can have the result from nowhere else.
    let others = loads.try_fold(0, |count, load| (load == first).then_some(count + 1))?;
    (others > 0 && first > 16 && first % 8 == 0).then_some(first)
}

/// `mov rax, [rsp+a]` · .. · `add rsp, b; pop rbp; ret`, or before Go 1.21 `mov rbp, [rsp+b-8]; add rsp, b; ret`: how far
/// below the return address the first is.
fn loaded(code: &[u8], all: &BTreeMap<usize, Instruction>, at: usize) -> Option<u16> {
    let mut before = all.range(..at).rev().take(WAY_OUT).filter_map(|(at, i)| Some((code.get(*at..at + i.length)?, i)));
    let mut last = before.next()?.0;
    let late = last == [POP];
    if late {
        last = before.next()?.0;
    }
    let frame = number(last, &[0x48, 0x83, 0xc4], &[0x48, 0x81, 0xc4])?;
    if !late {
        let saved = number(before.next()?.0, &[0x48, 0x8b, 0x6c, 0x24], &[0x48, 0x8b, 0xac, 0x24])?;
        (saved + 8 == frame).then_some(())?;
    }
    for (bytes, instruction) in before {
        if let Some(from) = number(bytes, &[0x48, 0x8b, 0x44, 0x24], &[0x48, 0x8b, 0x84, 0x24]) {
            return u16::try_from((frame + if late { 8 } else { 0 }).checked_sub(from)?).ok();
        }
        if instruction.flow != Flow::Next || instruction.writes.is_none_or(|written| written & RESULT != 0) {
            return None;
        }
    }
    None
}

/// What follows `short` in one byte, or `long` in four, at the end of an instruction: not negative.
fn number(bytes: &[u8], short: &[u8], long: &[u8]) -> Option<u32> {
    match (bytes.strip_prefix(short), bytes.strip_prefix(long)) {
        (Some(&[byte @ 0..0x80]), _) => Some(u32::from(byte)),
        (_, Some(rest)) => rest.try_into().ok().map(u32::from_le_bytes).filter(|number| *number < 1 << 15),
        _ => None,
    }
}

/// All instructions, one behind the other, by their offsets.
pub(super) fn decode(code: &[u8]) -> Option<BTreeMap<usize, Instruction>> {
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
/// `pop rbp`
const POP: u8 = 0x5d;

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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_beginnings_of_all_versions_are_known() {
        // cmp rsp,[r14+16]; jbe +4; push rbp; pop rbp; ret; int3; jmp -13 (Go 1.21 and later)
        let late = b"\x49\x3b\x66\x10\x76\x04\x55\x5d\xc3\xcc\xeb\xf4";
        assert_eq!(places(late), Some(Places { entry: 6, returns: vec![8], result: None, keeps_arguments: false }));
        // lea r12,[rsp-40]; cmp r12,[r14+16]; jbe +5; sub rsp,8; ret; ret (Go 1.17 to 1.20)
        let early = b"\x4c\x8d\x64\x24\xd8\x4d\x3b\x66\x10\x76\x05\x48\x83\xec\x08\xc3\xc3";
        assert_eq!(
            places(early),
            Some(Places { entry: 9, returns: vec![15, 16], result: None, keeps_arguments: false })
        );
    }

    #[test]
    fn arguments_are_kept_where_they_have_their_places() {
        let keeps =
            |stores: &[u8]| places(&[b"\x49\x3b\x66\x10\x76\x00\x55\x48\x83\xec\x58", stores, b"\xc3"].concat());
        // push rbp; sub rsp,88; mov [rsp+104],rax; mov [rsp+120],rcx; mov [rsp+112],rbx
        let all: &[u8] = b"\x48\x89\x44\x24\x68\x48\x89\x4c\x24\x78\x48\x89\x5c\x24\x70";
        assert!(keeps(all).unwrap().keeps_arguments);
        assert!(!keeps(all.get(..10).unwrap()).unwrap().keeps_arguments);
        assert!(!keeps(b"\x48\x89\x44\x24\x60\x48\x89\x4c\x24\x78\x48\x89\x5c\x24\x70").unwrap().keeps_arguments);
        // Behind a call they may be others.
        assert!(!keeps(&[b"\xe8\0\0\0\0", all].concat()).unwrap().keeps_arguments);
    }

    /// The beginning of a function, and of each of these ways out of it.
    fn leaving(ways: &[&[u8]]) -> Option<u16> {
        let begin: &[u8] = b"\x49\x3b\x66\x10\x76\x00\x55";
        places(&[begin, &ways.concat()].concat()).expect("read to its end").result
    }

    #[test]
    fn the_place_of_a_result_is_known_if_all_ways_out_agree() {
        // mov rax,[rsp+32]; mov rbx,[rsp+48]; add rsp,88; pop rbp; ret
        let late: &[u8] = b"\x48\x8b\x44\x24\x20\x48\x8b\x5c\x24\x30\x48\x83\xc4\x58\x5d\xc3";
        // mov rax,[rsp+48]; add rsp,192; pop rbp; ret
        let far: &[u8] = b"\x48\x8b\x44\x24\x30\x48\x81\xc4\xc0\0\0\0\x5d\xc3";
        // mov rax,[rsp+32]; mov rbp,[rsp+88]; add rsp,96; ret
        let early: &[u8] = b"\x48\x8b\x44\x24\x20\x48\x8b\x6c\x24\x58\x48\x83\xc4\x60\xc3";
        // mov rax,[rsp+32]; mov rax,rdx; add rsp,88; pop rbp; ret
        let other: &[u8] = b"\x48\x8b\x44\x24\x20\x48\x89\xd0\x48\x83\xc4\x58\x5d\xc3";
        assert_eq!(leaving(&[late, late]), Some(64));
        assert_eq!(leaving(&[late, early, other]), Some(64));
        assert_eq!(leaving(&[far, far]), Some(152));
        assert_eq!(leaving(&[late]), None);
        assert_eq!(leaving(&[late, far]), None);
        assert_eq!(leaving(&[other, other]), None);
        // The register is saved elsewhere than its place is given back.
        let odd: &[u8] = b"\x48\x8b\x44\x24\x20\x48\x8b\x6c\x24\x50\x48\x83\xc4\x60\xc3";
        assert_eq!(leaving(&[odd, odd]), None);
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
