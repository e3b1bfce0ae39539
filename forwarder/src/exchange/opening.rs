//! Requests, as they begin.
//!
//! In: request heads in the order of their stream. Out: open requests; the state of their direction.

use std::time::Duration;

use super::{
    Opened, Side, Sink,
    capture::captured,
    chunked::Chunks,
    connection::{Connection, Context, Phase},
    framing::{self, Framing},
    head::RequestHead,
    message::Beginning,
    requests::Open,
    stream::{Boundary, Direction, Mode, Origin, Piece, Unframed},
};
use crate::{loss::Reason, model::MonotonicNs};

impl Connection {
    /// A request head was read at `piece`; `length` is that of the head, `None` if its end was not captured.
    pub(super) fn request_begins<S: Sink>(
        &mut self,
        direction: Direction,
        head: RequestHead,
        length: Option<usize>,
        piece: &mut Piece,
        beginning: &Beginning<'_>,
        ctx: &mut Context<'_, S>,
    ) {
        let (offset, origin) = (piece.offset, beginning.origin(piece));
        piece.advance(length.map_or(piece.left, |n| n as u64));
        self.requests_go(direction);
        self.phase = Phase::Http;
        self.end_by_request(ctx);
        self.accept(direction, head, length.is_none(), offset, origin, ctx);
    }

    /// Opens a request and sets how its stream goes on. `cut`: the end of its head was not seen.
    pub(super) fn accept<S: Sink>(
        &mut self,
        direction: Direction,
        head: RequestHead,
        cut: bool,
        offset: u64,
        origin: Origin,
        ctx: &mut Context<'_, S>,
    ) {
        let RequestHead { mut request, body, fields } = head;
        request.headers.captured = captured(&fields, &ctx.capture.request);
        request.headers.propagated = origin.propagated;
        let framing = if cut { Framing::Unknown } else { framing::of_request(&request.method, request.version, &body) };
        let stream = self.stream_mut(direction);
        stream.body = Some(0);
        stream.mode = match framing {
            Framing::Length(left) => Mode::Body { left },
            Framing::Chunked => Mode::Chunked(Chunks::START),
            Framing::Unknown => Mode::Unframed(Unframed::new(&body.transfer_encoding, 0)),
            Framing::NoBody | Framing::UntilClose | Framing::Upgrade => Mode::Start,
        };
        if framing == Framing::NoBody {
            request.body_size = Some(0);
        }
        let server = direction == Direction::Received;
        let queued = Some(origin.queued_ns).filter(|&ns| server && ns > 0).map(Duration::from_nanos);
        let start = MonotonicNs(origin.began.0.saturating_sub(if server { origin.queued_ns } else { 0 }));
        let Origin { process, thread, blocking, began, time, opposite, .. } = origin;
        let mut open = Open::new(request, process, thread, start, queued, offset, opposite, body.expects_continue);
        (open.blocking, open.call) = (blocking, (began, time));
        // It may have been answered before it was taken for a request.
        open.doubtful = opposite < self.stream(direction.other()).lost_to;
        self.open(open, ctx);
        // More requests may follow unseen in what has to be taken for this one.
        self.gap |= cut;
    }

    /// Appends to the open requests, unless there is no room or no hope.
    fn open<S: Sink>(&mut self, mut open: Open, ctx: &mut Context<'_, S>) {
        ctx.stats.requests += 1;
        self.number = self.number.wrapping_add(1);
        open.number = self.number;
        open.after_gap = self.gap;
        let newest = ctx.requests.back(&self.queue);
        self.pipelined |= newest.is_some_and(|newest| !newest.doubtful && !newest.after_gap);
        if self.blind.is_none() {
            if self.queue.len() >= ctx.limits.pipeline
                || ctx.requests.len() >= ctx.limits.requests
                || ctx.requests.bytes() + ctx.stats.bytes >= ctx.limits.bytes
            {
                self.blind = Some(Reason::PipelineLimit);
            } else if self.pipelined && self.gap {
                self.blind = Some(Reason::ResponseNotObserved);
            }
        }
        if let Some(reason) = self.blind {
            self.owed = self.owed.saturating_add(1);
            ctx.lose(reason);
            return;
        }
        if !self.pipelined {
            self.flush_unseen(ctx);
            self.owed = 0;
        }
        self.gap = false;
        ctx.requests.push(&mut self.queue, open, ctx.now);
        let Some(open) = ctx.requests.back(&self.queue) else { return };
        ctx.sink.opened(&Opened {
            serial: open.serial,
            side: if self.request_direction == Some(Direction::Received) { Side::Server } else { Side::Client },
            process: &open.process,
            connection: &self.connection,
            tls: self.tls,
            thread: open.thread,
            blocking: open.blocking,
            began: open.call.0,
            time: open.call.1,
            offset: open.offset,
            opposite: open.opposite,
            request: &open.request,
        });
    }

    /// The body of the newest request is over.
    pub(super) fn request_done<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        let Some(requests) = self.request_direction else { return };
        let stream = self.stream_mut(requests);
        stream.mode = Mode::Start;
        let body = stream.body;
        if let Some(newest) = ctx.requests.back_mut(&self.queue).filter(|newest| newest.number == self.number) {
            newest.request.body_size = body;
        }
    }

    /// Whether the newest request has its final response, or will never have one.
    pub(super) fn is_answered<S: Sink>(&self, ctx: &Context<'_, S>) -> bool {
        ctx.requests.back(&self.queue).is_none_or(|newest| newest.number != self.number || newest.response.is_some())
    }

    /// Whether the response to the newest request may have been missed.
    pub(super) fn is_doubtful<S: Sink>(&self, ctx: &Context<'_, S>) -> bool {
        ctx.requests.back(&self.queue).is_some_and(|newest| newest.doubtful)
    }

    /// Whether the newest request waits for a 100 before it sends its body.
    pub(super) fn awaits_body<S>(&self, ctx: &Context<'_, S>) -> bool {
        let Some(stream) = self.request_direction.map(|requests| self.stream(requests)) else { return false };
        stream.body == Some(0)
            && matches!(stream.mode, Mode::Body { .. } | Mode::Chunked(Chunks::START))
            && ctx
                .requests
                .back(&self.queue)
                .is_some_and(|newest| newest.expects_continue && newest.number == self.number)
    }

    /// A request that waits for a 100 and got its final response may never send its body: what comes next is
    /// either a request, at the start of a turn, or that body.
    pub(super) fn forget_awaited_body<S: Sink>(&mut self, ctx: &Context<'_, S>) {
        if self.queue.len() == 1
            && self.awaits_body(ctx)
            && let Some(requests) = self.request_direction
        {
            self.stream_mut(requests).mode = Mode::Lost;
        }
    }

    /// A 100 in `turn`: if no request that was seen waits for it, the next turn is the body of one that was not.
    pub(super) fn expect_body<S: Sink>(&mut self, requests: Direction, turn: u32, ctx: &Context<'_, S>) {
        let waits = self.awaits_body(ctx) || !self.is_answered(ctx) && !self.is_doubtful(ctx);
        let stream = self.stream_mut(requests);
        if !waits && matches!(stream.mode, Mode::Start | Mode::Lost) {
            stream.mode = Mode::Lost;
            stream.boundary = Boundary::Elsewhere;
            stream.turn = turn.wrapping_add(1);
        }
    }
}
