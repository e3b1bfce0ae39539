//! Where a function holds what it will return, at an instruction at which the kernel stops cheaply.
//!
//! In: code of a function that makes an object, hostile as any other. Out: places of which every call that returns an object
//! passes at least one, with the object in rbx, where compilers keep what outlives a call; `None` where that is not certain.
//! The kernel's way to catch a return costs as much again as a stop, and these functions end in instructions that are dear to stop
//! at (`stops.rs`).
//!
//! What a function is continued by is followed: another function that it ends in, and the parts that compilers put elsewhere because
//! they are rarely run. Each has to begin where the table for unwinding says so.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    bounds,
    instruction::{self, Flow, Instruction, RESULT},
    order::{Function, Stop, When},
};
use crate::read_at::{self, ReadAt};

/// Parts of one function, and bytes of one part.
const MAX_PARTS: usize = 8;
const MAX_CODE: u64 = 2048;
/// Places in one function.
const MAX_PLACES: usize = 4;
/// rbx.
const HOLDER: u16 = 1 << 3;
/// What a call leaves as it was: rbx, rbp, r12 to r15 (System V ABI, AMD64, section 3.2.1).
const KEPT: u16 = 1 << 3 | 1 << 5 | 0xf << 12;

/// What the function will return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Returned {
    /// It does not return from here.
    #[default]
    Never,
    /// Nothing, which is 0.
    Nothing,
    /// What is in this register, or nothing.
    In(u16),
    /// Something else.
    Other,
}

impl Returned {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, one) | (one, Self::Never) => one,
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (one, same) if one == same => one,
            _ => Self::Other,
        }
    }
}

/// An instruction, and what else has to be known of it.
#[derive(Debug, Clone, Copy)]
struct Known {
    instruction: Instruction,
    /// All 64 bits of one register go to another.
    moves: Option<(u16, u16)>,
    /// It sets this register to 0.
    clears: Option<u16>,
    /// Its part of the function ends behind it.
    is_last: bool,
}

/// Where it is seen what these functions have made: each as cheaply as can be.
pub(super) fn stops(file: &impl ReadAt, makers: &[u64]) -> Vec<Stop> {
    let (mut held, mut stops) = (BTreeSet::new(), Vec::new());
    for &maker in makers {
        match places(file, maker) {
            // Functions that end in the same one share its places.
            Some(places) => held.extend(places),
            None => stops.push(Stop { function: Function::PyCopied, when: When::Return, offset: maker }),
        }
    }
    stops.extend(held.into_iter().map(|offset| Stop { function: Function::PyMade, when: When::Enter, offset }));
    stops
}

/// Places of the file for the function that begins at `offset`.
fn places(file: &impl ReadAt, offset: u64) -> Option<BTreeSet<u64>> {
    let code = read(file, offset)?;
    let returned = returned(&code);
    // The first ones on each way. Where one leads to another that is passed as well, with the same object.
    let (mut open, mut seen, mut places) = (vec![offset], BTreeSet::new(), BTreeSet::new());
    while let Some(at) = open.pop() {
        let known = code.get(&at)?;
        match returned.get(&at) {
            Some(Returned::In(HOLDER)) if known.instruction.emulated => _ = places.insert(at),
            None | Some(Returned::Never | Returned::Nothing) => {}
            Some(Returned::In(_) | Returned::Other) if known.instruction.flow == Flow::Return => return None,
            Some(Returned::In(_) | Returned::Other) if seen.insert(at) => open.extend(next(at, known)),
            Some(_) => {}
        }
    }
    (!places.is_empty() && places.len() <= MAX_PLACES).then_some(places)
}

/// Everything that the function's beginning leads to; `None` if something of it is not known.
fn read(file: &impl ReadAt, offset: u64) -> Option<BTreeMap<u64, Known>> {
    let (mut code, mut parts, mut open) = (BTreeMap::new(), BTreeMap::new(), vec![offset]);
    while let Some(at) = open.pop() {
        if code.contains_key(&at) {
            continue;
        }
        let inside = |(begin, bytes): &(&u64, &Vec<u8>)| at >= **begin && at - **begin < bytes.len() as u64;
        if !parts.iter().any(|part| inside(&part)) {
            let length = bounds::length(file, at).filter(|length| *length <= MAX_CODE && parts.len() < MAX_PARTS)?;
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            read_at::fill(file, at, &mut bytes)?;
            parts.insert(at, bytes);
        }
        let (begin, bytes) = parts.iter().find(inside)?;
        let rest = bytes.get(usize::try_from(at - begin).ok()?..)?;
        let instruction = instruction::decode(rest)?;
        let is_last = instruction.length == rest.len();
        if instruction.flow == Flow::Elsewhere || is_last && matches!(instruction.flow, Flow::Next | Flow::Branch(_)) {
            return None;
        }
        let own = rest.get(..instruction.length)?;
        let known = Known { instruction, moves: moves(own), clears: clears(own), is_last };
        open.extend(next(at, &known));
        code.insert(at, known);
    }
    // Two readings of the same bytes are no compiler's work.
    let ends = code.iter().map(|(at, known)| at + known.instruction.length as u64);
    ends.zip(code.keys().skip(1)).all(|(end, begin)| end <= *begin).then_some(code)
}

/// Where it leads.
fn next(at: u64, known: &Known) -> impl Iterator<Item = u64> + use<> {
    let after = at + known.instruction.length as u64;
    let there = |distance: i64| Some(after.wrapping_add_signed(distance));
    let (one, other) = match known.instruction.flow {
        Flow::Next => (Some(after), None),
        Flow::Call => (Some(after).filter(|_| !known.is_last), None),
        Flow::Jump(distance) => (there(distance), None),
        Flow::Branch(distance) => (Some(after), there(distance)),
        Flow::Return | Flow::Never | Flow::Elsewhere => (None, None),
    };
    one.into_iter().chain(other)
}

/// What is returned, as it is known before each instruction.
fn returned(code: &BTreeMap<u64, Known>) -> BTreeMap<u64, Returned> {
    let mut returned: BTreeMap<u64, Returned> = BTreeMap::new();
    loop {
        let mut changed = false;
        for (at, known) in code.iter().rev() {
            let after = next(*at, known).filter_map(|next| returned.get(&next).copied());
            let before = before(known, after.fold(Returned::Never, Returned::or));
            // It only ever grows less certain, so that this ends.
            changed |= returned.insert(*at, before).unwrap_or_default() != before;
        }
        if !changed {
            return returned;
        }
    }
}

fn before(known: &Known, after: Returned) -> Returned {
    if known.instruction.flow == Flow::Return {
        return Returned::In(RESULT);
    }
    let Returned::In(register) = after else { return after };
    if known.clears == Some(register) {
        return Returned::Nothing;
    }
    if let Some((from, to)) = known.moves
        && to == register
    {
        return Returned::In(from);
    }
    let writes = match known.instruction.flow {
        Flow::Call => Some(!KEPT),
        _ => known.instruction.writes,
    };
    if writes.is_some_and(|written| written & register == 0) { after } else { Returned::Other }
}

/// `mov` between two registers, 64 bits: from which, to which.
fn moves(code: &[u8]) -> Option<(u16, u16)> {
    let &[rex @ 0x48..=0x4f, opcode @ (0x89 | 0x8b), operands @ 0xc0..=0xff] = code else { return None };
    let (register, other) = registers(rex, operands);
    Some(if opcode == 0x89 { (register, other) } else { (other, register) })
}

/// `xor` of a register with itself.
fn clears(code: &[u8]) -> Option<u16> {
    let (rex, rest) = match code {
        [rex @ 0x40..=0x4f, rest @ ..] => (*rex, rest),
        _ => (0, code),
    };
    let &[0x31 | 0x33, operands @ 0xc0..=0xff] = rest else { return None };
    let (register, other) = registers(rex, operands);
    (register == other).then_some(register)
}

fn registers(rex: u8, operands: u8) -> (u16, u16) {
    let register = operands >> 3 & 7 | (rex & 4) << 1;
    let other = operands & 7 | (rex & 1) << 3;
    (1 << register, 1 << other)
}

#[cfg(test)]
mod tests;
