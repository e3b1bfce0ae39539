//! Writing half of the protobuf wire format, as far as OTLP needs it.
//!
//! In: field numbers (as tag bytes: `number << 3 | wire type`) and values. Out: canonical bytes appended to a `Vec`.
//! All field numbers of OTLP that are written are below 16, so a tag is one byte.

use crate::value::Value;

/// Length in bytes of `value` as a varint, 1..=10.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; `| 1` gives zero its one byte.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the tag and length of a length-delimited field.
#[inline]
pub(crate) fn header(out: &mut Vec<u8>, tag: u8, len: usize) {
    if len < 0x80 {
        out.extend_from_slice(&[tag, len as u8]);
    } else {
        out.push(tag);
        varint(out, len as u64);
    }
}

/// Length of a length-delimited field of `len` bytes, with tag and length.
#[inline]
pub(crate) const fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Bytes up to which [`put`] does without a call.
const FEW: usize = 64;

/// Appends bytes that are mostly few, as names and values of attributes are, by moves of a fixed size each: musl's `memcpy` takes
/// some 25 ns even for these, and a request with two spans is written in fifty such pieces.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: &[u8]) {
    if value.len() > FEW {
        out.extend_from_slice(value);
        return;
    }
    out.reserve(value.len());
    while let Some((part, rest)) = value.split_first_chunk::<16>() {
        out.extend_from_slice(part);
        value = rest;
    }
    if let Some((part, rest)) = value.split_first_chunk::<8>() {
        out.extend_from_slice(part);
        value = rest;
    }
    if let Some((part, rest)) = value.split_first_chunk::<4>() {
        out.extend_from_slice(part);
        value = rest;
    }
    if let Some((part, rest)) = value.split_first_chunk::<2>() {
        out.extend_from_slice(part);
        value = rest;
    }
    if let Some(last) = value.first() {
        out.push(*last);
    }
}

/// Appends a length-delimited field (string, bytes, or an encoded message).
#[inline]
pub(crate) fn bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    header(out, tag, value.len());
    put(out, value);
}

/// Appends a fixed64 or double field.
#[inline]
pub(crate) fn fixed64(out: &mut Vec<u8>, tag: u8, value: u64) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    out.extend_from_slice(&[tag, a, b, c, d, e, f, g, h]);
}

/// Appends a varint field.
#[inline]
pub(crate) fn uint(out: &mut Vec<u8>, tag: u8, value: u64) {
    out.push(tag);
    varint(out, value);
}

/// Appends a message whose content `write` makes. For cold paths: the content is copied once.
pub(crate) fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, tag, &inner);
}

/// Appends the beginning of a `KeyValue` up to its `AnyValue`'s content of `content` bytes.
#[inline]
fn key_value(out: &mut Vec<u8>, tag: u8, key: &str, content: usize) {
    let total = field_len(key.len()) + field_len(content);
    if total < 0x80 {
        out.extend_from_slice(&[tag, total as u8, 0x0a, key.len() as u8]);
        put(out, key.as_bytes());
        out.extend_from_slice(&[0x12, content as u8]);
    } else {
        header(out, tag, total);
        bytes(out, 0x0a, key.as_bytes());
        header(out, 0x12, content);
    }
}

/// Appends a string attribute as field `tag`.
#[inline]
pub(crate) fn attr_str(out: &mut Vec<u8>, tag: u8, key: &str, value: &str) {
    key_value(out, tag, key, field_len(value.len()));
    bytes(out, 0x0a, value.as_bytes());
}

/// Appends a string attribute whose value is `parts` one after the other.
pub(crate) fn attr_parts(out: &mut Vec<u8>, tag: u8, key: &str, parts: &[&str]) {
    let len = parts.iter().map(|p| p.len()).sum();
    key_value(out, tag, key, field_len(len));
    header(out, 0x0a, len);
    for part in parts {
        put(out, part.as_bytes());
    }
}

/// Appends an attribute that is a list of strings.
pub(crate) fn attr_list(out: &mut Vec<u8>, tag: u8, key: &str, values: &[&str]) {
    // ArrayValue{values: [AnyValue{string_value}]}
    let len = values.iter().map(|value| field_len(field_len(value.len()))).sum();
    key_value(out, tag, key, field_len(len));
    header(out, 0x2a, len);
    for value in values {
        header(out, 0x0a, field_len(value.len()));
        bytes(out, 0x0a, value.as_bytes());
    }
}

/// Appends an integer attribute.
#[inline]
pub(crate) fn attr_int(out: &mut Vec<u8>, tag: u8, key: &str, value: i64) {
    let value = value as u64; // two's complement, as int64 is encoded
    key_value(out, tag, key, 1 + varint_len(value));
    uint(out, 0x18, value);
}

/// Appends a double attribute.
#[inline]
pub(crate) fn attr_double(out: &mut Vec<u8>, tag: u8, key: &str, value: f64) {
    key_value(out, tag, key, 9);
    fixed64(out, 0x21, value.to_bits());
}

/// Appends a boolean attribute.
pub(crate) fn attr_bool(out: &mut Vec<u8>, tag: u8, key: &str, value: bool) {
    key_value(out, tag, key, 2);
    out.extend_from_slice(&[0x10, u8::from(value)]);
}

/// Appends an attribute of any kind.
pub(crate) fn attr(out: &mut Vec<u8>, tag: u8, key: &str, value: &Value<'_>) {
    match value {
        Value::Str(v) => attr_str(out, tag, key, v),
        Value::Int(v) => attr_int(out, tag, key, *v),
        Value::Bool(v) => attr_bool(out, tag, key, *v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_arrive() {
        for len in 0..=255 {
            let bytes: Vec<u8> = (0..len).collect();
            let mut out = vec![7];
            put(&mut out, &bytes);
            assert_eq!(out, [&[7], bytes.as_slice()].concat(), "{len}");
        }
    }

    #[test]
    fn varint_lengths_agree_with_what_is_written() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(prost::encoding::decode_varint(&mut out.as_slice()).ok(), Some(value));
            }
        }
    }
}
