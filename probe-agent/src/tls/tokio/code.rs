//! tokio in a program: where it wakes tasks and makes them, and where a thread has the number of its task.
//!
//! In: the program's file, hostile as any other. Out: stops and that place, or why there are none. All of it is found by symbols: a
//! stripped file has none. Which version it is says the place of its source in messages of panics.
//!
//! The number's place is read from the function that exchanges it, and has to be within the variable that the symbol table names.

use std::collections::BTreeSet;

use memchr::memmem;

use crate::{
    read_at::{self, ReadAt},
    tls::{
        elf,
        instruction::{self, Flow},
        node,
        order::{Function, LINKS_RUNTIMES, Stop, When},
        symbols,
    },
};

/// Minor versions of tokio 1 whose tasks look as `probes/tokio_link.h` says.
const VERSIONS: std::ops::RangeInclusive<u32> = 42..=54;
/// Parts of mangled names: what wakes (by value and by reference), what makes tasks, what notes the running one, and in which variable.
const MARKS: [&str; 5] = [
    "5tokio7runtime4task5waker11wake_by_val",
    "5tokio7runtime4task5waker11wake_by_ref",
    "34schedule_option_task_without_yield",
    "5tokio7runtime7context19set_current_task_id",
    CONTEXT,
];
const CONTEXT: &str = "5tokio7runtime7context7CONTEXT";
/// Bytes that are looked at of a function.
const CODE: usize = 192;
const BEGINNING: usize = 64;
/// Bytes of a file that are looked through for versions, and at once.
const MAX_FILE: u64 = 256 << 20;
const PIECE: usize = 256 * 1024;
const SOURCE: &[u8] = b"/tokio-1.";
/// Longest version behind it.
const VERSION: usize = 16;
/// tokio's variable has no more bytes.
const MAX_VARIABLE: u64 = 1024;

/// Why requests are not linked in a program of tokio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unlinkable {
    #[error("its file has no symbols: it is stripped")]
    Stripped,
    #[error("its file has no symbol of tokio with {0}: it was optimized as a whole (lto), or tokio is another one")]
    Missing(&'static str),
    #[error("there are several of {0} in its file: several versions of tokio")]
    Several(&'static str),
    #[error("tokio of this version is not known: {0} (1.42 to 1.54 are)")]
    Version(String),
    #[error("where it notes which task a thread runs is not understood")]
    Code,
    #[error("requests of tokio are linked on x86-64 only")]
    Processor,
}

/// What the kernel side needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) stops: Vec<Stop>,
    /// Where a thread has the number of its task, from its thread pointer on; wraps.
    pub(super) place: u64,
    /// It is seen which task makes another.
    pub(super) spawns: bool,
    pub(super) version: String,
}

/// `None`: it is no program of tokio.
pub(super) fn find(file: &impl ReadAt) -> Option<Result<Found, Unlinkable>> {
    let names = symbols::names_with(file, &MARKS)?;
    let has_any = names.first().is_some_and(|names| !names.is_empty());
    let versions = versions(file);
    if versions.is_empty() && !has_any {
        return None;
    }
    Some(match (has_any, elf::machine(file)) {
        _ if !LINKS_RUNTIMES => Err(Unlinkable::Processor),
        (_, machine) if machine != Some(elf::Machine::Amd64) => Err(Unlinkable::Processor),
        (false, _) => Err(Unlinkable::Stripped),
        (true, _) => look(file, &names, versions),
    })
}

fn look(file: &impl ReadAt, names: &[Vec<String>], versions: BTreeSet<String>) -> Result<Found, Unlinkable> {
    let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    let functions = symbols::find(file, &all).unwrap_or_default();
    let of = |mark: usize| {
        let mut known = names.get(mark).into_iter().flatten().filter_map(|name| functions.get(name.as_str()).copied());
        let what = MARKS.get(mark).copied().unwrap_or_default();
        match (known.next(), known.next()) {
            (None, _) => Err(Unlinkable::Missing(what)),
            (Some(one), None) => Ok(one),
            _ => Err(Unlinkable::Several(what)),
        }
    };
    let (by_value, by_reference, notes) = (of(0)?, of(1)?, of(3)?);
    let mut versions = versions.into_iter();
    let version = match (versions.next(), versions.next()) {
        (Some(version), None) if is_known(&version) => version,
        (None, _) => return Err(Unlinkable::Version("it does not say which it is".to_owned())),
        (Some(one), None) => return Err(Unlinkable::Version(one)),
        (Some(one), Some(other)) => return Err(Unlinkable::Version(format!("{one} and {other}"))),
    };
    let variable = names.get(4).into_iter().flatten().filter(|name| name.contains("VAL")).map(String::as_str);
    let variable: Vec<&str> = variable.collect();
    let [address] = symbols::addresses(file, &variable).unwrap_or_default().into_values().collect::<Vec<_>>()[..]
    else {
        return Err(Unlinkable::Missing(CONTEXT));
    };
    let base = symbols::thread_bytes(file).map(|bytes| address.wrapping_sub(bytes)).ok_or(Unlinkable::Code)?;
    let field = exchanged(&read_at::read(file, notes, CODE), base).ok_or(Unlinkable::Code)?;
    let stop = |function, offset: u64, keeps| {
        let within = node::cheap(&read_at::read(file, offset, BEGINNING), keeps).ok_or(Unlinkable::Code)?;
        Ok(Stop { function, when: When::Enter, offset: offset + within })
    };
    let mut stops = vec![
        stop(Function::TokioWake, by_value, instruction::FIRST)?,
        stop(Function::TokioWake, by_reference, instruction::FIRST)?,
    ];
    let spawn = of(2).ok();
    if let Some(offset) = spawn {
        stops.push(stop(Function::TokioSpawn, offset, instruction::SECOND)?);
    }
    Ok(Found { stops, place: base.wrapping_add(field), spawns: spawn.is_some(), version })
}

fn is_known(version: &str) -> bool {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).is_some_and(|minor| VERSIONS.contains(&minor))
}

/// Versions of tokio 1 whose source is named.
fn versions(file: &impl ReadAt) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < MAX_FILE && found.len() < 4 {
        let piece = read_at::read(file, at, PIECE);
        for place in memmem::find_iter(&piece, SOURCE) {
            let rest = piece.get(place + 7..).unwrap_or_default();
            let text = rest.get(..rest.len().min(VERSION)).unwrap_or_default();
            let Some(end) = memchr::memchr(b'/', text) else { continue };
            let version = text.get(..end).unwrap_or_default();
            if version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
                found.insert(String::from_utf8_lossy(version).into_owned());
            }
        }
        if piece.len() < PIECE {
            break;
        }
        at += (PIECE - SOURCE.len() - VERSION) as u64;
    }
    found
}

/// Where in the variable the function exchanges a word: two instructions that follow each other load it, and store another there. `base` is the
/// variable's place from the thread pointer on, which the function has to name.
fn exchanged(code: &[u8], base: u64) -> Option<u64> {
    let (mut at, mut before, mut is_named) = (0, None, false);
    let mut found = None;
    while let Some(instruction) = code.get(at..).and_then(instruction::decode) {
        let bytes = code.get(at..at + instruction.length)?;
        // lea r, [r + base], which nothing else is so far from.
        is_named |= matches!(bytes, [0x48..=0x4f, 0x8d, modrm, place @ ..]
            if modrm & 0xc0 == 0x80 && place == (base as u32).to_le_bytes());
        let moved = moved(bytes);
        if let (Some((0x8b, from)), Some((0x89, to))) = (before, moved)
            && from == to
            && found.replace(to.1).is_some()
        {
            return None;
        }
        before = moved;
        at += instruction.length;
        if instruction.flow == Flow::Return {
            break;
        }
    }
    let field = found.filter(|field| field % 8 == 0 && *field < MAX_VARIABLE && is_named)?;
    // What the file says of itself has to be below the thread pointer.
    (base.cast_signed().is_negative() && base.wrapping_add(field).cast_signed().is_negative()).then_some(field)
}

/// A move of 64 bits between a register and [register + distance]: its operation, the register of the address and the distance.
fn moved(bytes: &[u8]) -> Option<(u8, (u8, u64))> {
    let (rex, operation, modrm, distance) = match bytes {
        [rex @ 0x48..=0x4f, operation @ (0x89 | 0x8b), modrm, distance @ ..] => (rex, *operation, modrm, distance),
        _ => return None,
    };
    let address = modrm & 7;
    // rsp has another byte; rbp is the frame's.
    if address == 4 || rex & 1 == 0 && address == 5 {
        return None;
    }
    let distance = match (modrm >> 6, distance) {
        (0, []) => 0,
        (1, [one]) => i64::from(one.cast_signed()),
        (2, [a, b, c, d]) => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
        _ => return None,
    };
    Some((operation, (address | (rex & 1) << 3, distance.cast_unsigned())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::read_at::tests::Bytes;

    /// `set_current_task_id` of tokio 1.54.1 as Rust 1.95 makes it, without what registers its destructor.
    const EXCHANGES: [u8; 45] = [
        0x41, 0x56, 0x53, 0x50, 0x48, 0x89, 0xfb, // push, push, push, mov rbx, rdi
        0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, // mov rax, fs:0
        0x48, 0x8d, 0x80, 0xe0, 0xfe, 0xff, 0xff, // lea rax, [rax - 0x120]
        0x0f, 0xb6, 0x48, 0x48, // movzx ecx, byte [rax + 0x48]
        0x48, 0x8b, 0x48, 0x30, // mov rcx, [rax + 0x30]
        0x48, 0x89, 0x58, 0x30, // mov [rax + 0x30], rbx
        0x48, 0x89, 0xc8, // mov rax, rcx
        0x48, 0x83, 0xc4, 0x08, 0x5b, 0x41, 0x5e, // add rsp, 8; pop, pop
    ];
    const BASE: u64 = 0x120u64.wrapping_neg();

    #[test]
    fn the_place_is_read_from_the_exchange() {
        assert_eq!(exchanged(&EXCHANGES, BASE), Some(0x30));
    }

    #[test]
    fn anything_else_is_not_understood() {
        assert_eq!(exchanged(&EXCHANGES, BASE + 8), None, "of another variable");
        let mut other = EXCHANGES;
        *other.get_mut(34).unwrap() = 0x28;
        assert_eq!(exchanged(&other, BASE), None, "loads from elsewhere than it stores");
        let twice = [&EXCHANGES[..], &EXCHANGES[27..35]].concat();
        assert_eq!(exchanged(&twice, BASE), None, "two of them");
        for length in 0..EXCHANGES.len() - 10 {
            assert_eq!(exchanged(EXCHANGES.get(..length).unwrap(), BASE), None, "{length}");
        }
    }

    #[test]
    fn versions_are_told_by_their_sources() {
        let text = b"/registry/tokio-1.54.1/src/x.rs ../tokio-1.9.0/src /tokio-1.x/ /tokio-1.";
        let found: Vec<_> = versions(&Bytes(text.to_vec())).into_iter().collect();
        assert_eq!(found, ["1.54.1", "1.9.0"]);
        assert!(is_known("1.54.1") && !is_known("1.9.0") && !is_known("1.55.0"));
    }

    #[test]
    fn other_files_are_no_programs_of_it() {
        assert_eq!(find(&Bytes(b"\x7fELF\x02\x01".to_vec())), None);
        assert_eq!(find(&Bytes(Vec::new())), None);
    }
}
