//! Go's `crypto/tls` in a program: where its methods are entered and left.
//!
//! In: the program's file, hostile as any other. Out: places of functions in it, or why there are none. `table` finds
//! the functions, stripped or not, `code` looks at their instructions (`arm64` at those of that processor), `results` tells the kernel side what it has to know of
//! them, `links` finds where it is seen which request another is made for. Symbols are not asked: the table is always there.

mod arm64;
mod code;
pub(super) mod links;
mod results;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range};

pub use self::results::Results;
use self::{code::Places, table::Table};
use super::{
    elf::{Elf, Machine},
    order::{Function, MAX_GO_PLACES},
};
use crate::read_at::{self, ReadAt};

/// Why Go's TLS is not read in a program that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// Calls pass their arguments otherwise, or the code is not Go's own.
    #[error("its functions are not as Go 1.17 and later make them: build it with a newer Go")]
    Code,
    /// One of the functions is missing.
    #[error("its table of functions lacks some of crypto/tls: {0}")]
    Missing(&'static str),
}

const READ: &str = "crypto/tls.(*Conn).Read";
const WRITE: &str = "crypto/tls.(*Conn).Write";
const CLOSE: &str = "crypto/tls.(*Conn).Close";
/// Each of them comes before the first bytes of a connection, and once only, as opposed to Handshake.
const HANDSHAKES: [&str; 2] = ["crypto/tls.(*Conn).serverHandshake", "crypto/tls.(*Conn).clientHandshake"];
/// What they defer, and with it the last that they do before they return: unlocking what no other call may use meanwhile.
/// The first name that there is; since Go 1.22, and from 1.18 on.
const DEFERRED: [(&str, [&str; 2]); 2] = [
    (READ, ["crypto/tls.(*Conn).Read.deferwrap1", "crypto/tls.(*Conn).Read.func1"]),
    (WRITE, ["crypto/tls.(*Conn).Write.deferwrap2", "crypto/tls.(*Conn).Write.func2"]),
];
/// Bytes of one function at most; of these none has more than 6,000.
const MAX_CODE: u64 = 64 * 1024;

/// Where the functions are in the file; `None`: it is not Go, or has no TLS in it.
pub(super) fn find(file: &impl ReadAt) -> Option<Result<Vec<(Function, u64)>, Unusable>> {
    let elf = Elf::parse(file)?;
    let table = Table::of(&elf)?;
    let [server, client] = HANDSHAKES;
    let mut names = vec![READ, WRITE, CLOSE, server, client];
    names.extend(DEFERRED.iter().flat_map(|(_, names)| names));
    let found = table.find(file, &names);
    if found.is_empty() {
        return None;
    }
    let wanted = [
        (READ, Function::GoRead),
        (WRITE, Function::GoWrite),
        (CLOSE, Function::GoClose),
        (server, Function::GoHandshake),
        (client, Function::GoHandshake),
    ];
    // A program that only serves, or only asks, has one handshake: the linker leaves out what is not used.
    if let Some(missing) = [READ, WRITE, CLOSE].into_iter().find(|name| !found.contains_key(name)) {
        return Some(Err(Unusable::Missing(missing)));
    }
    let functions: Vec<(Function, &Range<u64>)> =
        wanted.iter().filter_map(|(name, function)| Some((*function, found.get(name)?))).collect();
    let places = table.texts(&elf).into_iter().find_map(|text| {
        let mut places = all(&elf, text, &functions)?;
        places.extend(done(&elf, text, &found).unwrap_or_default());
        Some(places)
    });
    Some(places.ok_or(Unusable::Code))
}

/// A place at which a program is stopped when its result stands on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// In the file.
    pub(super) offset: u64,
    /// Bytes between the result and the return address above it.
    pub(super) result: u16,
    /// The place is a jump that may begin the function anew.
    pub(super) at_jump: bool,
    /// It is of Read, and all that has to be known of the call stands on the stack by then.
    pub(super) is_all: bool,
}

impl Done {
    /// Bits of an offset: no program has a terabyte.
    const BITS: u32 = 40;

    /// In one number, as the places of other functions are.
    fn place(self) -> Option<u64> {
        let above = u64::from(self.result) | u64::from(self.at_jump) << 16 | u64::from(self.is_all) << 17;
        (self.offset < 1 << Self::BITS).then_some(self.offset | above << Self::BITS)
    }

    /// Out of that number.
    pub(super) fn of(place: u64) -> Self {
        let above = place >> Self::BITS;
        let bit = |number: u32| above >> number & 1 != 0;
        Self { offset: place & ((1 << Self::BITS) - 1), result: above as u16, at_jump: bit(16), is_all: bit(17) }
    }
}

/// Where probes may stand in a function.
fn places(machine: Machine, code: &[u8]) -> Option<Places> {
    match machine {
        Machine::Amd64 => code::places(code),
        Machine::Arm64 => arm64::places(code),
    }
}

/// Where both are seen to be done more cheaply than at their return instructions.
fn done<F: ReadAt>(elf: &Elf<'_, F>, text: u64, found: &BTreeMap<&str, Range<u64>>) -> Option<Vec<(Function, u64)>> {
    let code = |range: &Range<u64>| {
        let start = elf.code_offset(text.checked_add(range.start)?)?;
        Some((start, read_at::read(elf.file, start, (range.end - range.start).min(MAX_CODE) as usize)))
    };
    let one = |(name, deferred): (&str, [&str; 2])| {
        let Places { result, keeps_arguments, .. } = places(elf.machine, &code(found.get(name)?)?.1)?;
        let (start, bytes) = code(deferred.iter().find_map(|name| found.get(name))?)?;
        let entry = places(elf.machine, &bytes)?.entry;
        let (offset, at_jump) = (start.checked_add(entry)?, code::is_jump(&bytes, entry));
        // Of a write more has to be known while it is under way.
        let done = Done { offset, result: result?, at_jump, is_all: keeps_arguments && name == READ };
        Some((Function::GoDone, done.place()?))
    };
    DEFERRED.into_iter().map(one).collect()
}

/// Leaves one of the two ways to see calls end: `cheaply` where their results stand on the stack, else at return instructions.
pub(super) fn choose(places: &mut Vec<(Function, u64)>, cheaply: bool) {
    let not = if cheaply { Function::GoReturn } else { Function::GoDone };
    places.retain(|(function, _)| *function != not);
    if places.iter().any(|(function, place)| *function == Function::GoDone && Done::of(*place).is_all) {
        places.retain(|(function, _)| *function != Function::GoRead);
    }
}

/// The places in all functions, if the text begins there: each of them then begins as Go's functions do.
fn all<F: ReadAt>(elf: &Elf<'_, F>, text: u64, functions: &[(Function, &Range<u64>)]) -> Option<Vec<(Function, u64)>> {
    let (mut entries, mut returns) = (Vec::new(), Vec::new());
    for (function, range) in functions {
        let length = (range.end - range.start).min(MAX_CODE) as usize;
        let start = elf.code_offset(text.checked_add(range.start)?)?;
        let Places { entry, returns: left, .. } = self::places(elf.machine, &read_at::read(elf.file, start, length))?;
        entries.push((*function, start + entry));
        if matches!(function, Function::GoRead | Function::GoWrite) {
            if left.is_empty() {
                return None;
            }
            returns.extend(left.into_iter().map(|place| (Function::GoReturn, start + place)));
        }
    }
    // A return whose entry was not seen would count as a loss.
    entries.extend(returns);
    (entries.len() <= MAX_GO_PLACES).then_some(entries)
}
