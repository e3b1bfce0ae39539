//! The end of a connection, and what that means for its open requests.
//!
//! In: state events. Out: exchanges that were complete, aborted or unanswered.
//!
//! The kernel tells of an end at once, while a send or receive is told when its call returns: on the loopback a
//! reset can be recorded before the send that met it. So the end is acted upon a moment after it was told.

use super::{
    ClosedBy, Outcome, Response, Sink,
    capture::captured,
    connection::{Connection, Context, Phase},
    head::{self, Head},
    stream::{Direction, Mode},
};
use crate::{
    loss::Reason,
    model::{EventKind, MonotonicNs, SocketEvent},
};

/// How long after the end was told late events are waited for, nanoseconds.
const LINGER: u64 = 200_000_000;

/// What is known of a connection's end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Close {
    /// Who stopped first.
    first: Option<ClosedBy>,
    /// When the connection ended for its open requests, and by whom.
    decided: Option<(MonotonicNs, ClosedBy)>,
    /// When that is acted upon; 0: not in sight.
    pub(super) due: u64,
    /// No event follows.
    over: bool,
    /// A reset.
    reset: bool,
    /// The process has read the peer's last byte.
    end_of_stream: bool,
    /// How many bytes had been sent or received then, where the event told.
    sent: u64,
    received: u64,
}

impl Connection {
    /// Takes an event that moved no bytes.
    pub(super) fn state_changed<S: Sink>(&mut self, event: &SocketEvent, ctx: &mut Context<'_, S>) {
        let (client, server) = (self.request_direction == Some(Direction::Sent), self.is_server());
        let close = &mut self.close;
        let decided = match event.kind {
            EventKind::EndOfStream => {
                close.first.get_or_insert(ClosedBy::Peer);
                close.end_of_stream = true;
                close.received = close.received.max(event.offset);
                close.sent = close.sent.max(event.opposite_offset);
                // For a server this may be a client that only has nothing more to say.
                client.then_some(ClosedBy::Peer)
            }
            EventKind::PeerClosed => {
                close.first.get_or_insert(ClosedBy::Peer);
                None
            }
            EventKind::LocalClosed => {
                close.sent = close.sent.max(event.offset);
                close.received = close.received.max(event.opposite_offset);
                let by = *close.first.get_or_insert(ClosedBy::Local);
                // For a client, as above.
                server.then_some(by)
            }
            EventKind::Closed => {
                close.over = true;
                Some(*close.first.get_or_insert(ClosedBy::Local))
            }
            EventKind::Reset => {
                close.over = true;
                close.reset = true;
                Some(*close.first.get_or_insert(ClosedBy::Reset))
            }
            EventKind::Send | EventKind::Receive | EventKind::Connect | EventKind::Link => None,
        };
        if let Some(by) = decided {
            close.decided.get_or_insert((event.time, by));
            close.due = ctx.now.saturating_add(LINGER).max(1);
        }
        if event.turn > self.turn {
            self.note_end_turn(event.turn, ctx);
        }
    }

    /// Turns up to `turn`, which is over, are missing.
    fn note_end_turn<S: Sink>(&mut self, turn: u32, ctx: &mut Context<'_, S>) {
        let missing = turn.saturating_sub(self.turn);
        let last = if missing.is_multiple_of(2) { self.turn_direction } else { self.turn_direction.other() };
        self.note_missing(missing, last, ctx);
        // Among them are the responses to what is open.
        if missing > 1 || self.request_direction == Some(last.other()) {
            self.doubt(u64::MAX, ctx);
        }
        (self.turn, self.turn_direction) = (turn, last);
    }

    /// The process that used this connection last has ended, which closes it. Only for sockets whose end nobody tells.
    pub(super) fn process_ended<S: Sink>(&mut self, at: MonotonicNs, ctx: &mut Context<'_, S>) {
        let by = *self.close.first.get_or_insert(ClosedBy::Local);
        self.close.decided.get_or_insert((at, by));
        self.conclude(ctx);
    }

    /// Acts upon what is due at `ctx.now`; `true`: the connection is over.
    pub(super) fn tick<S: Sink>(&mut self, ctx: &mut Context<'_, S>) -> bool {
        if self.held.as_ref().is_some_and(|held| held.due <= ctx.now) {
            self.release(true, ctx);
        }
        if self.close.due != 0 && self.close.due <= ctx.now {
            self.close.due = 0;
            self.conclude(ctx);
            return self.close.over;
        }
        if self.quiet_due != 0 && self.quiet_due <= ctx.now {
            self.quiet(ctx);
        }
        false
    }

    /// Whether [`Connection::tick`] has something to wait for.
    pub(super) fn needs_tick(&self) -> bool {
        self.held.is_some() || self.close.due != 0 || self.quiet_due != 0
    }

    /// Whether the end was told.
    pub(super) fn is_closing(&self) -> bool {
        self.close.decided.is_some()
    }

    /// The connection has ended: nothing of its open requests follows.
    pub(super) fn conclude<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        self.release(true, ctx);
        let Some((at, by)) = self.close.decided.take() else { return };
        if self.phase == Phase::Unclassified {
            self.refuse(Reason::ProtocolUnknown, ctx);
        }
        let Some(requests) = self.request_direction.filter(|_| self.phase == Phase::Http) else { return };
        // A FIN takes one sequence number: a hole of one byte is none.
        for (direction, told) in [(Direction::Sent, self.close.sent), (Direction::Received, self.close.received)] {
            if told > self.stream(direction).seen.saturating_add(1) {
                self.hole(direction, told, None, ctx);
            }
        }
        self.take_partial_request(ctx);
        self.conclude_response(requests, at, by, ctx);
        self.report_unanswered(by, at, ctx);
        self.flush_unseen(ctx);
        self.quiet_due = 0;
        self.orphan = false;
    }

    /// What becomes of the response under way.
    fn conclude_response<S: Sink>(
        &mut self,
        requests: Direction,
        at: MonotonicNs,
        by: ClosedBy,
        ctx: &mut Context<'_, S>,
    ) {
        let server = self.is_server();
        let close = self.close;
        // Over TLS its close_notify (RFC 8446, section 6.1) ends the data, and nobody reads the end of the socket's. It had come
        // all the same, and a close that leaves bytes unread is a reset.
        let all_read = close.end_of_stream || self.tls && close.first == Some(ClosedBy::Peer) && !close.reset;
        let responses = self.stream_mut(requests.other());
        let (last, end_seen) = (responses.last, responses.end_seen);
        let mode = std::mem::replace(&mut responses.mode, Mode::Lost);
        let ended = match &mode {
            Mode::Start | Mode::Lost => return,
            Mode::Head(buffer) => {
                return self.conclude_head(&buffer.bytes.clone().freeze(), buffer.origin.clone(), at, by, ctx);
            }
            Mode::Body { .. } | Mode::Chunked(_) => Some(false),
            // A reset or a client that stops reading ends the connection, but not the response.
            Mode::UntilClose if close.first == Some(ClosedBy::Reset) || !server && !all_read => Some(false),
            Mode::UntilClose => end_seen.then_some(true),
            Mode::Unframed(state) if state.chunked => match state.recent.last_chunk() {
                // A trailer section ends so, and so may chunk data.
                Some(false) if state.recent.ends_with(b"\r\n\r\n") == Some(true) => None,
                told => told,
            },
            Mode::Unframed(state) if responses.seen < state.not_before => Some(false),
            Mode::Unframed(_) if close.reset => Some(false),
            Mode::Unframed(_) => Some(true),
        };
        if std::mem::take(&mut self.orphan) {
            return;
        }
        match ended {
            Some(true) if end_seen => self.report(Outcome::Complete, last, ctx),
            Some(false) => self.report(Outcome::Aborted(by), at, ctx),
            _ => self.lose_front(Reason::ResponseNotObserved, ctx),
        }
    }

    /// The connection ended inside of a response's head. With a status, the response had begun.
    fn conclude_head<S: Sink>(
        &mut self,
        bytes: &bytes::Bytes,
        origin: super::stream::Origin,
        at: MonotonicNs,
        by: ClosedBy,
        ctx: &mut Context<'_, S>,
    ) {
        let began = if self.is_server() { origin.began } else { origin.time };
        match head::response(bytes, true) {
            Head::Whole(head, _) if head.status >= 200 || head.status == 101 => {
                ctx.stats.responses += 1;
                match ctx.requests.front_mut(&self.queue).filter(|front| !front.doubtful && !front.after_gap) {
                    Some(front) => {
                        let kept = captured(&head.fields, &ctx.capture.response);
                        let response =
                            Response { status: head.status, version: head.version, body_size: None, captured: kept };
                        front.response = Some((response, began));
                        self.report(Outcome::Aborted(by), at, ctx);
                    }
                    // Whose it is cannot be told.
                    None => {
                        ctx.stats.responses_unmatched += 1;
                        self.doubt(u64::MAX, ctx);
                    }
                }
            }
            Head::Whole(..) => {}
            Head::Partial { .. } | Head::Invalid => self.lose_front(Reason::ParseError, ctx),
        }
    }

    /// The program stops: what is complete is reported, what is not is counted.
    pub(super) fn stop<S: Sink>(&mut self, reason: Reason, ctx: &mut Context<'_, S>) {
        self.release(true, ctx);
        if self.is_closing() {
            self.conclude(ctx);
        } else if self.quiet_due != 0 {
            self.quiet(ctx);
        }
        self.lose_all(reason, ctx);
        self.flush_unseen(ctx);
    }
}
