//! Scalars of OTLP/JSON.
//!
//! In: values of protobuf. Out: their JSON, appended.

use std::io::Write;

use ::base64::{Engine, engine::general_purpose::STANDARD};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A string (RFC 8259, section 7). Bytes that are not UTF-8 are replaced: nothing else could be in JSON.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let whole = String::from_utf8_lossy(bytes);
    let mut rest = whole.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, after) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((special, after)) = after.split_first() else { break };
        match special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                push_hex(out, *control);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// An id: hexadecimal, lower case.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    bytes.iter().for_each(|byte| push_hex(out, *byte));
    out.push(b'"');
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        out.push(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0'));
    }
}

/// Bytes that are no id: base64 (RFC 4648, section 4).
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    quoted(out, |out| out.extend_from_slice(STANDARD.encode(bytes).as_bytes()));
}

/// A number.
pub(super) fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// A number with its sign.
pub(super) fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    unsigned(out, value.unsigned_abs());
}

/// The shortest number that reads as the same double; a name in quotes where JSON has none.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    // Writing to memory does not fail.
    let _ = if value.is_nan() {
        out.write_all(b"\"NaN\"")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })
    } else if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
}

/// What `write` writes, in quotes.
pub(super) fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}
