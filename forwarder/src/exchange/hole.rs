//! Bytes whose events are missing: lost on the way, or moved past the probes (splice).
//!
//! In: how far a direction has moved unseen. Out: the direction's state behind the hole, doubts about open requests.
//!
//! Inside of a body of known length, and inside of chunk data, a hole changes nothing. A response that ended in a
//! hole is not reported: the time of its last byte was not seen.

use super::{
    Sink,
    chunked::Progress,
    connection::{Connection, Context},
    stream::{Boundary, Direction, Mode, Unframed},
};
use crate::loss::Reason;

impl Connection {
    /// Bytes up to stream offset `to` of `direction` were not seen. `turn`: that of the event right behind them, if
    /// one showed the hole.
    pub(super) fn hole<S: Sink>(&mut self, direction: Direction, to: u64, turn: Option<u32>, ctx: &mut Context<'_, S>) {
        let stream = self.stream_mut(direction);
        let missing = to.saturating_sub(stream.seen);
        stream.end_seen = false;
        let other_turn = turn.is_some_and(|turn| turn != stream.turn);
        stream.boundary = Boundary::Elsewhere;
        // A response without a request may be one to HEAD: its body is no measure.
        if self.orphan && !self.pipelined && self.request_direction == Some(direction.other()) {
            self.lost(direction, to, turn, ctx);
            self.stream_mut(direction).seen = to;
            return;
        }
        let stream = self.stream_mut(direction);
        if let Mode::Chunked(chunks) = &mut stream.mode {
            let fed = chunks.feed(&[], missing);
            stream.count(fed.data);
            if fed.state != Progress::More {
                stream.body = None;
                stream.mode = Mode::Unframed(Unframed::chunked());
                self.gap |= self.request_direction == Some(direction);
            }
        }
        let stream = self.stream_mut(direction);
        match &mut stream.mode {
            Mode::Body { left } if missing < *left => {
                *left -= missing;
                stream.count(missing);
            }
            Mode::Body { left } => {
                let left = *left;
                stream.count(left);
                self.done_unseen(direction, ctx);
                if missing > left {
                    self.lost(direction, to, turn, ctx);
                }
            }
            Mode::Chunked(_) => {}
            // Another turn: this message is over, and a turn of the other direction was missed.
            Mode::Unframed(_) if other_turn => {
                self.done_unseen(direction, ctx);
                self.lost(direction, to, turn, ctx);
            }
            // It may also be over, and another have begun.
            Mode::Unframed(state) => {
                state.recent.push(&[], missing);
                if self.request_direction == Some(direction.other()) {
                    self.doubt(to, ctx);
                }
            }
            Mode::UntilClose => stream.count(missing),
            Mode::Head(_) => {
                if self.request_direction == Some(direction) && !self.take_partial_request(ctx) {
                    self.unseen = self.unseen.saturating_add(1);
                }
                self.lost(direction, to, turn, ctx);
            }
            Mode::Start | Mode::Lost => self.lost(direction, to, turn, ctx),
        }
        self.stream_mut(direction).seen = to;
    }

    /// The message under way ended, and its last byte was not seen.
    fn done_unseen<S: Sink>(&mut self, direction: Direction, ctx: &mut Context<'_, S>) {
        if self.request_direction == Some(direction) {
            self.request_done(ctx);
            return;
        }
        self.stream_mut(direction).mode = Mode::Start;
        if !std::mem::take(&mut self.orphan) {
            self.lose_front(Reason::ResponseNotObserved, ctx);
        }
    }

    /// Whatever began in `direction` up to stream offset `to` was not seen; it waits for the start of a turn.
    pub(super) fn lost<S: Sink>(&mut self, direction: Direction, to: u64, turn: Option<u32>, ctx: &mut Context<'_, S>) {
        let stream = self.stream_mut(direction);
        let new_turn = turn.is_some_and(|turn| turn != stream.turn);
        stream.mode = Mode::Lost;
        stream.lost_to = stream.lost_to.max(to);
        let Some(requests) = self.request_direction else {
            if new_turn {
                self.note_headless(direction);
            }
            return;
        };
        if requests == direction {
            self.gap = true;
            // The turn that is here now holds a request of which the beginning is missing. (Not the rest of the one
            // before: an answer was given in between.)
            if new_turn {
                self.unseen = self.unseen.saturating_add(1);
            }
        } else {
            self.orphan = false;
            self.doubt(to, ctx);
        }
    }

    /// The responses to requests that were there before stream offset `to` of the responses may have been missed;
    /// with [`u64::MAX`], to all that are open.
    pub(super) fn doubt<S: Sink>(&mut self, to: u64, ctx: &mut Context<'_, S>) {
        if let Some(requests) = self.request_direction.filter(|_| to != u64::MAX) {
            let responses = self.stream_mut(requests.other());
            responses.lost_to = responses.lost_to.max(to);
        }
        let mut doubtful = false;
        let Context { requests, sink, .. } = ctx;
        requests.each(&self.queue, |open| {
            if open.opposite < to && open.response.is_none() {
                open.doubtful = true;
                doubtful = true;
                sink.doubted(open.serial);
            }
        });
        if self.pipelined && (doubtful || to == u64::MAX) {
            self.go_blind(ctx);
        }
    }

    /// Nothing tells any more which of the open requests the next response belongs to, now or later.
    pub(super) fn go_blind<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        let reason = *self.blind.get_or_insert(Reason::ResponseNotObserved);
        self.owed = self.owed.saturating_add(u32::try_from(self.queue.len()).unwrap_or(u32::MAX));
        self.lose_all(reason, ctx);
    }
}
