//! Where a program is stopped in a function: as cheap as is safe.
//!
//! In: the code of a function, hostile as any file. Out: where it is seen that a call begins and ends.
//!
//! A stop at an instruction that the kernel carries out itself costs a tenth of one that it has to step over (docs/decisions/tls-attach.md).
//! So a call is seen to begin at the first such instruction that every call passes while its arguments stand in their
//! registers, and to end at the last ones that lie on every way out while the result stands in its own. If that is not certain
//! the function's first instruction is taken, and the kernel's way to catch the return.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    bounds, elf,
    go::Done,
    instruction::{self, FIFTH, FIRST, FOURTH, Flow, Instruction, RESULT, SECOND, THIRD},
    order::{Function, Stop, When},
};
use crate::read_at::{self, ReadAt};

/// Longest function that is looked through, bytes. OpenSSL's that move plaintext have 30 to 700.
const MAX_CODE: u64 = 2048;
/// Ways out of one function that are stopped at.
const MAX_LEAVES: usize = 4;

/// Stops in the functions that begin at these offsets of a file; beginnings first.
pub(super) fn plan(file: &impl ReadAt, places: &[(Function, u64)]) -> Vec<Stop> {
    let (mut enter, mut leave) = (Vec::new(), Vec::new());
    // What is cheap there is not looked for: the decoder knows x86-64.
    let is_arm64 = elf::machine(file) == Some(elf::Machine::Arm64);
    for &(function, place) in places {
        let offset = if function == Function::GoDone { Done::of(place).offset } else { place };
        let found = arguments(function)
            .filter(|_| !is_arm64)
            .and_then(|arguments| choose(&code(file, offset)?, arguments, function.has_return()))
            .unwrap_or_default();
        enter.push(Stop { function, when: When::Enter, offset: offset.saturating_add(found.enter) });
        match found.leave {
            _ if !function.has_return() => {}
            None => leave.push(Stop { function, when: When::Return, offset }),
            Some(places) => leave.extend(places.into_iter().map(|place| Stop {
                function,
                when: When::Leave,
                offset: offset.saturating_add(place),
            })),
        }
    }
    enter.extend(leave);
    enter
}

/// Registers of the arguments that a function's beginning is asked for; `None`: its first instruction is the place.
fn arguments(function: Function) -> Option<u16> {
    if matches!(function, Function::Read | Function::Write) {
        Some(FIRST | SECOND)
    } else if matches!(function, Function::ReadEx | Function::WriteEx) {
        Some(FIRST | SECOND | FOURTH)
    } else if function == Function::Cipher {
        Some(FIRST | SECOND | THIRD)
    } else if function == Function::PyCalls {
        Some(FOURTH | FIFTH)
    } else if matches!(function, Function::PyEnters | Function::PyBuffers | Function::PyWrites) {
        Some(FIRST)
    } else {
        matches!(function, Function::Other | Function::Flush | Function::Forget).then_some(FIRST)
    }
}

fn code(file: &impl ReadAt, offset: u64) -> Option<Vec<u8>> {
    let length = bounds::length(file, offset).filter(|length| *length <= MAX_CODE)?;
    let mut code = vec![0; usize::try_from(length).ok()?];
    read_at::fill(file, offset, &mut code)?;
    Some(code)
}

/// Offsets in a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    enter: u64,
    /// `None`: the kernel's way.
    leave: Option<Vec<u64>>,
}

/// `None` if the code is not understood.
fn choose(code: &[u8], arguments: u16, has_return: bool) -> Option<Choice> {
    let graph = Graph::of(code)?;
    let enter = graph.enter(arguments);
    if !has_return {
        return Some(Choice { enter, leave: None });
    }
    let first_is_cheap = graph.instructions.get(&0).is_some_and(|first| first.emulated);
    match graph.leaves() {
        Some(leaves) if leaves.len() <= MAX_LEAVES && (leaves.cheap || !first_is_cheap) => {
            Some(Choice { enter, leave: Some(leaves.places.into_iter().map(|place| place as u64).collect()) })
        }
        _ => None,
    }
}

/// What happens from an instruction on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The function is never left.
    Dead,
    /// It is left with the result that is there.
    Clean,
    /// The result may still change.
    Dirty,
}

/// Where the function is seen to be left.
struct Leaves {
    places: BTreeSet<usize>,
    /// The kernel need not step over any of them.
    cheap: bool,
}

/// All instructions that the function's beginning leads to.
struct Graph {
    instructions: BTreeMap<usize, Instruction>,
    end: usize,
}

impl Graph {
    /// `None` if one of them is not known, or the function is left by a jump.
    fn of(code: &[u8]) -> Option<Self> {
        let mut graph = Self { instructions: BTreeMap::new(), end: code.len() };
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            if graph.instructions.contains_key(&at) {
                continue;
            }
            let instruction = instruction::decode(code.get(at..)?)?;
            graph.instructions.insert(at, instruction);
            if instruction.flow == Flow::Elsewhere {
                return None;
            }
            let ends = at + instruction.length == graph.end;
            // A call at the very end does not return. Anything else there leads into another function.
            if ends && matches!(instruction.flow, Flow::Next | Flow::Branch(_)) {
                return None;
            }
            for next in graph.next(at, &instruction) {
                open.push(next.filter(|next| *next < graph.end)?);
            }
        }
        // Two readings of the same bytes are no compiler's work.
        let ends = graph.instructions.iter().map(|(at, instruction)| at + instruction.length);
        let begins = graph.instructions.keys().skip(1);
        ends.zip(begins).all(|(end, begin)| end <= *begin).then_some(graph)
    }

    /// Where it leads; `None` in it: out of the code.
    fn next(&self, at: usize, instruction: &Instruction) -> Vec<Option<usize>> {
        let after = at + instruction.length;
        let there = |distance: i64| usize::try_from(after as i64 + distance).ok();
        match instruction.flow {
            Flow::Next => vec![Some(after)],
            Flow::Call if after == self.end => Vec::new(),
            Flow::Call => vec![Some(after)],
            Flow::Jump(distance) => vec![there(distance)],
            Flow::Branch(distance) => vec![Some(after), there(distance)],
            Flow::Return | Flow::Never | Flow::Elsewhere => Vec::new(),
        }
    }

    fn successors(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        self.instructions.get(&at).map(|i| self.next(at, i)).unwrap_or_default().into_iter().flatten()
    }

    /// First place that is cheap and that every call passes once, with these registers as they were.
    fn enter(&self, arguments: u16) -> u64 {
        let mut at = 0;
        while let Some(instruction) = self.instructions.get(&at) {
            if instruction.emulated {
                let again = self.instructions.keys().flat_map(|from| self.successors(*from).map(move |to| (*from, to)));
                // Somewhere a jump leads back to before it.
                let returns = again.into_iter().any(|(from, to)| to <= at && from >= at);
                return if returns { 0 } else { at as u64 };
            }
            let keeps = instruction.writes.is_some_and(|written| written & arguments == 0);
            if instruction.flow != Flow::Next || !keeps {
                return 0;
            }
            at += instruction.length;
        }
        0
    }

    fn rests(&self) -> BTreeMap<usize, Rest> {
        let mut rests: BTreeMap<usize, Rest> = BTreeMap::new();
        loop {
            let mut changed = false;
            for (&at, instruction) in self.instructions.iter().rev() {
                if rests.contains_key(&at) {
                    continue;
                }
                if let Some(rest) = self.rest(at, instruction, &rests) {
                    rests.insert(at, rest);
                    changed = true;
                }
            }
            if !changed {
                return rests;
            }
        }
    }

    /// `None` as long as that of what follows is not known: a loop for ever.
    fn rest(&self, at: usize, instruction: &Instruction, rests: &BTreeMap<usize, Rest>) -> Option<Rest> {
        if instruction.flow == Flow::Return {
            return Some(Rest::Clean);
        }
        let mut rest = Rest::Dead;
        for next in self.successors(at) {
            rest = match (rest, *rests.get(&next)?) {
                (Rest::Dead, other) => other,
                (known, Rest::Dead) => known,
                (Rest::Clean, Rest::Clean) => Rest::Clean,
                _ => Rest::Dirty,
            };
        }
        let changes = instruction.flow == Flow::Call || instruction.writes.is_none_or(|written| written & RESULT != 0);
        Some(if rest == Rest::Clean && changes { Rest::Dirty } else { rest })
    }

    /// On each way out exactly one place, where the result stands.
    fn leaves(&self) -> Option<Leaves> {
        let rests = self.rests();
        let is = |at: usize, rest: Rest| rests.get(&at) == Some(&rest);
        let cheap = |at: &usize| is(*at, Rest::Clean) && self.instructions.get(at).is_some_and(|i| i.emulated);
        let last = |at: &usize| {
            let mut behind = self.reach(self.successors(*at).collect(), |at| is(at, Rest::Dead));
            behind.retain(cheap);
            behind.is_empty()
        };
        let places: BTreeSet<usize> = self.instructions.keys().copied().filter(cheap).filter(last).collect();
        let uncovered = self.reach(vec![0], |at| places.contains(&at));
        let returns = |at: &usize| self.instructions.get(at).is_some_and(|i| i.flow == Flow::Return);
        if !uncovered.iter().any(returns) {
            return (!places.is_empty()).then_some(Leaves { places, cheap: true });
        }
        let places: BTreeSet<usize> = self.instructions.keys().copied().filter(returns).collect();
        Some(Leaves { places, cheap: false })
    }

    /// Everything that these lead to, themselves included, up to where `ends` says.
    fn reach(&self, from: Vec<usize>, ends: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let (mut open, mut found) = (from, BTreeSet::new());
        while let Some(at) = open.pop() {
            if !ends(at) && found.insert(at) {
                open.extend(self.successors(at));
            }
        }
        found
    }
}

impl Leaves {
    fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests;
