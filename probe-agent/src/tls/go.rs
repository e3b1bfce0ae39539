//! Go's `crypto/tls` in a program: where its methods are entered and left.
//!
//! In: the program's file, hostile as any other. Out: places of functions in it, or why there are none. `elf` and `table` find
//! the functions, stripped or not, `code` looks at their instructions. Symbols are not asked: the table is always there.

mod code;
mod elf;
mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::{code::Places, elf::Elf, table::Table};
use super::order::{Function, MAX_GO_PLACES};
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
/// Bytes of one function at most; of these none has more than 6,000.
const MAX_CODE: u64 = 64 * 1024;

/// Where the functions are in the file; `None`: it is not Go, or has no TLS in it.
pub(super) fn find(file: &impl ReadAt) -> Option<Result<Vec<(Function, u64)>, Unusable>> {
    let elf = Elf::parse(file)?;
    let table = Table::of(&elf)?;
    let [server, client] = HANDSHAKES;
    let found = table.find(file, &[READ, WRITE, CLOSE, server, client]);
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
    let places = table.texts(&elf).into_iter().find_map(|text| all(&elf, text, &functions));
    Some(places.ok_or(Unusable::Code))
}

/// The places in all functions, if the text begins there: each of them then begins as Go's functions do.
fn all<F: ReadAt>(elf: &Elf<'_, F>, text: u64, functions: &[(Function, &Range<u64>)]) -> Option<Vec<(Function, u64)>> {
    let (mut entries, mut returns) = (Vec::new(), Vec::new());
    for (function, range) in functions {
        let length = (range.end - range.start).min(MAX_CODE) as usize;
        let start = elf.code_offset(text.checked_add(range.start)?)?;
        let Places { entry, returns: left } = code::places(&read_at::read(elf.file, start, length))?;
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
