//! Where probes may stand in a function of Go.
//!
//! In: the instructions of one function (AMD64), hostile as any other bytes. Out: a place behind its beginning and all its
//! return instructions; or nothing, if anything about them is not as Go's compiler makes it since 1.17: a probe inside of an
//! instruction would break the program.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Places in a function, as offsets from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Arguments stand in their registers. The kernel need not step over the instruction there, and behind the check of the
    /// stack's size it is, where that can be, passed once only: that check may begin the function anew.
    pub(super) entry: u64,
    /// Return instructions.
    pub(super) returns: Vec<u64>,
}

/// Offset of the stack's bound in the goroutine's object: `stackguard0`, all versions.
const STACK_BOUND: u64 = 16;

/// Places in a function that begins by looking at its stack.
pub(super) fn places(code: &[u8]) -> Option<Places> {
    let all = decode(code)?;
    Some(Places { entry: entry(&all)?, returns: returns(&all) })
}

/// The first instruction of any function: some have no need to look at their stack.
fn decode(code: &[u8]) -> Option<Vec<Instruction>> {
    let mut all = Vec::new();
    let mut starts = BTreeSet::new();
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return None;
        }
        starts.insert(instruction.ip());
        all.push(instruction);
    }
    // Every jump within the function leads to where an instruction begins.
    let sound = all.iter().all(|instruction| {
        let target = instruction.near_branch_target();
        let jumps = matches!(instruction.op0_kind(), OpKind::NearBranch64) && target < code.len() as u64;
        !jumps || starts.contains(&target)
    });
    sound.then_some(all)
}

/// `[lea r12, [rsp-..];] cmp rsp|r12, [r14+16]; jbe ..; [push rbp]`: the jump, or better the push.
fn entry(all: &[Instruction]) -> Option<u64> {
    let mut all = all.iter();
    let mut next = all.next()?;
    if next.mnemonic() == Mnemonic::Lea && next.op0_register() == Register::R12 {
        next = all.next()?;
    }
    let compares = next.mnemonic() == Mnemonic::Cmp
        && matches!(next.op0_register(), Register::RSP | Register::R12)
        && next.op1_kind() == OpKind::Memory
        && next.memory_base() == Register::R14
        && next.memory_displacement64() == STACK_BOUND;
    let jump = all.next()?;
    if !compares || !matches!(jump.code(), Code::Jbe_rel8_64 | Code::Jbe_rel32_64) {
        return None;
    }
    let push = all.next().filter(|next| next.code() == Code::Push_r64 && next.op0_register() == Register::RBP);
    Some(push.unwrap_or(jump).ip())
}

fn returns(all: &[Instruction]) -> Vec<u64> {
    all.iter().filter(|instruction| instruction.mnemonic() == Mnemonic::Ret).map(Instruction::ip).collect()
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
