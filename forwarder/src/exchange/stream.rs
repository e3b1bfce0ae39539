//! One direction of a connection: how far it was read and what the next byte belongs to.
//!
//! In: nothing by itself. Out: the state that `connection` moves along; [`Piece`], bytes of one event.

use bytes::{Buf, Bytes, BytesMut};

use super::{chunked::Chunks, fields::TransferEncoding};
use crate::model::{EventKind, MonotonicNs, ProcessRef, SocketEvent};

/// Longest head that is put together from several events; of a longer one the beginning is used. Ingest and kernel
/// side capture no more than this of one message.
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// Direction of bytes, as the observed process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// It read them.
    Received,
    /// It wrote them.
    Sent,
}

impl Direction {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Direction::Received => Direction::Sent,
            Direction::Sent => Direction::Received,
        }
    }

    /// Direction of an event that moved bytes.
    pub(super) fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Receive => Some(Direction::Received),
            EventKind::Send => Some(Direction::Sent),
            _ => None,
        }
    }
}

/// What the next byte of a direction belongs to.
#[derive(Debug)]
pub(super) enum Mode {
    /// A message begins here.
    Start,
    /// A head that has begun.
    Head(Box<HeadBuffer>),
    /// A body of known length.
    Body {
        /// Bytes of it still to come; not 0.
        left: u64,
    },
    /// A chunked body.
    Chunked(Chunks),
    /// A message whose end its framing does not tell (any more).
    Unframed(Unframed),
    /// A response that ends with the connection.
    UntilClose,
    /// Unknown: wait for the start of a turn.
    Lost,
}

/// How the end of a message without usable framing shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unframed {
    /// Last bytes seen, as far as they were captured.
    pub(super) recent: Recent,
    /// Chunked: it ends with a last chunk, and only with one.
    pub(super) chunked: bool,
    /// It does not end before this stream offset (its `Content-Length` was seen, the end of its head was not).
    pub(super) not_before: u64,
}

impl Unframed {
    /// At the end of a head; `not_before` as for the field.
    pub(super) fn new(coding: &TransferEncoding, not_before: u64) -> Self {
        Unframed { recent: Recent::default(), chunked: *coding == TransferEncoding::Chunked, not_before }
    }

    /// A chunked body that can be followed no further.
    pub(super) fn chunked() -> Self {
        Unframed { recent: Recent::default(), chunked: true, not_before: 0 }
    }
}

/// The last up to 8 bytes of a direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    bytes: [u8; 8],
    known: u8,
}

impl Recent {
    /// Takes the end of a piece of `length` bytes, of which `end` are the last ones that were captured.
    pub(super) fn push(&mut self, end: &[u8], length: u64) {
        let whole = u64::try_from(end.len()).is_ok_and(|n| n >= length);
        if end.is_empty() || !whole {
            self.known = 0;
        }
        for &byte in end.iter().skip(end.len().saturating_sub(8)) {
            self.bytes.rotate_left(1);
            if let Some(last) = self.bytes.last_mut() {
                *last = byte;
            }
            self.known = (self.known + 1).min(8);
        }
    }

    /// `Some(whether the bytes end so)`; `None` if too few are known to tell.
    pub(super) fn ends_with(&self, suffix: &[u8]) -> Option<bool> {
        let known = self.bytes.get(8 - usize::from(self.known.min(8))..).unwrap_or_default();
        if known.ends_with(suffix) {
            return Some(true);
        }
        if known.is_empty() || suffix.ends_with(known) { None } else { Some(false) }
    }

    /// Whether a chunked message may end here: with its last chunk.
    pub(super) fn last_chunk(&self) -> Option<bool> {
        match self.ends_with(b"\n0\r\n\r\n") {
            // The whole event was `0\r\n\r\n`, and what stood before it was not captured.
            None => self.ends_with(b"0\r\n\r\n"),
            told => told,
        }
    }
}

/// Facts of the event with a message's first byte.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The process that moved it.
    pub(super) process: ProcessRef,
    /// The thread that moved it.
    pub(super) thread: u32,
    /// Its event's `blocking`.
    pub(super) blocking: bool,
    /// Its event's `propagated`.
    pub(super) propagated: bool,
    /// Its event's `began`.
    pub(super) began: MonotonicNs,
    /// Its event's `time`.
    pub(super) time: MonotonicNs,
    /// How long it had lain in the kernel; 0 if not known.
    pub(super) queued_ns: u64,
    /// Bytes of the other direction moved by then.
    pub(super) opposite: u64,
}

/// A head that came in several events.
#[derive(Debug)]
pub(super) struct HeadBuffer {
    /// What there is of it.
    pub(super) bytes: BytesMut,
    /// Stream offset of its first byte.
    pub(super) offset: u64,
    /// Where it began.
    pub(super) origin: Origin,
    /// The first line is there and valid: only the end is waited for.
    pub(super) first_line: bool,
    /// It would be the first message after a loss: if it is none, that is no news.
    pub(super) resync: bool,
}

/// Where a turn ended, as the events of the other direction tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// There was none since the last event of this direction.
    Untold,
    /// The other direction spoke when exactly the bytes that were seen had been moved.
    Here,
    /// It spoke when others had: calls overlap, and turns do not tell.
    Elsewhere,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Stream {
    /// Stream offset up to which it was read.
    pub(super) seen: u64,
    /// What comes there.
    pub(super) mode: Mode,
    /// Bytes of the current body so far; `None` once framing was lost.
    pub(super) body: Option<u64>,
    /// Time of the last byte read.
    pub(super) last: MonotonicNs,
    /// Turn of the last event read.
    pub(super) turn: u32,
    /// Whether `seen` is where a turn ended.
    pub(super) boundary: Boundary,
    /// The bytes right before `seen` came in an event, so that `last` is their time.
    pub(super) end_seen: bool,
    /// Stream offset up to which any message may have been missed.
    pub(super) lost_to: u64,
}

impl Stream {
    /// A direction of which nothing was seen, at stream offset `seen`.
    pub(super) fn new(seen: u64) -> Self {
        let mode = if seen == 0 { Mode::Start } else { Mode::Lost };
        Stream {
            seen,
            mode,
            body: None,
            last: MonotonicNs(0),
            turn: 0,
            boundary: Boundary::Here,
            end_seen: false,
            lost_to: seen,
        }
    }

    /// Whether `missing` next bytes are surely inside of the current body.
    pub(super) fn would_skip(&self, missing: u64) -> bool {
        match self.mode {
            Mode::Body { left } | Mode::Chunked(Chunks::Data { left }) => missing <= left,
            _ => false,
        }
    }

    /// The other direction spoke when `moved` bytes of this one had been moved.
    pub(super) fn answered_at(&mut self, moved: u64) {
        if moved == self.seen {
            self.boundary = Boundary::Here;
        } else if self.boundary == Boundary::Untold {
            self.boundary = Boundary::Elsewhere;
        }
    }

    /// Whether an event at stream offset `offset`, in `turn`, surely begins a turn.
    pub(super) fn begins_turn(&self, offset: u64, turn: u32) -> bool {
        let told = match self.boundary {
            Boundary::Here => true,
            Boundary::Elsewhere => false,
            Boundary::Untold => turn != self.turn,
        };
        told && offset == self.seen
    }

    /// Bytes kept of a head that is not whole.
    pub(super) fn bytes(&self) -> usize {
        match &self.mode {
            Mode::Head(head) => size_of::<HeadBuffer>() + head.bytes.capacity(),
            _ => 0,
        }
    }

    /// Counts body bytes.
    pub(super) fn count(&mut self, bytes: u64) {
        self.body = self.body.map(|sum| sum.saturating_add(bytes));
    }
}

/// Bytes of one event (or of a head's earlier events and this one) that were not consumed yet.
#[derive(Debug)]
pub(super) struct Piece {
    /// Those that were captured; never more than `left`.
    pub(super) bytes: Bytes,
    /// Stream offset of the first.
    pub(super) offset: u64,
    /// How many there are.
    pub(super) left: u64,
    /// The event's first byte is the piece's first byte.
    pub(super) at_start: bool,
}

impl Piece {
    /// All bytes of `event`.
    pub(super) fn of(event: &SocketEvent) -> Self {
        let length = event.length as usize;
        // A short end part may be all of the event.
        let source =
            if event.head.len() < event.tail.len() && event.tail.len() == length { &event.tail } else { &event.head };
        let bytes = if source.len() > length { source.slice(..length) } else { source.clone() };
        Piece { bytes, offset: event.offset, left: u64::from(event.length), at_start: true }
    }

    /// Consumes `n` bytes.
    pub(super) fn advance(&mut self, n: u64) {
        let n = n.min(self.left);
        let visible = usize::try_from(n).map_or(self.bytes.len(), |n| n.min(self.bytes.len()));
        self.bytes.advance(visible);
        self.offset = self.offset.saturating_add(n);
        self.left -= n;
        self.at_start &= n == 0;
    }

    /// Whether bytes follow that were not captured.
    pub(super) fn is_cut(&self) -> bool {
        self.left > self.bytes.len() as u64
    }

    /// The last captured bytes, up to the end of the event. Some of them may be consumed already.
    pub(super) fn end<'a>(&'a self, event: &'a SocketEvent) -> &'a [u8] {
        if self.is_cut() {
            &event.tail
        } else {
            self.bytes.get(self.bytes.len().saturating_sub(8)..).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_bytes_tell_a_last_chunk_or_that_they_cannot() {
        let mut recent = Recent::default();
        assert_eq!(recent.last_chunk(), None);
        recent.push(b"\r\n0\r\n\r\n", 4000);
        assert_eq!(recent.last_chunk(), Some(true));
        recent.push(b"data\r\n", 4000);
        assert_eq!(recent.last_chunk(), Some(false));
        recent.push(b"0\r\n", 3);
        assert_eq!(recent.last_chunk(), Some(false));
        recent.push(b"\r\n", 2);
        assert_eq!(recent.last_chunk(), Some(true));
        recent.push(b"", 100);
        assert_eq!(recent.last_chunk(), None);
        recent.push(b"0\r\n\r\n", 5);
        assert_eq!(recent.last_chunk(), Some(true));
        recent.push(b"30\r\n\r\n", 4000);
        assert_eq!(recent.last_chunk(), Some(false));
    }
}
