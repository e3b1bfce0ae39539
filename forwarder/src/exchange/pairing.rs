//! Which request a response belongs to.
//!
//! In: response heads in the order of their stream, open requests. Out: reported exchanges, losses.
//!
//! As long as no byte is missing the answer is the order (RFC 9112 section 9.3.2). After a hole it is the order
//! still, for requests before it; behind it the stream offsets decide: a response cannot have begun before its
//! request was read, and a client that was never seen to pipeline sends no request before it has the response to the
//! one before. A client that was seen to pipeline gives no such certainty: after a hole its requests are counted as
//! lost, not paired by guess.

use super::{
    Outcome, Response, Sink, capture,
    chunked::Chunks,
    connection::{Connection, Context, Phase},
    fields::ContentLength,
    framing::{self, Framing},
    head::ResponseHead,
    message::Beginning,
    stream::{Direction, Mode, Piece, Unframed},
};
use crate::{loss::Reason, model::MonotonicNs};

impl Connection {
    /// A response head was read at `piece`; `length` as for requests.
    pub(super) fn response_begins<S: Sink>(
        &mut self,
        direction: Direction,
        head: &ResponseHead,
        length: Option<usize>,
        piece: &mut Piece,
        beginning: &Beginning<'_>,
        ctx: &mut Context<'_, S>,
    ) {
        let (offset, captured) = (piece.offset, piece.bytes.len() as u64);
        let began =
            beginning.origin.as_ref().map_or((beginning.event.began, beginning.event.time), |o| (o.began, o.time));
        piece.advance(length.map_or(piece.left, |n| n as u64));
        let first = self.request_direction.is_none();
        self.requests_go(direction.other());
        self.phase = Phase::Http;
        if (100..=199).contains(&head.status) && head.status != 101 {
            if head.status == 100 {
                self.expect_body(direction.other(), beginning.event.turn, ctx);
            }
            self.stream_mut(direction).mode = if length.is_some() { Mode::Start } else { Mode::Lost };
            return;
        }
        ctx.stats.responses += 1;
        let found = self.choose(offset, beginning.opposite(), ctx);
        self.orphan = !found;
        if !found {
            self.unmatched(first, ctx);
        }
        let front = ctx.requests.front(&self.queue).filter(|_| found);
        let method = front.map(|open| open.request.method.clone());
        let framing = framing::of_response(method.as_deref(), head.status, head.version, &head.body);
        if front.is_some() {
            let at = if direction == Direction::Sent { began.0 } else { began.1 };
            let kept = capture::captured(&head.fields, &ctx.capture.response);
            let response = Response { status: head.status, version: head.version, body_size: None, captured: kept };
            ctx.requests.answer(&self.queue, response, at);
            self.forget_awaited_body(ctx);
        }
        let stream = self.stream_mut(direction);
        stream.body = Some(0);
        match framing {
            Framing::Upgrade => {
                self.response_done(beginning.event.time, ctx);
                self.lose_all(Reason::ResponseNotObserved, ctx);
                self.phase = Phase::Upgraded { checked: false };
            }
            _ if length.is_none() => {
                let not_before = match (framing, head.body.content_length) {
                    (Framing::Length(_), ContentLength::Bytes(n)) => offset.saturating_add(captured).saturating_add(n),
                    _ => 0,
                };
                stream.body = None;
                stream.mode = Mode::Unframed(Unframed::new(&head.body.transfer_encoding, not_before));
            }
            Framing::NoBody => self.response_done(beginning.event.time, ctx),
            Framing::Length(left) => stream.mode = Mode::Body { left },
            Framing::Chunked => stream.mode = Mode::Chunked(Chunks::START),
            Framing::UntilClose => stream.mode = Mode::UntilClose,
            Framing::Unknown => {
                stream.body = None;
                stream.mode = Mode::Unframed(Unframed::new(&head.body.transfer_encoding, 0));
            }
        }
    }

    /// Makes the request of a response the oldest open one; `false` if there is none. The response begins at
    /// `offset` of its direction, when `opposite` bytes of the direction of requests had been moved.
    fn choose<S: Sink>(&mut self, offset: u64, opposite: u64, ctx: &mut Context<'_, S>) -> bool {
        if self.queue.is_empty() {
            self.take_partial_request(ctx);
        }
        match ctx.requests.front(&self.queue) {
            None => return false,
            // It has one already, of which the end was not recognised.
            Some(front) if front.response.is_some() => {
                self.lose_front(Reason::ResponseNotObserved, ctx);
                return self.choose(offset, opposite, ctx);
            }
            Some(front) if !front.after_gap && !front.doubtful => return true,
            Some(_) if self.pipelined => {
                self.go_blind(ctx);
                return false;
            }
            Some(_) => {}
        }
        // No pipelining, so it answers the last request that had been sent.
        let mut chosen = None;
        for (place, open) in ctx.requests.iter(&self.queue).enumerate() {
            if open.offset < opposite && open.opposite <= offset {
                chosen = Some((place, open.doubtful));
            }
        }
        let Some((place, doubtful)) = chosen else { return false };
        for _ in 0..place {
            self.lose_front(Reason::ResponseNotObserved, ctx);
        }
        // Another request may have been sent, unseen, and this may be its response.
        if doubtful && (self.gap || self.queue.len() > 1) {
            self.lose_front(Reason::ResponseNotObserved, ctx);
            // If no other was missed, it is the lost one's.
            self.owed = self.owed.saturating_add(u32::from(self.unseen == 0));
            return false;
        }
        true
    }

    /// Counts a response without a request.
    fn unmatched<S: Sink>(&mut self, first: bool, ctx: &mut Context<'_, S>) {
        ctx.stats.responses_unmatched += 1;
        let missing_before = ctx.requests.front(&self.queue).is_some_and(|front| front.after_gap);
        if self.owed > 0 {
            self.owed -= 1;
        } else if self.unseen > 0 {
            self.unseen -= 1;
            ctx.sink.loss(Reason::RequestNotObserved, 1);
        } else if first || self.gap || missing_before {
            ctx.sink.loss(Reason::RequestNotObserved, 1);
        } else {
            // Nothing is missing: nobody asked (a server that says 408 before it closes). If that is wrong,
            // the next request must not be paired by order alone.
            self.gap = true;
        }
    }

    /// The response under way is complete, `at` being the time of its last byte.
    pub(super) fn response_done<S: Sink>(&mut self, at: MonotonicNs, ctx: &mut Context<'_, S>) {
        if let Some(requests) = self.request_direction {
            self.stream_mut(requests.other()).mode = Mode::Start;
        }
        if !std::mem::take(&mut self.orphan) {
            self.report(Outcome::Complete, at, ctx);
        }
    }

    /// A request comes: the response before it is over, if that was still open for want of framing.
    pub(super) fn end_by_request<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        let Some(responses) = self.request_direction.map(Direction::other) else { return };
        if self.orphan && !self.pipelined {
            self.orphan = false;
            self.stream_mut(responses).mode = Mode::Start;
        } else if let Mode::Unframed(state) = &self.stream(responses).mode {
            // Its end is known not to have come: the client does not wait for it.
            let going_on = self.stream(responses).seen < state.not_before
                || state.chunked && state.recent.ends_with(b"\r\n\r\n") == Some(false);
            if going_on {
                self.pipelined = true;
            } else {
                self.end_by_response(responses, ctx);
            }
        }
    }

    /// A request, or another response, shows that a response without usable framing is over.
    pub(super) fn end_by_response<S: Sink>(&mut self, direction: Direction, ctx: &mut Context<'_, S>) {
        if self.request_direction == Some(direction) {
            return;
        }
        let stream = self.stream_mut(direction);
        stream.mode = Mode::Start;
        let (at, end_seen, seen) = (stream.last, stream.end_seen, stream.seen);
        if std::mem::take(&mut self.orphan) {
            return;
        }
        // Several responses may lie in what was taken for one.
        let alone = !ctx.requests.iter(&self.queue).skip(1).any(|open| open.opposite < seen);
        if end_seen && alone {
            self.report(Outcome::Complete, at, ctx);
        } else {
            self.lose_front(Reason::ResponseNotObserved, ctx);
            self.doubt(seen, ctx);
        }
    }
}
