//! OTLP/JSON out of OTLP protobuf.
//!
//! In: bytes of a message that this program encoded itself, and which message it is. Out: the same message as JSON by the rules
//! of the OTLP specification ("JSON Protobuf Encoding"): names in lowerCamelCase, ids in hex, enumerations as numbers, 64-bit
//! integers as strings, other bytes in base64, doubles that JSON has no number for as strings. What is not set is left out.
//!
//! The encoders write protobuf whatever the destination, so that there is one hot path; JSON is made from that for the
//! destinations that ask for it. Unknown fields are left out, as a protobuf reader does.

mod message;
mod scalar;

use self::message::Kind;
pub use self::message::{METRICS_REQUEST, Message, TRACES_REQUEST};

/// Messages inside of messages. Ours reach nine.
const MOST_DEPTH: usize = 32;

/// Why bytes are no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encoded request is no protobuf message that is known")]
pub struct NotProtobuf;

/// One field as it stands in the bytes.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    /// Position in the table of the message.
    index: usize,
    value: Raw<'a>,
}

/// A value by its wire type.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The message `of` in `bytes` as JSON.
///
/// # Errors
/// If `bytes` are not protobuf, or a field has another type than its table says.
pub fn transcode(of: &'static Message, bytes: &[u8]) -> Result<Vec<u8>, NotProtobuf> {
    // Measured on spans: two and a half times as long as protobuf.
    let mut out = Vec::with_capacity(bytes.len() * 5 / 2 + 2);
    let mut fields = Vec::with_capacity(64);
    message(&mut out, &mut fields, of, bytes, 0)?;
    Ok(out)
}

/// `fields` is a stack that all messages share: what lies above its present length is this message's.
fn message<'a>(
    out: &mut Vec<u8>,
    fields: &mut Vec<Field<'a>>,
    of: &'static Message,
    bytes: &'a [u8],
    depth: usize,
) -> Result<(), NotProtobuf> {
    if depth > MOST_DEPTH {
        return Err(NotProtobuf);
    }
    let start = fields.len();
    split(fields, of, bytes)?;
    let mine = fields.get_mut(start..).ok_or(NotProtobuf)?;
    // Elements of a list may stand apart in protobuf, not in JSON. The sort is stable; most often there is nothing to do.
    if !mine.is_sorted_by_key(|field| field.index) {
        mine.sort_by_key(|field| field.index);
    }
    out.push(b'{');
    let mut at = start;
    let mut first = true;
    while let Some(field) = fields.get(at).copied() {
        let table = of.fields.get(field.index).ok_or(NotProtobuf)?;
        let same = fields.get(at..).ok_or(NotProtobuf)?.iter().take_while(|next| next.index == field.index).count();
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(table.name.as_bytes());
        out.extend_from_slice(b"\":");
        if table.repeated {
            out.push(b'[');
            let mut separate = false;
            for index in at..at + same {
                let Some(element) = fields.get(index).copied() else { break };
                list_element(out, fields, table.kind, element.value, &mut separate, depth)?;
            }
            out.push(b']');
        } else {
            // Of a field that is there more than once the last one counts.
            let last = fields.get(at + same - 1).copied().ok_or(NotProtobuf)?;
            value(out, fields, table.kind, last.value, depth)?;
        }
        at += same;
    }
    out.push(b'}');
    fields.truncate(start);
    Ok(())
}

/// One element of a list, or a packed run of them.
fn list_element<'a>(
    out: &mut Vec<u8>,
    fields: &mut Vec<Field<'a>>,
    kind: Kind,
    raw: Raw<'a>,
    separate: &mut bool,
    depth: usize,
) -> Result<(), NotProtobuf> {
    let Raw::Bytes(mut packed) = raw else { return one(out, fields, kind, raw, separate, depth) };
    if !kind.is_packable() {
        return one(out, fields, kind, raw, separate, depth);
    }
    while !packed.is_empty() {
        let element = if kind.is_fixed64() {
            let (head, rest) = packed.split_first_chunk::<8>().ok_or(NotProtobuf)?;
            packed = rest;
            Raw::Fixed64(u64::from_le_bytes(*head))
        } else {
            Raw::Varint(varint(&mut packed)?)
        };
        one(out, fields, kind, element, separate, depth)?;
    }
    Ok(())
}

fn one<'a>(
    out: &mut Vec<u8>,
    fields: &mut Vec<Field<'a>>,
    kind: Kind,
    raw: Raw<'a>,
    separate: &mut bool,
    depth: usize,
) -> Result<(), NotProtobuf> {
    if std::mem::replace(separate, true) {
        out.push(b',');
    }
    value(out, fields, kind, raw, depth)
}

fn value<'a>(
    out: &mut Vec<u8>,
    fields: &mut Vec<Field<'a>>,
    kind: Kind,
    raw: Raw<'a>,
    depth: usize,
) -> Result<(), NotProtobuf> {
    match (kind, raw) {
        (Kind::Message(of), Raw::Bytes(bytes)) => message(out, fields, of(), bytes, depth + 1)?,
        (Kind::Text, Raw::Bytes(bytes)) => scalar::text(out, bytes),
        (Kind::Id, Raw::Bytes(bytes)) => scalar::hex(out, bytes),
        (Kind::Bytes, Raw::Bytes(bytes)) => scalar::base64(out, bytes),
        (Kind::Bool, Raw::Varint(value)) => out.extend_from_slice(if value == 0 { b"false" } else { b"true" }),
        (Kind::Enum, Raw::Varint(value)) => scalar::signed(out, i64::from(value as i32)),
        (Kind::Uint32, Raw::Varint(value)) => scalar::unsigned(out, u64::from(value as u32)),
        (Kind::Fixed32, Raw::Fixed32(value)) => scalar::unsigned(out, u64::from(value)),
        // ZigZag: the sign is the lowest bit.
        (Kind::Sint32, Raw::Varint(value)) => scalar::signed(out, (value >> 1) as i64 ^ -((value & 1) as i64)),
        (Kind::Int64, Raw::Varint(value)) | (Kind::Sfixed64, Raw::Fixed64(value)) => {
            scalar::quoted(out, |out| scalar::signed(out, value as i64));
        }
        (Kind::Uint64, Raw::Varint(value)) | (Kind::Fixed64, Raw::Fixed64(value)) => {
            scalar::quoted(out, |out| scalar::unsigned(out, value));
        }
        (Kind::Double, Raw::Fixed64(bits)) => scalar::double(out, f64::from_bits(bits)),
        _ => return Err(NotProtobuf),
    }
    Ok(())
}

/// Puts the fields of a message onto the stack.
fn split<'a>(fields: &mut Vec<Field<'a>>, of: &Message, mut rest: &'a [u8]) -> Result<(), NotProtobuf> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Raw::Varint(varint(&mut rest)?),
            1 => {
                let (head, after) = rest.split_first_chunk::<8>().ok_or(NotProtobuf)?;
                rest = after;
                Raw::Fixed64(u64::from_le_bytes(*head))
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| NotProtobuf)?;
                let (head, after) = rest.split_at_checked(length).ok_or(NotProtobuf)?;
                rest = after;
                Raw::Bytes(head)
            }
            5 => {
                let (head, after) = rest.split_first_chunk::<4>().ok_or(NotProtobuf)?;
                rest = after;
                Raw::Fixed32(u32::from_le_bytes(*head))
            }
            _ => return Err(NotProtobuf),
        };
        let number = tag >> 3;
        if let Some(index) = of.fields.iter().position(|field| u64::from(field.number) == number) {
            fields.push(Field { index, value });
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, NotProtobuf> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(NotProtobuf)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NotProtobuf)
}

#[cfg(test)]
mod tests;
