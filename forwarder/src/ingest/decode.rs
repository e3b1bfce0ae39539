//! Decoding of batches: everything rare by the generated types, socket events by hand.
//!
//! In: the bytes of a `spantap.v1.Batch`. Out: the batch without its events, and its events one by one, whose heads are
//! slices of the same memory. Events are most of what arrives: decoded by the generated code they took a quarter of this
//! program's time. The generated types are the oracle of the tests.

use bytes::Bytes;
use prost::Message as _;
use spantap_proto::v1;

use super::Invalid;
use crate::model::{EventKind, MonotonicNs, ProcessId, SocketEvent, SocketId};

/// Field number of `Batch.events`.
const EVENTS: u64 = 5;
/// Field number of `Batch.processes`.
const PROCESSES: u64 = 3;
/// Most fields of a batch beside its events, without and with those inside of its processes. An empty one takes two bytes
/// on the wire and some hundred in memory: 4 MiB of them would become half a gigabyte.
const MAX_FIELDS: usize = 65_536;
const MAX_PROCESS_FIELDS: usize = 262_144;
/// Longest head of one event: the most that the kernel side can be asked to capture (`spantap.head_size`).
const MAX_HEAD: usize = 16 * 1024;
/// Wire types (protobuf encoding, "Message structure").
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// Reads protobuf's wire format from a slice; `None` at anything malformed.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        if first < 0x80 {
            self.at += 1;
            return Some(first.into());
        }
        match self.bytes.get(self.at..)?.first_chunk::<8>() {
            Some(next) => match short_varint(u64::from_le_bytes(*next)) {
                Some((value, length)) => {
                    self.at += length;
                    Some(value)
                }
                None => self.long_varint(),
            },
            None => self.long_varint(),
        }
    }

    /// Byte by byte: nine and ten bytes, and where fewer than eight are left.
    #[cold]
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Steps over the tag of field `number`, which is below 16, if that comes next.
    #[inline]
    fn has(&mut self, number: u8, wire_type: u8) -> bool {
        let has = self.bytes.get(self.at) == Some(&(number << 3 | wire_type));
        self.at += usize::from(has);
        has
    }

    /// Reads field `number`, a varint, if it comes next.
    #[inline]
    fn uint(&mut self, number: u8, set: impl FnOnce(u64)) -> Result<(), Invalid> {
        if self.has(number, VARINT) {
            set(self.varint().ok_or(Invalid::Malformed)?);
        }
        Ok(())
    }

    /// The same for a fixed64.
    #[inline]
    fn fixed64(&mut self, number: u8, set: impl FnOnce(u64)) -> Result<(), Invalid> {
        if self.has(number, FIXED64) {
            let value = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(Invalid::Malformed)?;
            self.at += value.len();
            set(u64::from_le_bytes(*value));
        }
        Ok(())
    }

    /// The same for bytes: where they lie.
    #[inline]
    fn bytes(&mut self, number: u8, set: impl FnOnce(std::ops::Range<usize>)) -> Result<(), Invalid> {
        if self.has(number, LENGTH_DELIMITED) {
            set(self.delimited().ok_or(Invalid::Malformed)?);
        }
        Ok(())
    }

    /// Length and place of a length-delimited content.
    #[inline]
    fn delimited(&mut self) -> Option<std::ops::Range<usize>> {
        let length = usize::try_from(self.varint()?).ok()?;
        let start = self.at;
        self.at = start.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(start..self.at)
    }

    /// Passes over the next field. Gives its number and where its content lies, if it is length-delimited.
    #[inline]
    fn skip(&mut self) -> Option<(u64, Option<std::ops::Range<usize>>)> {
        let key = self.varint()?;
        let length = match (key & 7) as u8 {
            VARINT => self.varint().map(|_| 0)?,
            FIXED64 => 8,
            FIXED32 => 4,
            LENGTH_DELIMITED => return Some((key >> 3, Some(self.delimited()?))),
            _ => return None,
        };
        self.at = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some((key >> 3, None))
    }
}

/// The varint at the beginning of these eight bytes, little-endian, and its length; `None` if it is longer. Without a
/// branch for each byte: the seven bits of each are moved together in pairs, fours and eights.
#[inline]
fn short_varint(bytes: u64) -> Option<(u64, usize)> {
    let last = !bytes & 0x8080_8080_8080_8080;
    if last == 0 {
        return None;
    }
    // All bytes up to the first one without a continuation bit.
    let x = bytes & (last ^ last.wrapping_sub(1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let x = (x & 0x007f_007f_007f_007f) | ((x & 0x7f00_7f00_7f00_7f00) >> 1);
    let x = (x & 0x0000_3fff_0000_3fff) | ((x & 0x3fff_0000_3fff_0000) >> 2);
    let x = (x & 0x0000_0000_0fff_ffff) | ((x & 0x0fff_ffff_0000_0000) >> 4);
    Some((x, last.trailing_zeros() as usize / 8 + 1))
}

/// The batch without its events.
///
/// # Errors
/// If the bytes are no batch, or one of more parts than any agent makes.
pub(super) fn without_events(batch: &[u8]) -> Result<v1::Batch, Invalid> {
    let mut rest = Vec::new();
    let mut reader = Reader::new(batch);
    let (mut fields, mut process_fields) = (0, 0);
    while !reader.is_at_end() {
        let start = reader.at;
        let (number, content) = reader.skip().ok_or(Invalid::Malformed)?;
        if number != EVENTS {
            fields += 1;
            if let (PROCESSES, Some(content)) = (number, content) {
                let mut process = Reader::new(batch.get(content).unwrap_or_default());
                while !process.is_at_end() && process_fields <= MAX_PROCESS_FIELDS {
                    process.skip().ok_or(Invalid::Malformed)?;
                    process_fields += 1;
                }
            }
            if fields > MAX_FIELDS || process_fields > MAX_PROCESS_FIELDS {
                return Err(Invalid::Parts);
            }
            rest.extend_from_slice(batch.get(start..reader.at).unwrap_or_default());
        }
    }
    v1::Batch::decode(&*rest).map_err(|_| Invalid::Malformed)
}

/// The events of a batch, in their order.
#[derive(Debug, Default)]
pub struct Events {
    batch: Bytes,
    at: usize,
}

impl Events {
    /// Of the bytes of a batch.
    pub(super) fn new(batch: Bytes) -> Self {
        Self { batch, at: 0 }
    }
}

impl Iterator for Events {
    type Item = Result<SocketEvent, Invalid>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader { bytes: &self.batch, at: self.at };
        let found = loop {
            if reader.is_at_end() {
                break None;
            }
            match reader.skip() {
                Some((EVENTS, Some(range))) => break Some(range),
                Some(_) => {}
                // `without_events` has refused such a batch before.
                None => break None,
            }
        };
        self.at = reader.at;
        found.map(|range| event(&self.batch, range))
    }
}

/// One event, which lies in `range` of `batch`.
#[inline]
fn event(batch: &Bytes, range: std::ops::Range<usize>) -> Result<SocketEvent, Invalid> {
    let base = range.start;
    let bytes = batch.get(range).ok_or(Invalid::Malformed)?;
    let mut reader = Reader::new(bytes);
    let mut event = SocketEvent {
        socket: SocketId(0),
        kind: EventKind::Send,
        time: MonotonicNs(0),
        began: MonotonicNs(0),
        process: ProcessId(0),
        thread: 0,
        offset: 0,
        length: 0,
        opposite_offset: 0,
        queued_ns: 0,
        turn: 0,
        head: Bytes::new(),
        tail: Bytes::new(),
        unreadable: false,
        opaque: false,
        tls: false,
        encrypted: false,
        untied: false,
        blocking: false,
        propagated: false,
    };
    let (mut kind, mut began_before) = (0, 0);
    // The agent writes fields in the order of their numbers and leaves out zeros: one comparison each, all of them easy to
    // predict. Any other order is as valid and takes another round for each step back.
    while !reader.is_at_end() {
        let start = reader.at;
        reader.fixed64(1, |value| event.socket = SocketId(value))?;
        reader.fixed64(2, |value| event.time = MonotonicNs(value))?;
        reader.uint(3, |value| kind = value)?;
        reader.uint(4, |value| event.process = ProcessId(value as u32))?;
        reader.uint(5, |value| event.thread = value as u32)?;
        reader.uint(6, |value| event.offset = value)?;
        reader.uint(7, |value| event.length = value as u32)?;
        reader.uint(8, |value| event.opposite_offset = value)?;
        reader.uint(9, |value| began_before = value)?;
        reader.uint(10, |value| event.queued_ns = value)?;
        reader.uint(11, |value| event.turn = value as u32)?;
        reader.bytes(12, |range| event.head = batch.slice(base + range.start..base + range.end))?;
        reader.bytes(13, |range| event.tail = batch.slice(base + range.start..base + range.end))?;
        reader.uint(14, |flags| {
            event.unreadable = flags & v1::EventFlags::Unreadable as u64 != 0;
            event.opaque = flags & v1::EventFlags::Opaque as u64 != 0;
            event.tls = flags & v1::EventFlags::Tls as u64 != 0;
            event.encrypted = flags & v1::EventFlags::Encrypted as u64 != 0;
            event.untied = flags & v1::EventFlags::Untied as u64 != 0;
            event.blocking = flags & v1::EventFlags::Blocking as u64 != 0;
            event.propagated = flags & v1::EventFlags::Propagated as u64 != 0;
        })?;
        if reader.at == start {
            // Of a later minor version.
            reader.skip().ok_or(Invalid::Malformed)?;
        }
    }
    event.kind = kind_of(kind)?;
    event.began = MonotonicNs(event.time.0.saturating_sub(began_before));
    if event.head.len() > MAX_HEAD || event.head.len() > event.length as usize || event.tail.len() > 8 {
        return Err(Invalid::Head);
    }
    Ok(event)
}

fn kind_of(number: u64) -> Result<EventKind, Invalid> {
    let kind = i32::try_from(number).ok().and_then(|number| v1::EventKind::try_from(number).ok());
    match kind {
        Some(v1::EventKind::Send) => Ok(EventKind::Send),
        Some(v1::EventKind::Receive) => Ok(EventKind::Receive),
        Some(v1::EventKind::EndOfStream) => Ok(EventKind::EndOfStream),
        Some(v1::EventKind::PeerClosed) => Ok(EventKind::PeerClosed),
        Some(v1::EventKind::LocalClosed) => Ok(EventKind::LocalClosed),
        Some(v1::EventKind::Closed) => Ok(EventKind::Closed),
        Some(v1::EventKind::Reset) => Ok(EventKind::Reset),
        Some(v1::EventKind::Connect) => Ok(EventKind::Connect),
        Some(v1::EventKind::Link) => Ok(EventKind::Link),
        Some(v1::EventKind::Unspecified) | None => Err(Invalid::Kind(number)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire_event() -> impl Strategy<Value = v1::SocketEvent> {
        let numbers = (any::<[u64; 4]>(), 1i32..=7, any::<[u32; 3]>(), 0u64..1 << 40, 0i32..4);
        (numbers, proptest::collection::vec(any::<u8>(), 0..300), proptest::collection::vec(any::<u8>(), 0..=8))
            .prop_map(|((wide, kind, narrow, began_before_ns, flags), head, tail)| v1::SocketEvent {
                socket: wide[0],
                time_ns: wide[1],
                kind,
                process: narrow[0],
                thread: narrow[1],
                offset: wide[2],
                length: 300,
                opposite_offset: wide[3],
                began_before_ns,
                queued_ns: began_before_ns / 2,
                turn: narrow[2],
                head: head.into(),
                tail: tail.into(),
                flags,
            })
    }

    proptest! {
        #[test]
        fn what_the_generated_types_write_is_read(
            events in proptest::collection::vec(wire_event(), 0..20), ended in proptest::collection::vec(any::<u32>(), 0..4),
        ) {
            let batch = v1::Batch { sequence: 7, events: events.clone(), ended_processes: ended, ..Default::default() };
            let bytes = Bytes::from(batch.encode_to_vec());
            let rest = without_events(&bytes).unwrap();
            prop_assert_eq!(rest, v1::Batch { events: Vec::new(), ..batch });
            let read: Vec<SocketEvent> = Events::new(bytes).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), events.len());
            for (read, wire) in read.iter().zip(&events) {
                prop_assert_eq!((read.socket.0, read.time.0, read.process.0, read.thread), (wire.socket, wire.time_ns, wire.process, wire.thread));
                prop_assert_eq!((read.offset, read.length, read.opposite_offset), (wire.offset, wire.length, wire.opposite_offset));
                prop_assert_eq!(read.began.0, wire.time_ns.saturating_sub(wire.began_before_ns));
                prop_assert_eq!((read.queued_ns, read.turn), (wire.queued_ns, wire.turn));
                prop_assert_eq!((&read.head, &read.tail), (&wire.head, &wire.tail));
                prop_assert_eq!((read.unreadable, read.opaque), (wire.flags & 1 != 0, wire.flags & 2 != 0));
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = without_events(&bytes);
            for _ in Events::new(bytes) {}
        }
    }

    #[test]
    fn a_batch_cannot_be_much_larger_in_memory() {
        let many = |process| v1::Batch { processes: vec![process; 40_000], ..Default::default() };
        assert!(without_events(&many(v1::Process::default()).encode_to_vec()).is_ok());
        let names = (0..10).map(|n| (n.to_string(), String::new())).collect();
        let words = v1::Process { environment: names, ..Default::default() };
        assert_eq!(without_events(&many(words).encode_to_vec()), Err(Invalid::Parts));
        let batch = v1::Batch { connections: vec![Default::default(); MAX_FIELDS + 1], ..Default::default() };
        assert_eq!(without_events(&batch.encode_to_vec()), Err(Invalid::Parts));
        let batch = v1::Batch { events: vec![Default::default(); MAX_FIELDS + 1], ..Default::default() };
        assert!(without_events(&batch.encode_to_vec()).is_ok(), "events are read one by one");
    }

    #[test]
    fn a_head_longer_than_any_capture_is_refused() {
        for (length, right) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let head = vec![b'a'; length].into();
            let event = v1::SocketEvent { kind: 1, length: length as u32, head, ..Default::default() };
            let batch = v1::Batch { events: vec![event], ..Default::default() };
            assert_eq!(Events::new(batch.encode_to_vec().into()).next().map(|event| event.is_ok()), Some(right));
        }
    }

    #[test]
    fn more_head_than_bytes_is_refused() {
        let event = v1::SocketEvent { kind: 1, length: 2, head: Bytes::from_static(b"abc"), ..Default::default() };
        let batch = v1::Batch { events: vec![event], ..Default::default() };
        assert_eq!(Events::new(batch.encode_to_vec().into()).next(), Some(Err(Invalid::Head)));
    }
}
