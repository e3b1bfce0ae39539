//! Encoding of `spantap.v1.Batch` straight from the kernel's records: one copy, no allocation for an event.
//!
//! In: records and facts, in order. Out: the bytes of an `AgentMessage` that holds the batch. The generated types
//! decode the same bytes in the tests.

use bytes::Bytes;
use spantap_proto::v1;

use crate::record::{ConnectionEvent, SocketEvent};

/// Bytes kept free in front for the tag and length of the enclosing message.
const FRONT: usize = 12;

/// A batch under construction.
#[derive(Debug)]
pub struct BatchWriter {
    buffer: Vec<u8>,
    events: u64,
}

const AF_INET6: u8 = 10;
const AF_UNIX: u8 = 1;

impl BatchWriter {
    /// An empty batch with room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(capacity + FRONT);
        buffer.resize(FRONT, 0);
        Self { buffer, events: 0 }
    }

    /// Appends everything of another batch.
    pub fn append(&mut self, other: Self) {
        self.buffer.extend_from_slice(other.buffer.get(FRONT..).unwrap_or_default());
        self.events += other.events;
    }

    /// Encoded bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len() - FRONT
    }

    /// Whether nothing but a header would be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Socket events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Appends one socket event of process `process`.
    pub fn event(&mut self, event: &SocketEvent, head: &[u8], process: u32) {
        let buffer = &mut self.buffer;
        buffer.reserve(160 + head.len());
        buffer.push(5 << 3 | 2);
        // A length below 16,384 fits two bytes of varint (the first always with its continuation bit).
        let length_at = buffer.len();
        buffer.extend_from_slice(&[0, 0]);
        fixed64(buffer, 1, event.socket);
        fixed64(buffer, 2, event.time);
        uint(buffer, 3, u64::from(event.kind));
        uint(buffer, 4, u64::from(process));
        uint(buffer, 5, u64::from(event.thread));
        uint(buffer, 6, event.offset);
        uint(buffer, 7, u64::from(event.length));
        uint(buffer, 8, event.opposite_offset);
        uint(buffer, 9, u64::from(event.began_before));
        uint(buffer, 10, event.queued);
        uint(buffer, 11, u64::from(event.turn));
        parts_field(buffer, 12, event.head_parts(head));
        bytes_field(buffer, 13, event.tail.get(..event.tail_length as usize).unwrap_or_default());
        uint(buffer, 14, u64::from(event.flags));
        let length = buffer.len() - length_at - 2;
        if let Some([low, high]) = buffer.get_mut(length_at..length_at + 2) {
            *low = (length & 0x7f) as u8 | 0x80;
            *high = (length >> 7) as u8;
        }
        self.events += 1;
    }

    /// Appends a connection; `path` only for Unix sockets.
    pub fn connection(&mut self, event: &ConnectionEvent, path: &[u8]) {
        let mut connection = v1::Connection {
            socket: event.socket,
            transport: v1::Transport::Tcp.into(),
            local_port: u32::from(event.local_port),
            peer_port: u32::from(event.peer_port),
            network_namespace: event.network_namespace,
            received_base: Some(event.received_base),
            sent_base: Some(event.sent_base),
            ..Default::default()
        };
        match event.family {
            AF_UNIX => {
                connection.peer_socket = event.peer_socket;
                connection.transport = v1::Transport::Unix.into();
                (connection.local_port, connection.peer_port) = (0, 0);
                (connection.received_base, connection.sent_base) = (None, None);
                connection.unix_path = unix_path(path);
            }
            AF_INET6 => {
                connection.local_address = unmapped(&event.local_address);
                connection.peer_address = unmapped(&event.peer_address);
            }
            _ => {
                connection.local_address = event.local_address.get(..4).unwrap_or_default().to_vec();
                connection.peer_address = event.peer_address.get(..4).unwrap_or_default().to_vec();
            }
        }
        self.message(4, &connection);
    }

    /// Appends a process.
    pub fn process(&mut self, process: &v1::Process) {
        self.message(3, process);
    }

    /// Appends the end of a process.
    pub fn process_ended(&mut self, id: u32) {
        uint(&mut self.buffer, 6, u64::from(id));
    }

    /// Appends that a process goes on unobserved.
    pub fn process_unobserved(&mut self, id: u32) {
        tag(&mut self.buffer, 10, 0);
        varint(&mut self.buffer, u64::from(id));
    }

    /// Appends a cumulative loss counter.
    pub fn loss(&mut self, reason: v1::LossReason, count: u64) {
        self.message(7, &v1::Loss { reason: reason.into(), count });
    }

    /// Appends what a process uses.
    pub fn usage(&mut self, usage: &v1::ProcessUsage) {
        self.message(9, usage);
    }

    /// Appends the agent's own figures.
    pub fn status(&mut self, status: &v1::AgentStatus) {
        self.message(8, status);
    }

    fn message<M: prost::Message>(&mut self, field: u32, message: &M) {
        tag(&mut self.buffer, field, 2);
        varint(&mut self.buffer, message.encoded_len() as u64);
        // Writing to a Vec cannot run out of room.
        let _ = message.encode(&mut self.buffer);
    }

    /// Ends the batch: the bytes of an `AgentMessage { batch }`.
    pub fn finish(mut self, sequence: u64, clock: v1::ClockAnchor) -> Bytes {
        fixed64(&mut self.buffer, 1, sequence);
        self.message(2, &clock);
        let length = self.len() as u64;
        let mut front = Vec::with_capacity(FRONT);
        tag(&mut front, 2, 2);
        varint(&mut front, length);
        let start = FRONT - front.len();
        if let Some(place) = self.buffer.get_mut(start..FRONT) {
            place.copy_from_slice(&front);
        }
        Bytes::from(self.buffer).slice(start..)
    }
}

/// IPv4-mapped IPv6 addresses as the four bytes that they stand for (RFC 4291 section 2.5.5.2).
fn unmapped(address: &[u8; 16]) -> Vec<u8> {
    match address.strip_prefix(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) {
        Some(four) => four.to_vec(),
        None => address.to_vec(),
    }
}

/// A leading NUL is the abstract namespace and becomes `@`; otherwise the path ends at the first NUL.
fn unix_path(path: &[u8]) -> String {
    match path {
        [] => String::new(),
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        path => String::from_utf8_lossy(path.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned(),
    }
}

fn tag(buffer: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(buffer, u64::from(field << 3 | wire_type));
}

fn varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn uint(buffer: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(buffer, field, 0);
        varint(buffer, value);
    }
}

fn fixed64(buffer: &mut Vec<u8>, field: u32, value: u64) {
    tag(buffer, field, 1);
    buffer.extend_from_slice(&value.to_le_bytes());
}

fn parts_field(buffer: &mut Vec<u8>, field: u32, parts: [&[u8]; 3]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length != 0 {
        tag(buffer, field, 2);
        varint(buffer, length as u64);
        for part in parts {
            buffer.extend_from_slice(part);
        }
    }
}

fn bytes_field(buffer: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        tag(buffer, field, 2);
        varint(buffer, value.len() as u64);
        buffer.extend_from_slice(value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use spantap_proto::v1::agent_message::Body;

    use super::*;

    fn decode(bytes: Bytes) -> v1::Batch {
        match v1::AgentMessage::decode(bytes).unwrap().body.unwrap() {
            Body::Batch(batch) => v1::Batch::decode(batch).unwrap(),
            Body::Hello(_) => panic!("not a batch"),
        }
    }

    proptest! {
        #[test]
        fn generated_types_read_what_is_written(
            kind in 1u8..=7, flags in 0u8..4, numbers in any::<[u64; 5]>(), small in any::<[u32; 4]>(),
            head in proptest::collection::vec(any::<u8>(), 0..4096), tail in proptest::collection::vec(any::<u8>(), 0..=8),
            process in any::<u32>(), sequence in any::<u64>(),
        ) {
            let mut event = SocketEvent {
                kind, flags, head_length: head.len() as u16, pid: 1, process_start: 2,
                socket: numbers[0], time: numbers[1], offset: numbers[2], opposite_offset: numbers[3], queued: numbers[4],
                length: small[0], thread: small[1], turn: small[2], began_before: small[3],
                tail: [0; 8], tail_length: tail.len() as u32, pad: 0,
            };
            event.tail[..tail.len()].copy_from_slice(&tail);
            let mut writer = BatchWriter::new(16);
            writer.event(&event, &head, process);
            writer.event(&event, &[], process);
            writer.loss(v1::LossReason::ProbeSkipped, 7);
            let clock = v1::ClockAnchor { monotonic_ns: 1, realtime_ns: 2 };
            let batch = decode(writer.finish(sequence, clock));
            prop_assert_eq!(batch.sequence, sequence);
            prop_assert_eq!(batch.clock, Some(clock));
            prop_assert_eq!(batch.losses.len(), 1);
            prop_assert_eq!(batch.events.len(), 2);
            let read = &batch.events[0];
            prop_assert_eq!(
                (read.socket, read.time_ns, read.kind, read.process, read.thread, read.offset, read.length),
                (event.socket, event.time, i32::from(kind), process, event.thread, event.offset, event.length)
            );
            prop_assert_eq!(
                (read.opposite_offset, read.began_before_ns, read.queued_ns, read.turn, read.flags),
                (event.opposite_offset, u64::from(event.began_before), event.queued, event.turn, i32::from(flags))
            );
            prop_assert_eq!(&read.head[..], &head[..]);
            prop_assert_eq!(&read.tail[..], &tail[..]);
            prop_assert!(batch.events[1].head.is_empty());
        }
    }

    #[test]
    fn addresses_are_told_in_their_shortest_form() {
        let mut event = ConnectionEvent {
            kind: 8,
            family: AF_INET6,
            path_length: 0,
            network_namespace: 5,
            socket: 9,
            local_address: [0; 16],
            peer_address: [0; 16],
            local_port: 80,
            peer_port: 4000,
            received_base: 0,
            sent_base: 77,
            pad: 0,
            peer_socket: 10,
        };
        event.local_address[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        event.peer_address[15] = 1;
        let mut writer = BatchWriter::new(16);
        writer.connection(&event, b"");
        event.family = AF_UNIX;
        writer.connection(&event, b"/run/a.sock\0\0");
        writer.connection(&event, b"\0abstract");
        let batch = decode(writer.finish(1, v1::ClockAnchor::default()));
        assert_eq!(batch.connections[0].local_address, [127, 0, 0, 1]);
        assert_eq!(batch.connections[0].peer_address.len(), 16);
        assert_eq!((batch.connections[0].received_base, batch.connections[0].sent_base), (Some(0), Some(77)));
        assert_eq!((batch.connections[0].peer_socket, batch.connections[1].peer_socket), (0, 10));
        assert_eq!(batch.connections[1].received_base, None);
        assert_eq!(batch.connections[1].unix_path, "/run/a.sock");
        assert_eq!(batch.connections[2].unix_path, "@abstract");
    }
}
