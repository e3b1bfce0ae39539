//! What is read of HTTP/2: that a program exports telemetry by gRPC, or takes what others export.
//!
//! In: the bytes of a connection that begins with HTTP/2's preface, as far as they were captured. Out: exports that were asked
//! for and, where they are the program's own, taken.
//!
//! Frames are walked from the first byte of each direction on (RFC 9113 section 4.1), and of them only HEADERS are read (`hpack`).
//! Bytes that nobody saw are passed over inside of other frames; anywhere else they end the reading of their direction, for where
//! a frame begins is not guessed. The kernel side ends it after some turns.

mod hpack;

use spantap_config::Signal;

use self::hpack::{Field, Name, Table, Unreadable, Value};
use super::{
    Side, Sink,
    connection::{Connection, Context},
    stream::{Direction, Piece},
};
use crate::model::ProcessRef;

/// What a client's bytes begin with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a header block that are kept until its end. The kernel side captures no more of a turn.
const MAX_BLOCK: usize = 4096;
/// Exports whose response is waited for, and responses that came before the request was told. One is usual.
const MAX_OPEN: usize = 8;

const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection that speaks HTTP/2 from its beginning on.
#[derive(Debug)]
pub(super) struct Http2 {
    requests: Direction,
    asking: Reader,
    answering: Reader,
    /// Requests to export: their stream, of what, and who sent it.
    asked: Vec<(u32, Signal, ProcessRef)>,
    /// Streams whose response has ended with status 0 and on which no export was seen (yet).
    taken: Vec<u32>,
}

impl Http2 {
    /// Requests go in direction `requests`; of the other one everything is still to come if `whole`.
    pub(super) fn new(requests: Direction, offset: u64, whole: bool) -> Self {
        Self {
            requests,
            asking: Reader::new(At::Preface(0), offset),
            answering: Reader::new(if whole { At::FRAME } else { At::Lost }, 0),
            asked: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let lists = self.asked.capacity() * size_of::<(u32, Signal, ProcessRef)>() + self.taken.capacity() * 4;
        size_of::<Self>() + self.asking.bytes() + self.answering.bytes() + lists
    }

    /// Whether nothing more can be found.
    pub(super) fn is_over(&self) -> bool {
        match self.requests {
            Direction::Received => self.asking.is_lost(),
            Direction::Sent => self.answering.is_lost() || self.asking.is_lost() && self.asked.is_empty(),
        }
    }

    /// Reads `piece`, which `process` has moved.
    pub(super) fn read(&mut self, direction: Direction, piece: &Piece, process: &ProcessRef, sink: &mut impl Sink) {
        if direction == self.requests {
            let Self { asking, asked, taken, .. } = self;
            asking.feed(piece, |stream, (name, value)| {
                let signal = match (name, value) {
                    (Name::Path, Value::Traces) => Signal::Traces,
                    (Name::Path, Value::Metrics) => Signal::Metrics,
                    _ => return,
                };
                if direction == Direction::Received {
                    sink.exported(Side::Server, signal, process);
                } else if let Some(at) = taken.iter().position(|&known| known == stream) {
                    taken.swap_remove(at);
                    sink.exported(Side::Client, signal, process);
                } else if asked.len() < MAX_OPEN {
                    asked.push((stream, signal, process.clone()));
                }
            });
        } else if self.requests == Direction::Sent {
            let Self { answering, asked, taken, .. } = self;
            answering.feed(piece, |stream, (name, value)| {
                if name != Name::GrpcStatus {
                    return;
                }
                let of = asked.iter().position(|(known, ..)| *known == stream).map(|at| asked.swap_remove(at));
                match of {
                    Some((_, signal, process)) if value == Value::Zero => {
                        sink.exported(Side::Client, signal, &process);
                    }
                    // Its request may be told later: a send is told when its call returns.
                    None if value == Value::Zero => {
                        if taken.len() >= MAX_OPEN {
                            taken.remove(0);
                        }
                        taken.push(stream);
                    }
                    _ => {}
                }
            });
        }
    }
}

impl Connection {
    /// HTTP/2's preface stands at `piece`.
    pub(super) fn begin_http2<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &Piece,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) {
        let whole = self.stream(direction.other()).seen == 0;
        self.http2 = Some(Box::new(Http2::new(direction, piece.offset, whole)));
        self.read_http2(direction, piece, process, ctx);
    }

    /// Reads what comes after it.
    pub(super) fn read_http2<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &Piece,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) {
        let Some(http2) = &mut self.http2 else { return };
        http2.read(direction, piece, process, ctx.sink);
        if http2.is_over() {
            self.http2 = None;
        }
    }
}

/// Where the next byte of a direction stands.
#[derive(Debug)]
enum At {
    /// In the preface, of which so many bytes were there.
    Preface(usize),
    /// In the head of a frame, likewise.
    Frame { head: [u8; 9], have: usize },
    /// In a frame that is not read.
    Other { left: usize },
    /// In a frame with a part of a header block.
    Block { left: usize },
    /// Not known.
    Lost,
}

impl At {
    const FRAME: Self = Self::Frame { head: [0; 9], have: 0 };
}

/// One direction.
#[derive(Debug)]
struct Reader {
    at: At,
    /// Stream offset of the next byte.
    next: u64,
    /// Stream and flags of the header block under way; its HEADERS frame's length.
    stream: u32,
    flags: u8,
    length: usize,
    /// It is at a frame that it has to go on with.
    continues: bool,
    /// What there is of the block; while its HEADERS frame lasts, of that frame.
    block: Vec<u8>,
    table: Table,
}

impl Reader {
    fn new(at: At, next: u64) -> Self {
        Self { at, next, stream: 0, flags: 0, length: 0, continues: false, block: Vec::new(), table: Table::default() }
    }

    fn bytes(&self) -> usize {
        self.block.capacity() + self.table.bytes()
    }

    fn is_lost(&self) -> bool {
        matches!(self.at, At::Lost)
    }

    /// Tells `found` the fields in `piece`, with their streams.
    fn feed(&mut self, piece: &Piece, mut found: impl FnMut(u32, Field)) {
        let known = self.next.saturating_sub(piece.offset);
        let Some(left) = piece.left.checked_sub(known).filter(|left| *left > 0 && !self.is_lost()) else { return };
        self.pass(piece.offset.saturating_sub(self.next), &mut found);
        let bytes = usize::try_from(known).ok().and_then(|known| piece.bytes.get(known..)).unwrap_or_default();
        if self.take(bytes, &mut found).is_err() {
            self.give_up();
        }
        self.pass(left.saturating_sub(bytes.len() as u64), &mut found);
        self.next = piece.offset.saturating_add(piece.left);
    }

    /// `count` bytes were not captured.
    fn pass(&mut self, count: u64, found: &mut impl FnMut(u32, Field)) {
        if count == 0 {
            return;
        }
        match &mut self.at {
            At::Other { left } if count <= *left as u64 => {
                *left -= count as usize;
                if *left == 0 {
                    self.at = At::FRAME;
                }
            }
            At::Block { .. } => {
                // What is there of it is right; the path is among its first fields.
                if !self.continues {
                    self.strip();
                }
                self.decode(found).ok();
                self.give_up();
            }
            _ => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        *self = Self::new(At::Lost, self.next);
    }

    fn take(&mut self, mut bytes: &[u8], found: &mut impl FnMut(u32, Field)) -> Result<(), Unreadable> {
        while let Some(&first) = bytes.first() {
            let used = match &mut self.at {
                At::Lost => return Ok(()),
                At::Preface(have) => {
                    if PREFACE.get(*have) != Some(&first) {
                        return Err(Unreadable);
                    }
                    *have += 1;
                    if *have == PREFACE.len() {
                        self.at = At::FRAME;
                    }
                    1
                }
                At::Frame { head, have } => {
                    if let Some(place) = head.get_mut(*have) {
                        *place = first;
                    }
                    *have += 1;
                    if *have == head.len() {
                        let head = *head;
                        self.frame(head, found)?;
                    }
                    1
                }
                At::Other { left } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.at = At::FRAME;
                    }
                    used
                }
                At::Block { left } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    let over = *left == 0;
                    let part = bytes.get(..used).unwrap_or_default();
                    let room = MAX_BLOCK.saturating_sub(self.block.len());
                    self.block.extend_from_slice(part.get(..room).unwrap_or(part));
                    if part.len() > room {
                        self.pass(1, found);
                        return Ok(());
                    }
                    if over {
                        self.frame_over(found)?;
                    }
                    used
                }
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// A frame begins.
    fn frame(&mut self, head: [u8; 9], found: &mut impl FnMut(u32, Field)) -> Result<(), Unreadable> {
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let left = u32::from_be_bytes([0, high, middle, low]) as usize;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        match kind {
            // Nothing else may stand between the parts of a block.
            CONTINUATION if self.continues && stream == self.stream => self.flags = flags,
            _ if self.continues => return Err(Unreadable),
            HEADERS if stream != 0 => {
                (self.stream, self.flags, self.length) = (stream, flags, left);
                self.block.clear();
            }
            // One that gRPC has no use for, and its block changes the table.
            HEADERS | CONTINUATION | PUSH_PROMISE => return Err(Unreadable),
            _ => {
                self.at = if left == 0 { At::FRAME } else { At::Other { left } };
                return Ok(());
            }
        }
        self.at = At::Block { left };
        if left == 0 { self.frame_over(found) } else { Ok(()) }
    }

    /// A frame with a part of a block is over.
    fn frame_over(&mut self, found: &mut impl FnMut(u32, Field)) -> Result<(), Unreadable> {
        self.at = At::FRAME;
        if !std::mem::replace(&mut self.continues, true) {
            self.strip();
        }
        if self.flags & END_HEADERS == 0 {
            return Ok(());
        }
        self.continues = false;
        self.decode(found)?;
        self.block = Vec::new();
        Ok(())
    }

    fn decode(&mut self, found: &mut impl FnMut(u32, Field)) -> Result<(), Unreadable> {
        let stream = self.stream;
        self.table.read(&self.block, |field| found(stream, field))
    }

    /// Takes away what stands around the block's part in a HEADERS frame (RFC 9113 section 6.2).
    fn strip(&mut self) {
        let padded = self.flags & PADDED != 0;
        let padding = self.block.first().filter(|_| padded).map_or(0, |&padding| usize::from(padding));
        let before = usize::from(padded) + if self.flags & PRIORITY != 0 { 5 } else { 0 };
        self.block.truncate(self.length.saturating_sub(padding));
        self.block.drain(..before.min(self.block.len()));
    }
}
