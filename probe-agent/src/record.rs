//! The records of the ring buffers: the Rust twin of `probes/event.h`.
//!
//! In: bytes of one ring-buffer item. Out: a typed view of them. `tests/layout.rs` compares every size and offset
//! with what the C compiler laid out.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes of a head at most (`HEAD_MAX`).
pub const HEAD_MAX: usize = 4096;
/// Words of the bitmap of processes (`PID_WORDS`); 64 pids each.
pub const PID_WORDS: usize = 65536;

/// `enum record_kind`.
pub mod kind {
    pub const SEND: u8 = 1;
    // 2 to 6: the other kinds of socket events, passed on as they are.
    pub const RESET: u8 = 7;
    pub const CONNECTION: u8 = 8;
    pub const FORK: u8 = 16;
    pub const EXEC: u8 = 17;
    pub const EXIT: u8 = 18;
    pub const LISTEN: u8 = 19;
}

/// `LOSS_MAX`: counters in the map `losses`, in the order of `enum loss`.
pub const LOSSES: usize = 5;

/// `struct socket_event`; `head_length` bytes follow.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SocketEvent {
    pub kind: u8,
    pub flags: u8,
    pub head_length: u16,
    pub pid: u32,
    pub process_start: u64,
    pub socket: u64,
    pub time: u64,
    pub offset: u64,
    pub opposite_offset: u64,
    pub length: u32,
    pub thread: u32,
    pub turn: u32,
    pub began_before: u32,
    pub queued: u64,
    pub tail: [u8; 8],
    pub tail_length: u32,
    pub pad: u32,
}

/// `struct connection_event`; arrives without `path` for TCP.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConnectionEvent {
    pub kind: u8,
    pub family: u8,
    pub path_length: u16,
    pub network_namespace: u32,
    pub socket: u64,
    pub local_address: [u8; 16],
    pub peer_address: [u8; 16],
    pub local_port: u16,
    pub peer_port: u16,
    pub pad: u32,
}

/// `struct process_event`.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ProcessEvent {
    pub kind: u8,
    pub pad: [u8; 3],
    pub pid: u32,
    pub start: u64,
    pub parent: u32,
    pub port: u16,
    pub pad2: u16,
    pub filename_length: u32,
    pub arguments_length: u32,
    pub filename: [u8; 256],
    pub arguments: [u8; 512],
}

/// `struct control`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    pub announce: u32,
    pub head_bytes: u32,
    pub tick: u64,
    pub provisional_exec: u32,
    pub wake_bytes: u32,
}

/// One item of the ring buffer `socket_events`.
pub enum SocketRecord<'a> {
    /// A transfer or a change of state, and the captured head.
    Event(&'a SocketEvent, &'a [u8]),
    /// A connection, and the path of a Unix socket (empty for TCP).
    Connection(&'a ConnectionEvent, &'a [u8]),
}

impl<'a> SocketRecord<'a> {
    /// Reads one item; `None` for anything the kernel side does not write.
    pub fn read(item: &'a [u8]) -> Option<Self> {
        match *item.first()? {
            kind::SEND..=kind::RESET => {
                let (event, rest) = SocketEvent::ref_from_prefix(item).ok()?;
                Some(Self::Event(event, rest.get(..usize::from(event.head_length))?))
            }
            kind::CONNECTION => {
                let (event, rest) = ConnectionEvent::ref_from_prefix(item).ok()?;
                Some(Self::Connection(event, rest.get(..usize::from(event.path_length))?))
            }
            _ => None,
        }
    }
}

impl ProcessEvent {
    /// Reads one item of the ring buffer `process_events`.
    pub fn read(item: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(item).ok().map(|(event, _)| event)
    }

    /// Path given to exec; empty if it could not be read.
    pub fn filename(&self) -> &[u8] {
        self.filename.get(..self.filename_length as usize).unwrap_or_default()
    }

    /// Arguments of the new program, each ended by NUL; the last may be cut.
    pub fn arguments(&self) -> &[u8] {
        self.arguments.get(..self.arguments_length as usize).unwrap_or_default()
    }
}
