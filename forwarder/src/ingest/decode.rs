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

/// Reads protobuf's wire format from a slice; `None` at anything malformed.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Value of a field.
enum Value {
    Number(u64),
    /// Where the bytes of a length-delimited field lie.
    Bytes(std::ops::Range<usize>),
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
        self.at += 1;
        if first < 0x80 {
            return Some(first.into());
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Number and value of the next field.
    #[inline]
    fn field(&mut self) -> Option<(u64, Value)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                let bytes = self.bytes.get(self.at..self.at.checked_add(8)?)?;
                self.at += 8;
                Value::Number(u64::from_le_bytes(bytes.try_into().ok()?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let range = self.at..end;
                self.at = end;
                Value::Bytes(range)
            }
            5 => {
                let bytes = self.bytes.get(self.at..self.at.checked_add(4)?)?;
                self.at += 4;
                Value::Number(u32::from_le_bytes(bytes.try_into().ok()?).into())
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

/// The batch without its events.
///
/// # Errors
/// If the bytes are no batch.
pub(super) fn without_events(batch: &[u8]) -> Result<v1::Batch, Invalid> {
    let mut rest = Vec::new();
    let mut reader = Reader::new(batch);
    while !reader.is_at_end() {
        let start = reader.at;
        let (number, _) = reader.field().ok_or(Invalid::Malformed)?;
        if number != EVENTS {
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
            match reader.field() {
                Some((EVENTS, Value::Bytes(range))) => break Some(range),
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
    };
    let (mut kind, mut began_before) = (0, 0);
    while !reader.is_at_end() {
        match reader.field().ok_or(Invalid::Malformed)? {
            (1, Value::Number(number)) => event.socket = SocketId(number),
            (2, Value::Number(number)) => event.time = MonotonicNs(number),
            (3, Value::Number(number)) => kind = number,
            (4, Value::Number(number)) => event.process = ProcessId(number as u32),
            (5, Value::Number(number)) => event.thread = number as u32,
            (6, Value::Number(number)) => event.offset = number,
            (7, Value::Number(number)) => event.length = number as u32,
            (8, Value::Number(number)) => event.opposite_offset = number,
            (9, Value::Number(number)) => began_before = number,
            (10, Value::Number(number)) => event.queued_ns = number,
            (11, Value::Number(number)) => event.turn = number as u32,
            (12, Value::Bytes(range)) => event.head = batch.slice(base + range.start..base + range.end),
            (13, Value::Bytes(range)) => event.tail = batch.slice(base + range.start..base + range.end),
            (14, Value::Number(flags)) => {
                event.unreadable = flags & v1::EventFlags::Unreadable as u64 != 0;
                event.opaque = flags & v1::EventFlags::Opaque as u64 != 0;
            }
            // Fields of a later minor version.
            _ => {}
        }
    }
    event.kind = kind_of(kind)?;
    event.began = MonotonicNs(event.time.0.saturating_sub(began_before));
    if event.head.len() > event.length as usize || event.tail.len() > 8 {
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
    fn more_head_than_bytes_is_refused() {
        let event = v1::SocketEvent { kind: 1, length: 2, head: Bytes::from_static(b"abc"), ..Default::default() };
        let batch = v1::Batch { events: vec![event], ..Default::default() };
        assert_eq!(Events::new(batch.encode_to_vec().into()).next(), Some(Err(Invalid::Head)));
    }
}
