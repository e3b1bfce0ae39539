//! Bytes of one event, read in their place.
//!
//! In: an event whose turn it is. Out: the states of its direction, moved along; message ends.

use super::{
    Sink,
    chunked::Progress,
    connection::{Connection, Context, Phase},
    line::{self, Line},
    message::Beginning,
    stream::{Boundary, Direction, Mode, Piece, Unframed},
};
use crate::{
    loss::Reason,
    model::{Endpoints, MonotonicNs, ProcessRef, SocketEvent},
};

/// How long a direction must be silent before a response whose end showed counts as over, nanoseconds.
const QUIET: u64 = 200_000_000;
/// The same where only the silence speaks: the response's head was too long to see how its body is framed.
const LONG_QUIET: u64 = 1_000_000_000;
/// After so long without a byte, a response on a Unix socket that ends with its connection is given up: the
/// serving side does not learn of the end.
const UNIX_QUIET: u64 = 5_000_000_000;

impl Connection {
    /// Reads `event`, before which `missing` turns are missing.
    pub(super) fn apply<S: Sink>(
        &mut self,
        direction: Direction,
        event: &SocketEvent,
        missing: u32,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) {
        if self.phase == Phase::Ignored {
            return self.read_http2(direction, &Piece::of(event), process, ctx);
        }
        if missing > 0 {
            self.note_missing(missing, direction.other(), ctx);
        }
        let other = direction.other();
        self.floor = self.stream(other).seen;
        // What waits there has come; what is before that has not.
        let waits_at = self.waits_at(other);
        let moved = event.opposite_offset.min(waits_at.unwrap_or(u64::MAX));
        if moved > self.stream(other).seen {
            self.hole(other, moved, None, ctx);
        }
        if waits_at.is_some() {
            // It spoke when more had been moved than was seen.
            self.stream_mut(direction).answered_at(u64::MAX);
        }
        let unclassified = self.request_direction.is_none();
        let opposite = self.stream_mut(other);
        opposite.answered_at(event.opposite_offset);
        // Nobody is answered in the middle of a first line: what looked like the beginning of one was none.
        if unclassified && matches!(&opposite.mode, Mode::Head(head) if !head.first_line) {
            opposite.mode = Mode::Lost;
            self.no_message(other, true, ctx);
        }

        let stream = self.stream(direction);
        let reliable = stream.begins_turn(event.offset, event.turn);
        if event.offset > stream.seen {
            self.hole(direction, event.offset, Some(event.turn), ctx);
        }
        let stream = self.stream_mut(direction);
        let mut piece = Piece::of(event);
        piece.advance(stream.seen.saturating_sub(event.offset));
        if piece.left == 0 {
            return;
        }
        self.feed(direction, &mut piece, event, process, reliable, ctx);
        let stream = self.stream_mut(direction);
        stream.last = event.time;
        stream.end_seen = true;
        stream.seen = event.offset.saturating_add(u64::from(event.length));
        stream.turn = event.turn;
        stream.boundary = Boundary::Untold;
        if self.request_direction == Some(other) {
            self.doubt_orphan(ctx);
            self.schedule_quiet(ctx.now);
        }
    }

    fn feed<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &mut Piece,
        event: &SocketEvent,
        process: &ProcessRef,
        reliable: bool,
        ctx: &mut Context<'_, S>,
    ) {
        while piece.left > 0 {
            match self.phase {
                Phase::Ignored => return,
                Phase::Upgraded { checked } => {
                    if !checked {
                        self.after_upgrade(direction, piece, ctx);
                    }
                    return;
                }
                _ => {}
            }
            let trusted = reliable && piece.at_start;
            let over = trusted && self.may_be_over(direction, piece, ctx);
            let stream = self.stream_mut(direction);
            match &mut stream.mode {
                Mode::Start => self.start(direction, piece, event, process, false, ctx),
                Mode::Lost if trusted => self.start(direction, piece, event, process, true, ctx),
                Mode::Unframed(_) if over => {
                    self.end_by_response(direction, ctx);
                    self.start(direction, piece, event, process, true, ctx);
                }
                Mode::Lost => {
                    if self.request_direction == Some(direction.other()) && is_continue(&piece.bytes) {
                        self.expect_body(direction.other(), event.turn, ctx);
                    }
                    self.pass_over(direction, piece, ctx);
                }
                Mode::UntilClose => {
                    stream.count(piece.left);
                    piece.advance(piece.left);
                }
                Mode::Unframed(state) => {
                    state.recent.push(piece.end(event), piece.left);
                    // Another request, or what waited for a 100: not to be told apart, if the answer was not seen.
                    let requests = self.request_direction == Some(direction);
                    self.unseen = self.unseen.saturating_add(u32::from(requests && trusted && self.is_doubtful(ctx)));
                    self.pass_over(direction, piece, ctx);
                }
                Mode::Head(_) => self.continue_head(direction, piece, event, process, ctx),
                Mode::Body { left } => {
                    let taken = (*left).min(piece.left);
                    *left -= taken;
                    let done = *left == 0;
                    stream.count(taken);
                    piece.advance(taken);
                    if done {
                        self.message_done(direction, event.time, ctx);
                    }
                }
                Mode::Chunked(chunks) => {
                    let fed = chunks.feed(&piece.bytes, piece.left);
                    stream.count(fed.data);
                    piece.advance(fed.used);
                    match fed.state {
                        Progress::More => {}
                        Progress::Done => self.message_done(direction, event.time, ctx),
                        Progress::Lost => {
                            stream.body = None;
                            stream.mode = Mode::Unframed(Unframed::chunked());
                            self.gap |= self.request_direction == Some(direction);
                        }
                    }
                }
            }
        }
    }

    /// Begins a message, or finds that none begins here.
    fn start<S: Sink>(
        &mut self,
        direction: Direction,
        piece: &mut Piece,
        event: &SocketEvent,
        process: &ProcessRef,
        resync: bool,
        ctx: &mut Context<'_, S>,
    ) {
        let beginning = Beginning { event, process, origin: None, resync, cut: false, floor: self.floor };
        if !self.begin(direction, piece, &beginning, ctx) {
            // What could not be told from the end of the message before is its continuation.
            match &mut self.stream_mut(direction).mode {
                Mode::Unframed(state) => state.recent.push(piece.end(event), piece.left),
                mode => *mode = Mode::Lost,
            }
            self.pass_over(direction, piece, ctx);
        }
    }

    /// Passes over bytes that cannot be told apart: any message may have been among them.
    fn pass_over<S: Sink>(&mut self, direction: Direction, piece: &mut Piece, ctx: &mut Context<'_, S>) {
        piece.advance(piece.left);
        match self.request_direction {
            Some(requests) if requests == direction => self.gap = true,
            Some(_) => self.doubt(piece.offset, ctx),
            None => {}
        }
    }

    /// A response without a request may be one to HEAD: what is taken for its body may be other responses.
    fn doubt_orphan<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        if let Some(requests) = self.request_direction.filter(|_| self.orphan && !self.pipelined) {
            self.doubt(self.stream(requests.other()).seen, ctx);
        }
    }

    /// A message ended with the last byte consumed.
    pub(super) fn message_done<S: Sink>(&mut self, direction: Direction, at: MonotonicNs, ctx: &mut Context<'_, S>) {
        if self.request_direction == Some(direction) {
            self.request_done(ctx);
        } else {
            self.response_done(at, ctx);
        }
    }

    /// Bytes of the switched-to protocol: WebSocket is no loss, HTTP/2 is.
    fn after_upgrade<S: Sink>(&mut self, direction: Direction, piece: &Piece, ctx: &mut Context<'_, S>) {
        if self.request_direction == Some(direction) {
            self.phase = Phase::Upgraded { checked: true };
            if piece.bytes.starts_with(b"PRI * HTTP/2.0\r\n") {
                self.refuse(Reason::Http2, ctx);
            }
        }
    }

    /// Whether a message without usable framing, in `direction`, can be over although nothing said so: the other
    /// side has spoken since. A request is only over once it is answered; a response only if this is another one.
    fn may_be_over<S: Sink>(&self, direction: Direction, piece: &Piece, ctx: &Context<'_, S>) -> bool {
        match self.stream(direction).mode {
            Mode::Unframed(state) if self.request_direction == Some(direction) => {
                // Perhaps answered unseen: its body was under way, so it did not wait for a 100.
                self.is_answered(ctx) || state.chunked && self.is_doubtful(ctx)
            }
            Mode::Unframed(_) => {
                const BEGINNING: &[u8] = b"HTTP/1.";
                let start = piece.bytes.get(..BEGINNING.len()).unwrap_or(&piece.bytes);
                !start.is_empty() && BEGINNING.starts_with(start)
            }
            _ => false,
        }
    }

    /// Sets when silence ends the response under way.
    fn schedule_quiet(&mut self, now: u64) {
        let Some(requests) = self.request_direction else { return };
        let stream = self.stream(requests.other());
        let wait = match &stream.mode {
            Mode::Unframed(_) if self.orphan => 0,
            Mode::Unframed(state) => quiet_after(state, stream.seen),
            Mode::UntilClose if self.is_server() && matches!(self.connection.endpoints, Endpoints::Unix { .. }) => {
                UNIX_QUIET
            }
            _ => 0,
        };
        self.quiet_due = if wait == 0 { 0 } else { now.saturating_add(wait) };
    }

    /// The direction of responses was silent for long enough.
    pub(super) fn quiet<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        self.quiet_due = 0;
        let Some(requests) = self.request_direction else { return };
        let alone = self.queue.len() == 1;
        let responses = self.stream_mut(requests.other());
        match responses.mode {
            Mode::UntilClose => {
                responses.mode = Mode::Lost;
                if !self.orphan {
                    self.lose_front(Reason::ResponseNotObserved, ctx);
                }
            }
            // Where more requests are open, what came may be more than one response: wait for more evidence.
            Mode::Unframed(_) if responses.end_seen && alone => {
                let at = responses.last;
                responses.mode = Mode::Lost;
                self.report(super::Outcome::Complete, at, ctx);
            }
            _ => {}
        }
        self.orphan = false;
    }
}

/// Whether a 100 begins here.
fn is_continue(bytes: &[u8]) -> bool {
    matches!(line::status_line(bytes), Line::Whole(found) if found.status == 100)
}

/// How long a response without usable framing, seen up to `seen`, must be silent to count as over; 0: however long,
/// that says nothing.
fn quiet_after(state: &Unframed, seen: u64) -> u64 {
    if state.chunked {
        if state.recent.last_chunk() == Some(true) { QUIET } else { 0 }
    } else if state.not_before > 0 {
        if seen >= state.not_before { QUIET } else { 0 }
    } else {
        LONG_QUIET
    }
}
