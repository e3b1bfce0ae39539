//! Where it is seen which request of Go's `net/http` another one is made for.
//!
//! In: the program's file, hostile as any other. Out: places of functions in it, each with the program of the kernel side that
//! knows where fields lie in this version of Go (`probes/go_link.h`), or why there are none: of a version that is not known,
//! nothing is read.

use super::{
    super::elf::{Elf, Machine},
    arm64, code, places,
    table::Table,
};
use crate::{
    read_at::{self, ReadAt},
    tls::{
        instruction::Flow,
        order::{Function, Stop, When},
    },
};

const SERVE: &str = "net/http.serverHandler.ServeHTTP";
const ASK: &str = "net/http.(*persistConn).roundTrip";
const SPAWN: &str = "runtime.newproc.func1";
const RUN: &str = "runtime.runqput";
/// Bytes of one function at most; of these none has more than 3,000.
const MAX_CODE: u64 = 64 * 1024;
/// `.go.buildinfo` since Go 1.18 (src/debug/buildinfo): a mark, the size of a pointer, flags, and at 32 the version.
const BUILD_INFO: &[u8] = b"\xff Go buildinf:\x08";
const INLINE: u8 = 2;

/// Why requests are not linked in a program that has `net/http` in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::tls) enum Unlinkable {
    /// Fields may lie elsewhere.
    #[error("its version of Go is not known: {0}")]
    Version(String),
    /// One of the functions is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// The code is not as Go makes it.
    #[error("its functions are not as Go 1.21 to 1.26 make them")]
    Code,
}

/// The places; `None`: it is not Go, or does not use `net/http`.
pub(in crate::tls) fn find(file: &impl ReadAt) -> Option<Result<Vec<Stop>, Unlinkable>> {
    let elf = Elf::parse(file)?;
    let table = Table::of(&elf)?;
    let found = table.find(file, &[SERVE, ASK, SPAWN, RUN]);
    // Who only serves or only asks has nothing to link.
    if !found.contains_key(SERVE) || !found.contains_key(ASK) {
        return None;
    }
    let version = version(&elf).unwrap_or_default();
    let Some([serves, spawns, asks]) = layout(&version) else { return Some(Err(Unlinkable::Version(version))) };
    let range = |name: &'static str| found.get(name).cloned().ok_or(Unlinkable::Missing(name));
    let (serve, ask) = (range(SERVE).ok()?, range(ASK).ok()?);
    let (spawn, run) = match (range(SPAWN), range(RUN)) {
        (Ok(spawn), Ok(run)) => (spawn, run),
        (Err(missing), _) | (_, Err(missing)) => return Some(Err(missing)),
    };
    let entry = |text: u64, range: &std::ops::Range<u64>| {
        let (start, code) = read(&elf, text, range)?;
        Some(start + places(elf.machine, &code)?.entry)
    };
    let places = table.texts(&elf).into_iter().find_map(|text| {
        let (start, code) = read(&elf, text, &spawn)?;
        let distance = i64::try_from(run.start).ok()? - i64::try_from(spawn.start).ok()?;
        let call = match elf.machine {
            Machine::Amd64 => call_to(&code, distance),
            Machine::Arm64 => arm64::call_to(&code, distance),
        };
        let call = start + call?;
        let stop = |function, offset| Stop { function, when: When::Enter, offset };
        Some(vec![stop(serves, entry(text, &serve)?), stop(spawns, call), stop(asks, entry(text, &ask)?)])
    });
    Some(places.ok_or(Unlinkable::Code))
}

/// Where a function lies in the file, and its code.
fn read<F: ReadAt>(elf: &Elf<'_, F>, text: u64, range: &std::ops::Range<u64>) -> Option<(u64, Vec<u8>)> {
    let start = elf.code_offset(text.checked_add(range.start)?)?;
    let length = range.end.checked_sub(range.start)?.min(MAX_CODE) as usize;
    Some((start, read_at::read(elf.file, start, length)))
}

/// The one call in this code that leads to what is so far from its beginning.
fn call_to(code: &[u8], distance: i64) -> Option<u64> {
    let all = code::decode(code)?;
    let mut calls = all.iter().filter(|(at, instruction)| {
        let operand = code.get(**at..).and_then(|rest| rest.strip_prefix(b"\xe8")).and_then(|rest| rest.first_chunk());
        let to = operand.map(|to| **at as i64 + 5 + i64::from(i32::from_le_bytes(*to)));
        instruction.flow == Flow::Call && instruction.length == 5 && to == Some(distance)
    });
    let (at, _) = calls.next()?;
    calls.next().is_none().then_some(*at as u64)
}

/// As `go version` tells it, such as `go1.26.8`.
fn version<F: ReadAt>(elf: &Elf<'_, F>) -> Option<String> {
    let info = read_at::read(elf.file, elf.section(b".go.buildinfo")?.offset, 32 + 1 + 127);
    if !info.starts_with(BUILD_INFO) || info.get(15)? & INLINE == 0 {
        return None;
    }
    // Its length is a varint; of 128 bytes and more it is no version that is known.
    let length = usize::from(*info.get(32)?);
    let text = info.get(33..)?.get(..length)?;
    String::from_utf8(text.to_vec()).ok()
}

/// Programs of the kernel side for a version of Go: where the fields lie was read from the debugging information of programs that
/// each version made.
fn layout(version: &str) -> Option<[Function; 3]> {
    use Function as F;
    let minor = version.strip_prefix("go1.")?;
    match minor.split(|c: char| !c.is_ascii_digit()).next()? {
        "21" | "22" => Some([F::GoServeA, F::GoSpawnA, F::GoAskA]),
        "23" | "24" => Some([F::GoServeB, F::GoSpawnB, F::GoAskB]),
        "25" => Some([F::GoServeC, F::GoSpawnA, F::GoAskC]),
        "26" => Some([F::GoServeC, F::GoSpawnC, F::GoAskC]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(layout("go1.21.0"), Some([Function::GoServeA, Function::GoSpawnA, Function::GoAskA]));
        assert_eq!(layout("go1.24.3 X:boringcrypto").map(|[serve, ..]| serve), Some(Function::GoServeB));
        assert_eq!(layout("go1.26rc1").map(|[_, spawn, _]| spawn), Some(Function::GoSpawnC));
        for unknown in ["go1.20.14", "go1.27.0", "go2.0", "devel go1.26-abc", "go1.", ""] {
            assert_eq!(layout(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_call_is_found_by_where_it_leads() {
        // nop; call +0x20 from 6; ret
        let code = b"\x90\xe8\x1a\x00\x00\x00\xc3";
        assert_eq!(call_to(code, 0x20), Some(1));
        assert_eq!(call_to(code, 0x21), None);
        let twice = b"\xe8\x1b\x00\x00\x00\xe8\x16\x00\x00\x00\xc3";
        assert_eq!(call_to(twice, 0x20), None);
        assert_eq!(call_to(b"\xe8\x1b\x00", 0x20), None);
    }
}
