//! The beginning of a message: is it a request, a response, or something else?
//!
//! In: the bytes where a message should begin. Out: calls to `pairing` for heads; [`Mode::Head`] for heads of which
//! more must come; losses for what is no HTTP.

use bytes::BytesMut;

use super::{
    Sink,
    connection::{Connection, Context, Phase},
    head::{self, Head},
    stream::{Direction, HeadBuffer, MAX_HEAD, Mode, Origin, Piece},
};
use crate::{
    loss::Reason,
    model::{EventKind, ProcessRef, SocketEvent},
};

/// Starts of turns at which no message begins until a connection is said to speak something else. One is not
/// enough: a connection may be picked up in the middle of a body.
const MISSES: u8 = 2;

/// Circumstances of a message's beginning.
pub(super) struct Beginning<'a> {
    /// The event in which the bytes at hand end.
    pub(super) event: &'a SocketEvent,
    /// Who moved them.
    pub(super) process: &'a ProcessRef,
    /// Facts of the message's first byte, where that came in an earlier event.
    pub(super) origin: Option<Origin>,
    /// The first message after a loss: if it is none, that was to be expected.
    pub(super) resync: bool,
    /// Take what is there of the head: it is too long to wait for its end.
    pub(super) cut: bool,
    /// Bytes of the other direction that had been seen before this event.
    pub(super) floor: u64,
}

impl Beginning<'_> {
    /// Facts of the message's first byte, `piece` being the bytes where it begins.
    pub(super) fn origin(&self, piece: &Piece) -> Origin {
        self.origin.clone().unwrap_or_else(|| Origin {
            process: self.process.clone(),
            thread: self.event.thread,
            blocking: self.event.blocking,
            propagated: self.event.propagated,
            began: self.event.began,
            time: self.event.time,
            // Told of the event's first byte; a later one may have come later.
            queued_ns: if piece.at_start { self.event.queued_ns } else { 0 },
            opposite: self.opposite(),
        })
    }

    /// Bytes of the other direction that had surely been moved when this message began. A send is recorded when its
    /// call returns, and by then there may be an answer.
    pub(super) fn opposite(&self) -> u64 {
        let told = self.event.opposite_offset;
        let now = if self.event.kind == EventKind::Send { told.min(self.floor) } else { told };
        self.origin.as_ref().map_or(now, |origin| origin.opposite)
    }
}

/// What the first bytes of a connection show before any HTTP.
enum Preface {
    /// Nothing special.
    None,
    /// More bytes must come to tell.
    Partial,
    /// A PROXY protocol header of so many bytes: HTTP may follow.
    Proxy(u64),
    /// Not to be read, for this reason.
    Refused(Reason),
}

fn preface(bytes: &[u8], first: bool) -> Preface {
    /// Beginning of the connection preface (RFC 9113 section 3.4).
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
    const PROXY2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    /// Longest line of the PROXY protocol, version 1, CRLF included.
    const PROXY1_MAX: usize = 107;
    // A TLS record: type change_cipher_spec to application_data, version 3.0 to 3.4 (RFC 8446 section 5.1).
    match bytes {
        [0x14..=0x17, 3, 0..=4, ..] => return Preface::Refused(Reason::Encrypted),
        [0x14..=0x17] | [0x14..=0x17, 3] => return Preface::Partial,
        _ => {}
    }
    if bytes.starts_with(HTTP2) {
        return Preface::Refused(Reason::Http2);
    }
    if !bytes.is_empty() && HTTP2.starts_with(bytes) {
        return Preface::Partial;
    }
    if !first {
        return Preface::None;
    }
    if bytes.starts_with(PROXY2) {
        return match (bytes.get(14), bytes.get(15)) {
            (Some(&high), Some(&low)) => Preface::Proxy(16 + u64::from(u16::from_be_bytes([high, low]))),
            _ => Preface::Partial,
        };
    }
    if bytes.starts_with(b"PROXY ") {
        return match memchr::memchr(b'\n', bytes.get(..PROXY1_MAX).unwrap_or(bytes)) {
            Some(end) => Preface::Proxy(end as u64 + 1),
            None if bytes.len() < PROXY1_MAX => Preface::Partial,
            None => Preface::None,
        };
    }
    if !bytes.is_empty() && PROXY2.starts_with(bytes) { Preface::Partial } else { Preface::None }
}

impl Connection {
    /// Begins the message at `piece`, consuming what is known to belong to it. `false`: none begins here (counted
    /// if that is a loss) and nothing was consumed but blank lines.
    pub(super) fn begin<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &mut Piece,
        beginning: &Beginning<'_>,
        ctx: &mut Context<'_, S>,
    ) -> bool {
        if self.request_direction.is_none() {
            match preface(&piece.bytes, piece.offset == 0) {
                Preface::None => {}
                Preface::Partial if piece.is_cut() || beginning.cut => {}
                Preface::Partial => {
                    self.keep(direction, piece, beginning, false);
                    return true;
                }
                Preface::Proxy(length) if length > piece.left && !beginning.cut => {
                    self.keep(direction, piece, beginning, false);
                    return true;
                }
                Preface::Proxy(length) => {
                    piece.advance(length);
                    self.stream_mut(direction).mode = Mode::Start;
                    return true;
                }
                Preface::Refused(reason) => {
                    if reason == Reason::Http2 {
                        self.begin_http2(direction, piece, beginning.process, ctx);
                    }
                    self.refuse(reason, ctx);
                    return true;
                }
            }
        }
        // RFC 9112 section 2.2: empty lines before a message are to be ignored. Not where it is only hoped that one begins.
        while !beginning.resync && matches!(piece.bytes.first(), Some(b'\r' | b'\n')) {
            piece.advance(1);
        }
        if piece.left == 0 {
            return true;
        }
        let cut = piece.is_cut() || beginning.cut;
        let mut partial = None;
        if self.request_direction != Some(direction.other()) {
            match head::request(&piece.bytes, cut) {
                Head::Whole(head, length) => {
                    self.request_begins(direction, head, length, piece, beginning, ctx);
                    return true;
                }
                Head::Partial { first_line } => partial = Some(first_line),
                Head::Invalid => {}
            }
        }
        if self.request_direction != Some(direction) {
            match head::response(&piece.bytes, cut) {
                Head::Whole(head, length) => {
                    self.response_begins(direction, &head, length, piece, beginning, ctx);
                    return true;
                }
                Head::Partial { first_line } => partial = partial.max(Some(first_line)),
                Head::Invalid => {}
            }
        }
        match partial {
            // The bytes that would tell were not captured. Nothing is known to be wrong, they are just not seen.
            Some(_) if cut && self.request_direction.is_some() => {
                let turn = piece.at_start.then_some(beginning.event.turn);
                self.lost(direction, piece.offset.saturating_add(piece.left), turn, ctx);
                false
            }
            Some(_) if piece.bytes.is_empty() => false,
            Some(first_line) if !cut => {
                self.keep(direction, piece, beginning, first_line);
                true
            }
            _ => {
                self.no_message(direction, beginning.resync, ctx);
                false
            }
        }
    }

    /// Keeps a head that is not whole yet; consumes `piece`.
    fn keep(&mut self, direction: Direction, piece: &mut Piece, beginning: &Beginning<'_>, first_line: bool) {
        let buffer = HeadBuffer {
            bytes: BytesMut::from(piece.bytes.as_ref()),
            offset: piece.offset,
            origin: beginning.origin(piece),
            first_line,
            resync: beginning.resync,
        };
        self.stream_mut(direction).mode = Mode::Head(Box::new(buffer));
        piece.advance(piece.left);
    }

    /// Goes on with a head that has begun: `piece` becomes all bytes from the head's first on.
    pub(super) fn continue_head<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &mut Piece,
        event: &SocketEvent,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) {
        let stream = self.stream_mut(direction);
        let Mode::Head(mut buffer) = std::mem::replace(&mut stream.mode, Mode::Lost) else { return };
        let before = buffer.bytes.len();
        let room = MAX_HEAD.saturating_sub(before);
        buffer.bytes.extend_from_slice(piece.bytes.get(..room).unwrap_or(&piece.bytes));
        let cut = buffer.bytes.len() >= MAX_HEAD;
        if buffer.first_line && !cut && !piece.is_cut() && !head::has_end(&buffer.bytes, before.saturating_sub(3)) {
            piece.advance(piece.left);
            stream.mode = Mode::Head(buffer);
            return;
        }
        let HeadBuffer { bytes, offset, origin, resync, .. } = *buffer;
        let left = piece.left.saturating_add(before as u64);
        *piece = Piece { bytes: bytes.freeze(), offset, left, at_start: false };
        let beginning = Beginning { event, process, origin: Some(origin), resync, cut, floor: self.floor };
        if !self.begin(direction, piece, &beginning, ctx) {
            self.stream_mut(direction).mode = Mode::Lost;
            piece.advance(piece.left);
        }
    }

    /// What stands where a message should begin is none.
    pub(super) fn no_message<S: Sink>(&mut self, direction: Direction, resync: bool, ctx: &mut Context<'_, S>) {
        match self.request_direction {
            None => {
                self.misses = self.misses.saturating_add(1);
                if self.misses >= MISSES {
                    self.refuse(Reason::ProtocolUnknown, ctx);
                }
            }
            Some(_) if resync => {}
            Some(requests) if requests == direction => {
                // Whoever reads it answers 400: that response belongs to this loss.
                ctx.sink.loss(Reason::ParseError, 1);
                self.owed = self.owed.saturating_add(1);
                self.gap = true;
            }
            // Without an open request this belongs to nothing (a body after a response that must have none, say).
            Some(_) => {
                if !self.queue.is_empty() {
                    self.lose_front(Reason::ParseError, ctx);
                    self.owed = self.owed.saturating_add(u32::from(self.pipelined));
                    self.doubt(u64::MAX, ctx);
                }
            }
        }
    }

    /// Takes the part of a request head that came as a request, if its first line did: a response to it, or the
    /// connection's end, has come first. `false`: there is none.
    pub(super) fn take_partial_request<S: Sink>(&mut self, ctx: &mut Context<'_, S>) -> bool {
        let Some(requests) = self.request_direction.filter(|_| self.phase == Phase::Http) else { return false };
        let stream = self.stream_mut(requests);
        if !matches!(&stream.mode, Mode::Head(buffer) if buffer.first_line) {
            return false;
        }
        let Mode::Head(buffer) = std::mem::replace(&mut stream.mode, Mode::Lost) else { return false };
        let HeadBuffer { bytes, offset, origin, .. } = *buffer;
        let bytes = bytes.freeze();
        let Head::Whole(head, _) = head::request(&bytes, true) else { return false };
        self.accept(requests, head, true, offset, origin, ctx);
        true
    }
}
