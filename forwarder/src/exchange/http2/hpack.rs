//! Header blocks of HTTP/2, as far as exports of telemetry show in them.
//!
//! In: blocks of one direction, in order. Out: their fields, each as what it means here.
//!
//! Fields are walked as RFC 7541 section 6 has them, with the table of those that were sent before, so that what is found is a
//! field and no bytes that look like one. Texts are not decoded: whoever compares with a few known ones can as well compare with
//! how those are written by Huffman's code, for which there is one way only (section 5.2). Lengths that only decoding would tell
//! are bounded from above, and where the table might have thrown out entries by that bound, reading ends.

use std::collections::VecDeque;

/// Size of the table until its writer says another (RFC 9113 section 6.5.2); never more here.
const TABLE_BYTES: usize = 4096;
/// Entries of the static table (RFC 7541 appendix A). `:path` stands at 4 and 5.
const STATIC: usize = 61;
/// What an entry counts beside its texts (RFC 7541 section 4.1).
const ENTRY_BYTES: usize = 32;
/// Longest name of the static table.
const STATIC_NAME: usize = 27;

/// Names that matter: as they are, and by Huffman's code.
const NAMES: [(Name, &[u8], &[u8]); 2] = [
    (Name::Path, b":path", b"\xb9\x58\xd3\x3f"),
    (Name::GrpcStatus, b"grpc-status", b"\x9a\xca\xc8\xb2\x12\x34\xda\x8f"),
];
/// Values that matter, likewise.
const VALUES: [(Value, &[u8], &[u8]); 3] = [
    (
        Value::Traces,
        b"/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        b"\x60\xf5\x96\xa4\x96\x82\xd2\x54\xd9\xe9\x7a\xec\x3a\x4e\xb9\x0f\x45\x05\x22\x4f\x62\xe9\xb0\x64\x2a\xfd\xc2\xbe\
          \xfb\x06\x42\xee\x2d\x9d\xcc\x42\xb1\x83\xcd\x67\xb1\x3f",
    ),
    (
        Value::Metrics,
        b"/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        b"\x60\xf5\x96\xa4\x96\x82\xd2\x54\xd9\xe9\x7a\xec\x3a\x4e\xb9\x0f\x45\x05\x22\x4f\x62\xf4\x95\x36\x18\x88\x5f\xb8\
          \x57\xd0\x54\xd8\x62\x23\x71\x6c\xee\x62\x15\x8c\x1e\x6b\x3d\x89",
    ),
    (Value::Zero, b"0", b"\x07"),
];

/// Name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// `:path`
    Path,
    /// `grpc-status`
    GrpcStatus,
    /// Any other.
    Other,
}

/// Value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Path of an export of spans.
    Traces,
    /// Path of an export of metrics.
    Metrics,
    /// `0`
    Zero,
    /// Any other.
    Other,
}

/// A field of a block.
pub(super) type Field = (Name, Value);

/// The block goes on with what is not there, is none, or what it refers to is not known for sure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field that may be referred to.
#[derive(Debug, Clone, Copy)]
struct Entry {
    field: Field,
    /// Bytes of its name, at most.
    name: usize,
    /// What it counts, at most.
    bytes: usize,
}

/// What one direction has put into its table, the newest first. At most 128 entries.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    /// What they count at most.
    bytes: usize,
    /// Size that its writer has set; `None`: the one it begins with.
    limit: Option<usize>,
}

impl Table {
    /// Tells `found` each field of `block`. After an error the next blocks cannot be read; what was told before it is right.
    pub(super) fn read(&mut self, mut block: &[u8], mut found: impl FnMut(Field)) -> Result<(), Unreadable> {
        let block = &mut block;
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = integer(block, 7)?;
                    found(self.entry(index)?.field);
                }
                0x40..=0x7f => {
                    let entry = self.literal(block, 6)?;
                    found(entry.field);
                    self.insert(entry)?;
                }
                0x20..=0x3f => self.resize(integer(block, 5)?)?,
                _ => found(self.literal(block, 4)?.field),
            }
        }
        Ok(())
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    fn entry(&self, index: usize) -> Result<Entry, Unreadable> {
        match index {
            0 => Err(Unreadable),
            1..=STATIC => {
                let name = if matches!(index, 4 | 5) { Name::Path } else { Name::Other };
                Ok(Entry { field: (name, Value::Other), name: STATIC_NAME, bytes: 0 })
            }
            _ => self.entries.get(index - STATIC - 1).copied().ok_or(Unreadable),
        }
    }

    /// A field with a value of its own.
    fn literal(&self, block: &mut &[u8], prefix: u32) -> Result<Entry, Unreadable> {
        let (name, name_bytes) = match integer(block, prefix)? {
            0 => {
                let text = Text::read(block)?;
                (text.among(&NAMES).unwrap_or(Name::Other), text.longest())
            }
            index => {
                let named = self.entry(index)?;
                (named.field.0, named.name)
            }
        };
        let text = Text::read(block)?;
        let bytes = name_bytes.saturating_add(text.longest()).saturating_add(ENTRY_BYTES);
        Ok(Entry { field: (name, text.among(&VALUES).unwrap_or(Value::Other)), name: name_bytes, bytes })
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(TABLE_BYTES)
    }

    fn insert(&mut self, entry: Entry) -> Result<(), Unreadable> {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if self.bytes > self.limit() {
            return Err(Unreadable);
        }
        self.entries.push_front(entry);
        Ok(())
    }

    fn resize(&mut self, limit: usize) -> Result<(), Unreadable> {
        self.limit = Some(limit.min(TABLE_BYTES));
        if limit == 0 {
            self.entries.clear();
            self.bytes = 0;
        }
        if self.bytes > self.limit() { Err(Unreadable) } else { Ok(()) }
    }
}

/// A text as it is written.
struct Text<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

impl<'a> Text<'a> {
    fn read(block: &mut &'a [u8]) -> Result<Self, Unreadable> {
        let huffman = block.first().is_some_and(|first| first & 0x80 != 0);
        let length = integer(block, 7)?;
        let (bytes, rest) = block.split_at_checked(length).ok_or(Unreadable)?;
        *block = rest;
        Ok(Self { huffman, bytes })
    }

    /// How many bytes it is at most: the shortest code has 5 bits.
    fn longest(&self) -> usize {
        if self.huffman { self.bytes.len().saturating_mul(8) / 5 } else { self.bytes.len() }
    }

    fn among<T: Copy>(&self, known: &[(T, &[u8], &[u8])]) -> Option<T> {
        let is = |(_, plain, coded): &&(T, &[u8], &[u8])| self.bytes == if self.huffman { *coded } else { *plain };
        known.iter().find(is).map(|(of, ..)| *of)
    }
}

/// An integer whose first byte has `prefix` bits of it (RFC 7541 section 5.1); none above 2^28 is of use.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Unreadable> {
    let (&first, mut rest) = block.split_first().ok_or(Unreadable)?;
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (&next, after) = rest.split_first().ok_or(Unreadable)?;
            rest = after;
            value += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(Unreadable);
            }
        }
    }
    *block = rest;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &mut Table, block: &[u8]) -> (Vec<Field>, Result<(), Unreadable>) {
        let mut fields = Vec::new();
        let result = table.read(block, |field| fields.push(field));
        (fields, result)
    }

    #[test]
    fn integers_of_the_rfc() {
        // RFC 7541, C.1.1 to C.1.3.
        for (bytes, prefix, value) in [(&[0x0a][..], 5, 10), (&[0x1f, 0x9a, 0x0a], 5, 1337), (&[0x2a], 8, 42)] {
            let mut rest = bytes;
            assert_eq!(integer(&mut rest, prefix), Ok(value));
            assert!(rest.is_empty());
        }
        assert_eq!(integer(&mut &[0x1f, 0x9a][..], 5), Err(Unreadable));
        assert_eq!(integer(&mut &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 5), Err(Unreadable));
    }

    #[test]
    fn requests_of_the_rfc() {
        // C.4.1 to C.4.3: values by Huffman's code, one table.
        let mut table = Table::default();
        let blocks: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ];
        for (block, count, entries) in [(blocks[0], 4, 1), (blocks[1], 5, 2), (blocks[2], 5, 3)] {
            let (fields, result) = read(&mut table, block);
            assert_eq!((fields.len(), result, table.entries.len()), (count, Ok(()), entries));
            assert_eq!(fields.iter().filter(|(name, _)| *name == Name::Path).count(), 1);
        }
        assert!(table.bytes >= 164, "{}: by the RFC it counts 164", table.bytes);
    }

    /// As grpc's C core writes its requests: names and values as they are, the second time by their place in the table.
    #[test]
    fn known_texts_are_known_again() {
        let mut table = Table::default();
        let mut block = b"\x40\x05:path\x3b/opentelemetry.proto.collector.trace.v1.TraceService/Export".to_vec();
        block.extend(b"\x40\x0bgrpc-status\x010\x83\x86");
        let other = (Name::Other, Value::Other);
        let export = (Name::Path, Value::Traces);
        assert_eq!(read(&mut table, &block), (vec![export, (Name::GrpcStatus, Value::Zero), other, other], Ok(())));
        // The older one has the higher number.
        assert_eq!(read(&mut table, b"\xbf\xbe"), (vec![export, (Name::GrpcStatus, Value::Zero)], Ok(())));
        // A name by its place, with another value, kept or not.
        for first in [b"\x7e", b"\x0f"] {
            let mut again = first.to_vec();
            again.extend(if first == b"\x0f" { &b"\x2f"[..] } else { b"" });
            again.extend(b"\x0213");
            assert_eq!(read(&mut table, &again), (vec![(Name::GrpcStatus, Value::Other)], Ok(())), "{again:?}");
        }
    }

    #[test]
    fn what_is_not_sure_is_not_read() {
        let cases: [(&[u8], usize); 8] = [
            (b"\x80", 0),                 // no such index
            (b"\xbe", 0),                 // nothing was inserted
            (b"\x04\x05/", 0),            // cut in a value
            (b"\x83\x04", 1),             // cut before one
            (b"\x82\x40\x85\xff", 1),     // cut in a name
            (b"\x7f\xff\xff\xff\xff", 0), // an integer without end
            (b"\x3f", 0),                 // of the table's size
            (b"\x82\xff\x80\x80\x80\x01", 1),
        ];
        for (block, before) in cases {
            let (fields, result) = read(&mut Table::default(), block);
            assert_eq!((fields.len(), result), (before, Err(Unreadable)), "{block:?}");
        }
        // More than the table surely holds.
        let mut table = Table::default();
        let mut big = b"\x40\x01a\x7f\xa1\x1e".to_vec();
        big.extend([b'x'; 4000]);
        assert_eq!(read(&mut table, &big), (vec![(Name::Other, Value::Other)], Ok(())));
        assert_eq!(read(&mut table, b"\x40\x01a\x40").1, Err(Unreadable));
        assert_eq!(read(&mut table, b"\x40\x01a\x14xxxxxxxxxxxxxxxxxxxx").1, Ok(()));
        assert_eq!(read(&mut table, &big).1, Err(Unreadable), "the first may be out");
        // Emptied, and smaller from now on.
        let mut table = Table::default();
        assert_eq!(read(&mut table, b"\x40\x01a\x01b\x20\xbe").1, Err(Unreadable));
        let mut table = Table::default();
        assert_eq!(read(&mut table, b"\x40\x01a\x01b\x3f\x01\x40\x01a\x01b").1, Err(Unreadable));
    }
}
