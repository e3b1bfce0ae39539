//! One machine instruction: how long it is, where it leads, which registers it writes, and whether the kernel stops at it cheaply.
//!
//! In: code of x86-64 (Intel SDM volume 2, chapter 2 and appendix A), hostile as the file that it stands in. Out: an
//! [`Instruction`], or `None` for what is not known here: vector extensions by VEX and EVEX, rare and privileged ones.
//! It knows what compilers make of functions that call others, and is sure of that.

/// Where an instruction leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// To the next one.
    Next,
    /// To a place this far from its end.
    Jump(i64),
    /// There or to the next one.
    Branch(i64),
    /// Into another function, and if that returns, to the next one.
    Call,
    /// Out of the function.
    Return,
    /// Nowhere.
    Never,
    /// To where a register or memory says.
    Elsewhere,
}

/// What is known of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Bytes, 1 to 15.
    pub(super) length: usize,
    pub(super) flow: Flow,
    /// The kernel carries it out itself when it has stopped there. Others it has to step over, by a second exception.
    /// Linux since 4.20, `arch/x86/kernel/uprobes.c`: push of a register, call, jump and branch by a distance, nop.
    pub(super) emulated: bool,
    /// General registers that may be written, by their numbers as bits; `None`: not known. Not those of the stack: rsp.
    pub(super) writes: Option<u16>,
}

/// rax, where functions leave their result (System V ABI, AMD64, section 3.2.3).
pub(super) const RESULT: u16 = 1;
/// rdi, the first argument.
pub(super) const FIRST: u16 = 1 << 7;
/// rsi, the second.
pub(super) const SECOND: u16 = 1 << 6;
/// rdx, the third.
pub(super) const THIRD: u16 = 1 << 2;
/// rcx, the fourth.
pub(super) const FOURTH: u16 = 1 << 1;
/// r8, the fifth.
pub(super) const FIFTH: u16 = 1 << 8;

const LONGEST: usize = 15;
const NONE: Option<u16> = Some(0);

/// Bytes of one instruction, read one after another.
struct Reader<'a> {
    code: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.code.len()).then_some(())
    }

    fn distance8(&mut self) -> Option<i64> {
        self.byte().map(|byte| i64::from(byte.cast_signed()))
    }

    fn distance32(&mut self) -> Option<i64> {
        let bytes = self.code.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        Some(i64::from(i32::from_le_bytes(*bytes)))
    }
}

/// Prefixes that change what follows.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand16: bool,
    rex: u8,
    any: bool,
}

impl Prefixes {
    /// Bytes of an immediate value of the operand's size.
    fn immediate(self) -> usize {
        if self.operand16 && self.rex & 8 == 0 { 2 } else { 4 }
    }
}

/// The two operands of an instruction with a ModRM byte.
struct Operands {
    /// Number in the `reg` field, without its extension: part of the operation for some.
    operation: u8,
    /// Register of that field.
    register: u16,
    /// The other one if it is a register; 0 if it is memory.
    other: u16,
}

fn bit(number: u8, extended: bool) -> u16 {
    1 << (number | if extended { 8 } else { 0 })
}

fn operands(reader: &mut Reader<'_>, rex: u8) -> Option<Operands> {
    let modrm = reader.byte()?;
    let (mode, register, other) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    if mode != 3 {
        let base = if other == 4 { reader.byte()? & 7 } else { other };
        match mode {
            0 if base == 5 => reader.skip(4)?,
            1 => reader.skip(1)?,
            2 => reader.skip(4)?,
            _ => {}
        }
    }
    Some(Operands {
        operation: register,
        register: bit(register, rex & 4 != 0),
        other: if mode == 3 { bit(other, rex & 1 != 0) } else { 0 },
    })
}

/// Registers behind the names of bytes: without a REX prefix, 4 to 7 are the second bytes of 0 to 3.
fn bytes_of(registers: u16) -> u16 {
    registers | registers >> 4 & 15
}

/// The first instruction of `code`.
pub(super) fn decode(code: &[u8]) -> Option<Instruction> {
    let mut reader = Reader { code: code.get(..code.len().min(LONGEST))?, at: 0 };
    let mut prefixes = Prefixes::default();
    let mut opcode = reader.byte()?;
    while matches!(opcode, 0x66 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) {
        prefixes.operand16 |= opcode == 0x66;
        prefixes.any = true;
        opcode = reader.byte()?;
    }
    if opcode & 0xf0 == 0x40 {
        prefixes.rex = opcode;
        opcode = reader.byte()?;
    }
    let (flow, writes) = match opcode {
        0x0f => two_bytes(&mut reader, prefixes)?,
        _ => one_byte(&mut reader, prefixes, opcode)?,
    };
    let mut emulated = match flow {
        Flow::Jump(_) | Flow::Branch(_) => true,
        Flow::Call => opcode == 0xe8,
        _ => match opcode {
            0x50..=0x57 => matches!((prefixes.rex, prefixes.any), (0 | 0x41, false)),
            0x90 => prefixes.rex == 0,
            _ => false,
        },
    };
    // These have to have no such prefix: processors disagree on what it means.
    if prefixes.operand16 && emulated && opcode != 0x90 {
        // But linkers write such calls, for variables of threads: with this bit it means nothing (System V ABI, AMD64, ELF TLS).
        if flow != Flow::Call || prefixes.rex & 8 == 0 {
            return None;
        }
        emulated = false;
    }
    Some(Instruction { length: reader.at, flow, emulated, writes })
}

fn one_byte(reader: &mut Reader<'_>, prefixes: Prefixes, opcode: u8) -> Option<(Flow, Option<u16>)> {
    let own = bit(opcode & 7, prefixes.rex & 1 != 0);
    let writes = match opcode {
        // add, or, adc, sbb, and, sub, xor, cmp
        0x00..=0x3f => {
            let compares = opcode >> 3 == 7;
            let written = match opcode & 7 {
                form @ 0..=3 => {
                    let operands = operands(reader, prefixes.rex)?;
                    let written = if form < 2 { operands.other } else { operands.register };
                    if form & 1 == 0 { bytes_of(written) } else { written }
                }
                4 => reader.skip(1).map(|()| RESULT)?,
                5 => reader.skip(prefixes.immediate()).map(|()| RESULT)?,
                _ => return None,
            };
            if compares { NONE } else { Some(written) }
        }
        0x50..=0x57 => NONE,
        0x90 if prefixes.rex & 1 == 0 => NONE,
        0x58..=0x5f => Some(own),
        0x63 => Some(operands(reader, prefixes.rex)?.register),
        0x68 => reader.skip(prefixes.immediate()).map(|()| NONE)?,
        0x6a => reader.skip(1).map(|()| NONE)?,
        0x69 | 0x6b => {
            let written = operands(reader, prefixes.rex)?.register;
            reader.skip(if opcode == 0x69 { prefixes.immediate() } else { 1 })?;
            Some(written)
        }
        0x70..=0x7f => return reader.distance8().map(|distance| (Flow::Branch(distance), NONE)),
        0x80 | 0x81 | 0x83 => {
            let operands = operands(reader, prefixes.rex)?;
            reader.skip(if opcode == 0x81 { prefixes.immediate() } else { 1 })?;
            let written = if opcode == 0x80 { bytes_of(operands.other) } else { operands.other };
            if operands.operation == 7 { NONE } else { Some(written) }
        }
        0x84 | 0x85 => operands(reader, prefixes.rex).map(|_| NONE)?,
        0x86 | 0x87 => {
            let operands = operands(reader, prefixes.rex)?;
            Some(bytes_of(operands.other | operands.register))
        }
        0x88 => Some(bytes_of(operands(reader, prefixes.rex)?.other)),
        0x89 => Some(operands(reader, prefixes.rex)?.other),
        0x8a => Some(bytes_of(operands(reader, prefixes.rex)?.register)),
        0x8b | 0x8d => Some(operands(reader, prefixes.rex)?.register),
        0x90..=0x97 => Some(RESULT | own),
        0x98 => Some(RESULT),
        0x99 => Some(1 << 2),
        // Operations on strings.
        0xa4..=0xa7 | 0xaa..=0xaf => None,
        0xa8 => reader.skip(1).map(|()| NONE)?,
        0xa9 => reader.skip(prefixes.immediate()).map(|()| NONE)?,
        0xb0..=0xb7 => reader.skip(1).map(|()| Some(bytes_of(own)))?,
        0xb8..=0xbf => {
            reader.skip(if prefixes.rex & 8 != 0 { 8 } else { prefixes.immediate() })?;
            Some(own)
        }
        0xc0 | 0xc1 | 0xd0..=0xd3 => {
            let written = bytes_of(operands(reader, prefixes.rex)?.other);
            reader.skip(usize::from(opcode < 0xd0))?;
            Some(written)
        }
        0xc2 => return reader.skip(2).map(|()| (Flow::Return, NONE)),
        0xc3 => return Some((Flow::Return, NONE)),
        0xc6 | 0xc7 => {
            let operands = operands(reader, prefixes.rex)?;
            if operands.operation != 0 {
                return None;
            }
            reader.skip(if opcode == 0xc7 { prefixes.immediate() } else { 1 })?;
            Some(bytes_of(operands.other))
        }
        0xc9 => Some(1 << 5),
        0xcc | 0xf4 => return Some((Flow::Never, NONE)),
        0xd8..=0xdf => operands(reader, prefixes.rex).map(|_| None)?,
        0xe8 => return reader.distance32().map(|_| (Flow::Call, None)),
        0xe9 => return reader.distance32().map(|distance| (Flow::Jump(distance), NONE)),
        0xeb => return reader.distance8().map(|distance| (Flow::Jump(distance), NONE)),
        0xf6 | 0xf7 => {
            let operands = operands(reader, prefixes.rex)?;
            match operands.operation {
                0 | 1 => {
                    reader.skip(if opcode == 0xf7 { prefixes.immediate() } else { 1 })?;
                    NONE
                }
                2 | 3 => Some(bytes_of(operands.other)),
                _ => Some(RESULT | 1 << 2),
            }
        }
        0xfe | 0xff => {
            let operands = operands(reader, prefixes.rex)?;
            match (opcode, operands.operation) {
                (_, 0 | 1) => Some(bytes_of(operands.other)),
                (0xff, 2) => return Some((Flow::Call, None)),
                (0xff, 4) => return Some((Flow::Elsewhere, NONE)),
                (0xff, 6) => NONE,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((Flow::Next, writes))
}

/// What follows 0F.
fn two_bytes(reader: &mut Reader<'_>, prefixes: Prefixes) -> Option<(Flow, Option<u16>)> {
    let opcode = reader.byte()?;
    let writes = match opcode {
        0x0b => return Some((Flow::Never, NONE)),
        0x80..=0x8f => return reader.distance32().map(|distance| (Flow::Branch(distance), NONE)),
        0xa2 => None,
        0xc8..=0xcf => Some(bit(opcode & 7, prefixes.rex & 1 != 0)),
        0x77 => NONE,
        0x38 => {
            reader.skip(1)?;
            operands(reader, prefixes.rex).map(|_| None)?
        }
        0x3a => {
            reader.skip(1)?;
            operands(reader, prefixes.rex)?;
            reader.skip(1).map(|()| None)?
        }
        // Vector registers alone, no operation, or the end of a branch.
        0x10..=0x17
        | 0x19..=0x1f
        | 0x28
        | 0x29
        | 0x2e
        | 0x2f
        | 0x54..=0x6f
        | 0x74..=0x76
        | 0x7f
        | 0xd6
        | 0xe7
        | 0xef => operands(reader, prefixes.rex).map(|_| NONE)?,
        0x0d | 0x18 | 0xa3 => operands(reader, prefixes.rex).map(|_| NONE)?,
        0x40..=0x4f | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf => Some(operands(reader, prefixes.rex)?.register),
        0x90..=0x9f => Some(bytes_of(operands(reader, prefixes.rex)?.other)),
        0xab | 0xb3 | 0xbb => Some(operands(reader, prefixes.rex)?.other),
        0xba => {
            let written = operands(reader, prefixes.rex)?.other;
            reader.skip(1).map(|()| Some(written))?
        }
        0xb0 | 0xb1 | 0xc0 | 0xc1 => {
            let operands = operands(reader, prefixes.rex)?;
            Some(bytes_of(RESULT | operands.other | operands.register))
        }
        0x70..=0x73 | 0xa4 | 0xac | 0xc2 | 0xc4..=0xc6 => {
            operands(reader, prefixes.rex)?;
            reader.skip(1).map(|()| None)?
        }
        0x2a | 0x2c | 0x2d | 0x50..=0x53 | 0x7c..=0x7e | 0xa5 | 0xad | 0xae | 0xc3 | 0xc7 | 0xd0..=0xfe => {
            operands(reader, prefixes.rex).map(|_| None)?
        }
        _ => return None,
    };
    Some((Flow::Next, writes))
}

#[cfg(test)]
mod tests;
