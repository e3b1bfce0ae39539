//! The records of the ring buffers: the Rust twin of `probes/event.h`.
//!
//! In: bytes of one ring-buffer item. Out: a typed view of them. `tests/layout.rs` compares every size and offset
//! with what the C compiler laid out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
    pub const CONNECT: u8 = 9;
    pub const LINK: u8 = 10;
    pub const FORK: u8 = 16;
    pub const EXEC: u8 = 17;
    pub const EXIT: u8 = 18;
    pub const LISTEN: u8 = 19;
    pub const TLS: u8 = 20;
    pub const TLS_IN_MEMORY: u8 = 21;
}

/// `enum record_flags`, those that the agent looks at.
pub mod flag {
    pub const ENCRYPTED: u8 = 8;
    pub const UNTIED: u8 = 16;
    pub const PROPAGATED: u8 = 128;
}

/// `LOSS_MAX`: counters in the map `losses`, in the order of `enum loss`.
pub const LOSSES: usize = 7;

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
    pub received_base: u32,
    pub sent_base: u32,
    pub pad: u32,
    pub peer_socket: u64,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Control {
    pub announce: u32,
    pub head_bytes: u32,
    pub tick: u64,
    pub provisional_exec: u32,
    pub wake_bytes: u32,
    pub ask_bytes: u32,
    pub tls: u32,
}

/// `FIELD_BYTES`: what is put into a request.
pub const FIELD_BYTES: usize = 70;

impl SocketEvent {
    /// With [`flag::PROPAGATED`]: the head as it went out, in three parts. The kernel side leaves what was put in behind the
    /// program's own bytes. Of a head that was captured to before that place there is nothing to tell.
    pub fn head_parts<'a>(&self, head: &'a [u8]) -> [&'a [u8]; 3] {
        if self.flags & flag::PROPAGATED == 0 {
            return [head, &[], &[]];
        }
        let own = head.len().saturating_sub(FIELD_BYTES);
        let Some((own, field)) = head.split_at_checked(own) else { return [head, &[], &[]] };
        match own.split_at_checked(self.pad as usize) {
            Some((before, after)) => [before, field, after],
            None => [own, &[], &[]],
        }
    }

    /// With [`flag::ENCRYPTED`]: the process that speaks TLS on the socket, whoever made this call.
    pub fn tls_process(&self) -> u32 {
        self.pad
    }
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
            kind::SEND..=kind::RESET | kind::CONNECT | kind::LINK => {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::mem::{offset_of, size_of};

    use object::{Object as _, ObjectSection as _};
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn the_layout_is_that_of_the_c_compiler() {
        for object in [crate::probes::Object::Typed, crate::probes::Object::Table] {
            the_layout_is_that_of(object.bytes());
        }
    }

    #[test]
    fn a_head_is_told_as_it_went_out() {
        let mut event = SocketEvent::new_zeroed();
        let field = [b'f'; FIELD_BYTES];
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), &field].concat();
        assert_eq!(event.head_parts(&head).concat(), head, "nothing was put in");
        (event.flags, event.pad) = (flag::PROPAGATED, 16);
        let told = event.head_parts(&head).concat();
        assert_eq!(told, [b"GET / HTTP/1.1\r\n".as_slice(), &field, b"Host: a\r\n\r\n"].concat());
        // Captured to before that place; not captured at all; nonsense.
        event.pad = 40;
        assert_eq!(event.head_parts(&head).concat(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(event.head_parts(&field).concat(), b"");
        assert_eq!(event.head_parts(b"x").concat(), b"");
    }

    fn the_layout_is_that_of(object: &[u8]) {
        let object = object::File::parse(object).unwrap();
        let section = object.section_by_name("layout").unwrap();
        let laid_out: Vec<usize> = section
            .data()
            .unwrap()
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()) as usize)
            .collect();
        let expected = [
            size_of::<SocketEvent>(),
            offset_of!(SocketEvent, kind),
            offset_of!(SocketEvent, flags),
            offset_of!(SocketEvent, head_length),
            offset_of!(SocketEvent, pid),
            offset_of!(SocketEvent, process_start),
            offset_of!(SocketEvent, socket),
            offset_of!(SocketEvent, time),
            offset_of!(SocketEvent, offset),
            offset_of!(SocketEvent, opposite_offset),
            offset_of!(SocketEvent, length),
            offset_of!(SocketEvent, thread),
            offset_of!(SocketEvent, turn),
            offset_of!(SocketEvent, began_before),
            offset_of!(SocketEvent, queued),
            offset_of!(SocketEvent, tail),
            offset_of!(SocketEvent, tail_length),
            // The path and its padding follow only for Unix sockets; Rust reads them as what follows.
            size_of::<ConnectionEvent>() + 108 + 4,
            offset_of!(ConnectionEvent, kind),
            offset_of!(ConnectionEvent, family),
            offset_of!(ConnectionEvent, path_length),
            offset_of!(ConnectionEvent, network_namespace),
            offset_of!(ConnectionEvent, socket),
            offset_of!(ConnectionEvent, local_address),
            offset_of!(ConnectionEvent, peer_address),
            offset_of!(ConnectionEvent, local_port),
            offset_of!(ConnectionEvent, peer_port),
            offset_of!(ConnectionEvent, received_base),
            offset_of!(ConnectionEvent, sent_base),
            offset_of!(ConnectionEvent, peer_socket),
            size_of::<ConnectionEvent>(),
            size_of::<ProcessEvent>(),
            offset_of!(ProcessEvent, kind),
            offset_of!(ProcessEvent, pid),
            offset_of!(ProcessEvent, start),
            offset_of!(ProcessEvent, parent),
            offset_of!(ProcessEvent, port),
            offset_of!(ProcessEvent, filename_length),
            offset_of!(ProcessEvent, arguments_length),
            offset_of!(ProcessEvent, filename),
            offset_of!(ProcessEvent, arguments),
            size_of::<Control>(),
            offset_of!(Control, announce),
            offset_of!(Control, head_bytes),
            offset_of!(Control, tick),
            offset_of!(Control, provisional_exec),
            offset_of!(Control, wake_bytes),
            offset_of!(Control, ask_bytes),
            offset_of!(Control, tls),
            HEAD_MAX,
            LOSSES,
            PID_WORDS,
        ];
        assert_eq!(laid_out, expected);
    }

    #[test]
    fn a_record_that_says_more_than_it_has_is_refused() {
        let mut item = [0u8; 96];
        item[0] = kind::SEND;
        item[2] = 8;
        let aligned: Vec<u64> = item.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        let bytes = zerocopy::IntoBytes::as_bytes(&aligned[..]);
        assert!(matches!(SocketRecord::read(bytes), Some(SocketRecord::Event(_, head)) if head.len() == 8));
        assert!(SocketRecord::read(&bytes[..88]).is_none(), "the head is missing");
        assert!(SocketRecord::read(&bytes[..80]).is_none(), "a part of the record is missing");
        assert!(SocketRecord::read(&[]).is_none() && SocketRecord::read(&[200, 0, 0, 0]).is_none());
    }
}
