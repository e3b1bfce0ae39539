//! Against another decoder: nothing that is said of an instruction may be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, OpAccess, Register};
use object::{Object as _, ObjectSection as _};

use super::*;

/// `None`: the bytes are no instruction.
fn oracle(code: &[u8], factory: &mut InstructionInfoFactory) -> Option<(usize, FlowControl, u16)> {
    let instruction = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return None;
    }
    let mut written = 0;
    for used in factory.info(&instruction).used_registers() {
        let writes =
            !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess);
        let register = used.register().full_register();
        if writes && register.is_gpr64() && register != Register::RSP {
            written |= 1 << register.number();
        }
    }
    Some((instruction.len(), instruction.flow_control(), written))
}

fn compare(code: &[u8], factory: &mut InstructionInfoFactory) -> Option<bool> {
    let (length, flow, written) = oracle(code, factory)?;
    let Some(own) = decode(code) else { return Some(false) };
    let bytes = &code[..length];
    assert_eq!(own.length, length, "{bytes:02x?}");
    let same = match own.flow {
        Flow::Next => flow == FlowControl::Next,
        Flow::Jump(_) => flow == FlowControl::UnconditionalBranch,
        Flow::Branch(_) => flow == FlowControl::ConditionalBranch,
        Flow::Call => matches!(flow, FlowControl::Call | FlowControl::IndirectCall),
        Flow::Return => flow == FlowControl::Return,
        Flow::Never => matches!(flow, FlowControl::Exception | FlowControl::Interrupt | FlowControl::Next),
        Flow::Elsewhere => flow == FlowControl::IndirectBranch,
    };
    assert!(same, "{bytes:02x?} {own:?} {flow:?}");
    if own.flow != Flow::Call
        && let Some(writes) = own.writes
    {
        assert_eq!(written & !writes & !(1 << 4), 0, "{bytes:02x?} {own:?} writes {written:#x}");
    }
    Some(true)
}

// This program is of x86-64.
#[cfg(target_arch = "x86_64")]
#[test]
fn code_of_this_program_is_read_as_another_decoder_reads_it() {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let code = file.section_by_name(".text").unwrap().data().unwrap();
    let (mut factory, mut at, mut seen, mut known) = (InstructionInfoFactory::new(), 0, 0_u32, 0_u32);
    while at < code.len() && seen < 300_000 {
        let piece = &code[at..code.len().min(at + LONGEST)];
        let Some((length, ..)) = oracle(piece, &mut factory) else { break };
        seen += 1;
        known += u32::from(compare(piece, &mut factory) == Some(true));
        at += length;
    }
    assert!(seen > 100_000 && known > seen / 10 * 9, "{known} of {seen} known");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]
    #[test]
    fn any_bytes_are_read_as_another_decoder_reads_them(code in proptest::array::uniform15(proptest::num::u8::ANY)) {
        compare(&code, &mut InstructionInfoFactory::new());
    }
}

#[test]
fn what_the_kernel_carries_out_itself() {
    for (code, emulated) in [
        (&b"\x53"[..], true),
        (b"\x41\x57", true),
        (b"\x48\x53", false),
        (b"\x90", true),
        (b"\xe8\0\0\0\0", true),
        (b"\xff\xd0", false),
        (b"\xeb\0", true),
        (b"\x0f\x84\0\0\0\0", true),
        (b"\x78\0", true),
        (b"\xc3", false),
        (b"\xf3\x0f\x1e\xfa", false),
        (b"\x48\x83\xec\x18", false),
    ] {
        assert_eq!(decode(code).unwrap().emulated, emulated, "{code:02x?}");
    }
    assert_eq!(decode(b"\x66\xe8\0\0\0\0"), None);
}
