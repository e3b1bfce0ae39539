//! Where it is seen which request of Node another one is made for.
//!
//! In: the program's file, hostile as any other. Out: places of functions in it (Node's own, libuv's and V8's), each with the
//! program of the kernel side for it (`probes/node_entries.h`), or why there are none. V8's are local symbols: a stripped file
//! lacks them, and with only some of them links would be wrong.
//!
//! Where Node keeps the numbers of what it executes is read from its own code, which raises the last one given.

use std::collections::BTreeMap;

use super::{
    instruction::{self, Flow},
    order::{Function, LINKS_RUNTIMES, Stop, When},
    symbols,
};
use crate::read_at::{self, ReadAt};

/// The constructor that every callback from the event loop passes: before Node 22, and since.
const SCOPES: [&str; 2] = [
    "_ZN4node21InternalCallbackScopeC1EPNS_11EnvironmentEN2v85LocalINS3_6ObjectEEERKNS_13async_contextEi",
    "_ZN4node21InternalCallbackScopeC1EPNS_11EnvironmentESt7variantIJN2v85LocalINS4_6ObjectEEEPS7_EERKNS_13async_contextEiNS5_INS4_5ValueEEE",
];
/// The same for a thing that Node made.
const WRAPS: [&str; 1] = ["_ZN4node21InternalCallbackScopeC1EPNS_9AsyncWrapEi"];
/// Gives a number to what it makes: before Node 22, and since.
const MADE: [&str; 2] = [
    "_ZN4node9AsyncWrap10AsyncResetEN2v85LocalINS1_6ObjectEEEdb",
    "_ZN4node9AsyncWrap10AsyncResetEN2v85LocalINS1_6ObjectEEEd",
];
/// All others; each has to be there, and those registers that the kernel side reads have to be as the caller left them.
const OTHERS: [(&[&str], Function, u16); 14] = [
    (&["uv__stream_io"], Function::NodeEvent, 0),
    (&["uv__server_io"], Function::NodeEvent, 0),
    (&["uv__async_io"], Function::NodeEvent, 0),
    (&["uv__work_done"], Function::NodeTurn, 0),
    (&["_ZN4node14ConnectionWrapINS_7TCPWrapE8uv_tcp_sE12AfterConnectEP12uv_connect_si"], Function::NodeTurn, 0),
    (&["_ZN4node11Environment9RunTimersEP10uv_timer_s"], Function::NodeTurn, 0),
    (&["_ZN4node11Environment14CheckImmediateEP10uv_check_s"], Function::NodeTurn, 0),
    (&["Builtins_PerformPromiseThen"], Function::NodeAwait, RBX | instruction::FOURTH),
    (&["Builtins_PromisePrototypeThen"], Function::NodeThen, RSP),
    (&["Builtins_PromiseFulfillReactionJob"], Function::NodeReact, RBX),
    (&["Builtins_PromiseRejectReactionJob"], Function::NodeReact, RBX),
    (&["Builtins_PromiseResolveThenableJob"], Function::NodeAdopt, 0),
    (&IDLE, Function::NodeIdle, 0),
    (&["_ZN2v88internal8GCTracer15StopAtomicPauseEv"], Function::NodeCollected, 0),
];
const IDLE: [&str; 2] = [
    "_ZNK2v88internal14MicrotaskQueue11OnCompletedEPNS0_7IsolateE",
    "_ZN2v88internal14MicrotaskQueue11OnCompletedEPNS0_7IsolateE",
];
const RBX: u16 = 1 << 3;
/// The stack has to be as it was: only the first instruction will do.
const RSP: u16 = 1 << 4;
/// Those with the environment and with what will be executed.
const SCOPE: u16 = instruction::SECOND | instruction::FOURTH | instruction::FIFTH;
/// Bytes of a function in which a cheap place is looked for.
const BEGINNING: usize = 48;
/// Bytes of [`MADE`] in which the number is raised.
const MAX_CODE: usize = 192;

/// Why requests are not linked in a program of Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unlinkable {
    /// A symbol is missing.
    #[error("its file has no symbol {0}: it is stripped, or no Node of 20, 22 or 24")]
    Missing(&'static str),
    /// The numbers are kept elsewhere.
    #[error("it is no Node of 20, 22 or 24: where it keeps its async ids is not known")]
    Layout,
    /// The kernel side has no programs for it.
    #[error("requests of Node are linked on x86-64 only")]
    Processor,
    /// A function begins with code that is not understood.
    #[error("the code of {0} is not understood")]
    Code(&'static str),
}

/// The places; `None`: it is not Node.
pub(super) fn find(file: &impl ReadAt) -> Option<Result<Vec<Stop>, Unlinkable>> {
    let names: Vec<&str> =
        SCOPES.iter().chain(&WRAPS).chain(&MADE).chain(OTHERS.iter().flat_map(|(names, ..)| *names)).copied().collect();
    let found = symbols::find(file, &names)?;
    let scope = first(&found, &SCOPES).ok()?;
    Some(if LINKS_RUNTIMES { places(file, scope, &found) } else { Err(Unlinkable::Processor) })
}

/// A function, and where in the file it begins.
type Found = (&'static str, u64);

/// The first of these that is there.
fn first(found: &BTreeMap<&str, u64>, names: &[&'static str]) -> Result<Found, Unlinkable> {
    let there = names.iter().find_map(|name| Some((*name, *found.get(name)?)));
    there.ok_or(Unlinkable::Missing(names.first().copied().unwrap_or_default()))
}

fn places(file: &impl ReadAt, scope: Found, found: &BTreeMap<&str, u64>) -> Result<Vec<Stop>, Unlinkable> {
    let made = first(found, &MADE)?;
    let is_old = SCOPES.first() == Some(&scope.0);
    let own = if is_old { Function::NodeWrapA } else { Function::NodeWrapB };
    let enter = match (fields(&read_at::read(file, made.1, MAX_CODE)), is_old) {
        (Some(0x480), true) => Function::NodeScopeA,
        (Some(0x480), false) => Function::NodeScopeB,
        (Some(0x488), false) => Function::NodeScopeC,
        _ => return Err(Unlinkable::Layout),
    };
    let stop = |(name, offset): Found, function, keeps| {
        let within = cheap(&read_at::read(file, offset, BEGINNING), keeps).ok_or(Unlinkable::Code(name))?;
        Ok(Stop { function, when: When::Enter, offset: offset + within })
    };
    let mut stops = vec![
        stop(scope, enter, SCOPE)?,
        stop(first(found, &WRAPS)?, own, instruction::SECOND)?,
        stop(made, Function::NodeMade, 0)?,
    ];
    for (names, function, keeps) in OTHERS {
        stops.push(stop(first(found, names)?, function, keeps)?);
    }
    Ok(stops)
}

/// The first place that every call passes, where the kernel need not step over the instruction; else the beginning. `None` if the
/// code is not understood.
pub(super) fn cheap(code: &[u8], keeps: u16) -> Option<u64> {
    let mut at = 0;
    // Even of the first instruction it has to be certain that it is one.
    instruction::decode(code)?;
    while let Some(instruction) = code.get(at..).and_then(instruction::decode) {
        if instruction.emulated {
            return Some(at as u64);
        }
        let changes = keeps & RSP != 0 || instruction.writes.is_none_or(|written| written & keeps != 0);
        if instruction.flow != Flow::Next || changes {
            break;
        }
        at += instruction.length;
    }
    Some(0)
}

/// Where the address of the numbers stands in `node::Environment`: `mov r, [environment + offset]`, and later
/// `addsd xmm, [r + 16]` raises the third of them.
fn fields(code: &[u8]) -> Option<u32> {
    let raises = code
        .windows(5)
        .position(|bytes| matches!(bytes, [0xf2, 0x0f, 0x58, modrm, 0x10] if modrm & 0xc0 == 0x40 && modrm & 7 != 4))?;
    let base = code.get(raises + 3).map(|modrm| modrm & 7)?;
    // mov r64, [r64 + disp32]; of the lower eight registers both.
    let load = code.get(..raises)?.windows(7).rev().find_map(|bytes| match bytes {
        [0x48 | 0x49, 0x8b, modrm, offset @ ..] if modrm & 0xc0 == 0x80 && modrm >> 3 & 7 == base && modrm & 7 != 4 => {
            Some(u32::from_le_bytes(*offset.first_chunk::<4>()?))
        }
        _ => None,
    })?;
    Some(load)
}

#[cfg(test)]
mod tests;
