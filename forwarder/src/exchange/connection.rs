//! One connection: its two directions, its open requests and what is known of its end.
//!
//! In: the events of one socket. Out: exchanges and losses, through [`Context`]. This file holds the state and the
//! way of an event to its direction; `hold` puts late events in order, `data` reads bytes, `message` begins
//! messages, `pairing` finds the request of a response, `hole` deals with bytes that nobody saw, `close` with the end.

use super::{
    Capture, ClosedBy, Exchange, Outcome, Sink,
    close::Close,
    hold::Held,
    http2::Http2,
    requests::{Open, Queue, Requests},
    stream::{Boundary, Direction, Mode, Piece, Stream},
    table::{Limits, Stats},
};
use crate::{
    loss::Reason,
    model::{ConnectionRef, Endpoints, MonotonicNs, ProcessId, ProcessRef, SocketEvent},
};

/// What a connection works with besides itself.
pub(super) struct Context<'a, S> {
    /// Open requests of all connections.
    pub(super) requests: &'a mut Requests,
    /// Counters of the table.
    pub(super) stats: &'a mut Stats,
    /// Where results go.
    pub(super) sink: &'a mut S,
    /// Clock of the table: time of its last tick, nanoseconds.
    pub(super) now: u64,
    /// Bounds.
    pub(super) limits: &'a Limits,
    /// Header fields that are kept.
    pub(super) capture: &'a Capture,
}

impl<S: Sink> Context<'_, S> {
    /// A request that was seen will not be reported.
    pub(super) fn lose(&mut self, reason: Reason) {
        self.stats.requests_lost += 1;
        self.sink.loss(reason, 1);
    }
}

/// What is known of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte was seen.
    New,
    /// Bytes were seen, no message.
    Unclassified,
    /// It speaks HTTP/1.
    Http,
    /// It spoke HTTP/1 and switched; whether the first bytes after the switch were looked at.
    Upgraded {
        /// They were.
        checked: bool,
    },
    /// It is no business of ours, and was counted.
    Ignored,
}

/// One connection. Small when idle: nothing in it is on the heap then.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) connection: ConnectionRef,
    /// Its events tell what a TLS library was given or gave.
    pub(super) tls: bool,
    /// An exchange of it was reported before it was known where it leads.
    pub(super) peerless: bool,
    pub(super) received: Stream,
    pub(super) sent: Stream,
    pub(super) queue: Queue,
    pub(super) held: Option<Box<Held>>,
    pub(super) close: Close,
    /// When a response without usable framing counts as over; 0: not in sight.
    pub(super) quiet_due: u64,
    /// Direction of requests, once known. Received: the process is the server.
    pub(super) request_direction: Option<Direction>,
    pub(super) phase: Phase,
    /// Starts of turns at which no message began, before one was ever seen.
    pub(super) misses: u8,
    /// The response under way has no request.
    pub(super) orphan: bool,
    /// Requests may be missing after the newest open one.
    pub(super) gap: bool,
    /// Its client has sent a request before the response to the one before.
    pub(super) pipelined: bool,
    /// Pairing is no longer possible on this connection: its further requests are lost for this reason.
    pub(super) blind: Option<Reason>,
    /// Responses to come whose requests stand among the losses already.
    pub(super) owed: u32,
    /// Requests that were not seen and whose responses were not seen either, so far.
    pub(super) unseen: u32,
    /// The same before it was known in which direction requests go: if they are received, if they are sent.
    pub(super) early: [u32; 2],
    /// Bytes of the other direction that had been seen before the event at hand.
    pub(super) floor: u64,
    /// Turn of the newest event, and its direction.
    pub(super) turn: u32,
    pub(super) turn_direction: Direction,
    /// Requests seen on it.
    pub(super) number: u32,
    /// Process that last moved bytes on it.
    pub(super) process: ProcessId,
    /// It speaks HTTP/2, of which nothing is read but exports of telemetry.
    pub(super) http2: Option<Box<Http2>>,
}

impl Connection {
    /// A connection on which nothing has been seen.
    pub(super) fn new(connection: ConnectionRef) -> Self {
        Connection {
            connection,
            tls: false,
            peerless: false,
            received: Stream::new(0),
            sent: Stream::new(0),
            queue: Queue::default(),
            held: None,
            close: Close::default(),
            quiet_due: 0,
            request_direction: None,
            phase: Phase::New,
            misses: 0,
            orphan: false,
            gap: false,
            pipelined: false,
            blind: None,
            owed: 0,
            unseen: 0,
            early: [0; 2],
            floor: 0,
            turn: 0,
            turn_direction: Direction::Received,
            number: 0,
            process: ProcessId(0),
            http2: None,
        }
    }

    pub(super) fn stream(&self, direction: Direction) -> &Stream {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }

    pub(super) fn stream_mut(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => &mut self.sent,
        }
    }

    /// Bytes kept beside its open requests: heads that are not whole, events that wait.
    pub(super) fn bytes(&self) -> usize {
        self.received.bytes()
            + self.sent.bytes()
            + self.held.as_ref().map_or(0, |held| held.bytes())
            + self.http2.as_ref().map_or(0, |http2| http2.bytes())
    }

    /// Whether a head is not whole yet.
    pub(super) fn is_in_head(&self) -> bool {
        self.received.bytes() + self.sent.bytes() > 0
    }

    /// Whether requests are received here.
    pub(super) fn is_server(&self) -> bool {
        self.request_direction == Some(Direction::Received)
    }

    /// From here on what went through TLS is told. Whatever was before on the same socket (a request to a proxy for a
    /// tunnel, ciphertext) has offsets of its own and is over.
    pub(super) fn becomes_tls<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        self.stop(Reason::ResponseNotObserved, ctx);
        *self = Self { tls: true, ..Self::new(self.connection.clone()) };
    }

    /// Takes the next event of this socket.
    pub(super) fn event<S: Sink>(&mut self, event: SocketEvent, process: &ProcessRef, ctx: &mut Context<'_, S>) {
        let opaque = event.opaque;
        match Direction::of(event.kind) {
            Some(_) if event.length == 0 => {}
            Some(direction) if self.phase == Phase::Ignored => {
                self.read_http2(direction, &Piece::of(&event), process, ctx);
            }
            Some(direction) => {
                self.process = process.id;
                self.data(direction, event, process, ctx);
            }
            None => self.state_changed(&event, ctx),
        }
        if opaque {
            self.given_up(ctx);
        }
    }

    /// Bytes were moved.
    fn data<S: Sink>(
        &mut self,
        direction: Direction,
        event: SocketEvent,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) {
        if self.phase == Phase::New {
            self.begins(direction, &event);
        }
        let missing = self.missing_before(event.turn);
        if event.turn >= self.turn {
            (self.turn, self.turn_direction) = (event.turn, direction);
        }
        // The usual case apart: an event is large, and is not moved where nothing waits.
        if self.held.is_none() && self.must_wait(direction, &event, ctx).is_none() {
            return self.apply(direction, &event, missing, process, ctx);
        }
        if let Some(event) = self.hold(direction, event, missing, process, ctx) {
            self.apply(direction, &event, missing, process, ctx);
            self.release(false, ctx);
        }
    }

    /// The first event. Its direction may have been under way when we came (or events before it were lost): then
    /// only the start of a later turn can be trusted to be the start of a message.
    fn begins(&mut self, direction: Direction, event: &SocketEvent) {
        self.phase = Phase::Unclassified;
        self.turn = event.turn;
        self.turn_direction = direction;
        if event.offset > 0 {
            self.note_headless(direction);
            *self.stream_mut(direction) =
                Stream { turn: event.turn, boundary: Boundary::Elsewhere, ..Stream::new(event.offset) };
            *self.stream_mut(direction.other()) = Stream::new(event.opposite_offset);
        }
    }

    /// Counts the requests of `missing` turns that are missing, the last of them in direction `last`.
    pub(super) fn note_missing<S>(&mut self, missing: u32, last: Direction, ctx: &Context<'_, S>) {
        let count_of = |requests| if last == requests { missing.div_ceil(2) } else { missing / 2 };
        let Some(requests) = self.request_direction else {
            for (early, requests) in self.early.iter_mut().zip([Direction::Received, Direction::Sent]) {
                *early = early.saturating_add(count_of(requests));
            }
            return;
        };
        let mut count = count_of(requests);
        // The first of them may be the body that waited for a 100.
        if self.awaits_body(ctx) {
            count = count.saturating_sub(1);
        }
        self.unseen = self.unseen.saturating_add(count);
    }

    /// A turn of `direction` is here without its beginning: if requests go there, one that was not seen.
    pub(super) fn note_headless(&mut self, direction: Direction) {
        let [received, sent] = &mut self.early;
        let early = if direction == Direction::Received { received } else { sent };
        *early = early.saturating_add(1);
    }

    /// A message shows that requests go in direction `requests`.
    pub(super) fn requests_go(&mut self, requests: Direction) {
        if self.request_direction.is_none() {
            let [received, sent] = self.early;
            self.unseen = self.unseen.saturating_add(if requests == Direction::Received { received } else { sent });
        }
        self.request_direction = Some(requests);
    }

    /// The kernel side sends no more bytes of this socket.
    fn given_up<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        self.release(true, ctx);
        match self.phase {
            Phase::New | Phase::Unclassified => self.refuse(Reason::ProtocolUnknown, ctx),
            Phase::Http => {
                self.lose_all(Reason::ResponseNotObserved, ctx);
                self.flush_unseen(ctx);
            }
            Phase::Upgraded { .. } | Phase::Ignored => {}
        }
        self.phase = Phase::Ignored;
    }

    /// It is something else: counted once, then ignored. A pair of Unix sockets without an address, on which nothing
    /// looks like HTTP, is a program's own channel (asyncio wakes itself so): no connection that anybody could miss.
    pub(super) fn refuse<S: Sink>(&mut self, reason: Reason, ctx: &mut Context<'_, S>) {
        tracing::debug!(
            reason = reason.name(),
            socket = self.connection.socket.0,
            endpoints = ?self.connection.endpoints,
            process = self.process.0,
            received = self.received.seen,
            sent = self.sent.seen,
            "a connection is not read"
        );
        if reason != Reason::ProtocolUnknown || self.connection.endpoints != (Endpoints::Unix { path: None }) {
            ctx.sink.loss(reason, 1);
        }
        self.phase = Phase::Ignored;
        self.received.mode = Mode::Lost;
        self.sent.mode = Mode::Lost;
    }

    /// What was neither seen as a request nor as a response until now was missed altogether.
    pub(super) fn flush_unseen<S: Sink>(&mut self, ctx: &mut Context<'_, S>) {
        if self.unseen > 0 {
            ctx.sink.loss(Reason::ExchangeNotObserved, u64::from(self.unseen));
            self.unseen = 0;
        }
    }

    /// The oldest open request will not be reported.
    pub(super) fn lose_front<S: Sink>(&mut self, reason: Reason, ctx: &mut Context<'_, S>) {
        if let Some(open) = ctx.requests.pop(&mut self.queue) {
            ctx.lose(reason);
            ctx.sink.abandoned(open.serial);
        }
    }

    /// None of the open requests will be reported.
    pub(super) fn lose_all<S: Sink>(&mut self, reason: Reason, ctx: &mut Context<'_, S>) {
        while !self.queue.is_empty() {
            self.lose_front(reason, ctx);
        }
    }

    /// Reports the oldest open request.
    pub(super) fn report<S: Sink>(&mut self, outcome: Outcome, end: MonotonicNs, ctx: &mut Context<'_, S>) {
        let Some(requests) = self.request_direction else { return };
        let body = self.stream(requests.other()).body;
        let Some(open) = ctx.requests.pop(&mut self.queue) else { return };
        ctx.stats.exchanges += 1;
        let side = if requests == Direction::Received { super::Side::Server } else { super::Side::Client };
        let Open { serial, request, process, thread, start, queued, response, .. } = open;
        let (response, response_start) = match response {
            Some((mut response, at)) => {
                response.body_size = body;
                (Some(response), Some(at.max(start)))
            }
            None => (None, None),
        };
        let end = end.max(response_start.unwrap_or(start));
        let connection = self.connection.clone();
        self.peerless |= self.tls && connection.endpoints == Endpoints::Unknown;
        ctx.sink.exchange(Exchange {
            serial,
            side,
            process,
            connection,
            tls: self.tls,
            thread,
            request,
            response,
            outcome,
            start,
            response_start,
            end,
            queued,
        });
    }

    /// Reports all open requests as unanswered, except those whose response may have been missed.
    pub(super) fn report_unanswered<S: Sink>(&mut self, by: ClosedBy, at: MonotonicNs, ctx: &mut Context<'_, S>) {
        while let Some(front) = ctx.requests.front(&self.queue) {
            if front.doubtful || front.response.is_some() {
                self.lose_front(Reason::ResponseNotObserved, ctx);
            } else {
                self.report(Outcome::NoResponse(by), at, ctx);
            }
        }
    }
}
