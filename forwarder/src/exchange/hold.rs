//! Events that come before the one they follow from.
//!
//! In: an event whose `opposite_offset` lies beyond what was seen of the other direction. Out: the same event, once
//! the missing bytes have come or have shown to be lost.
//!
//! A thread that sends a request may be recorded after the thread that receives its response, since both are
//! recorded when their calls end. The stream offsets tell. Unix sockets have none but a count, made in the order of
//! recording; there, a response that nobody asked for waits a moment for its request.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Sink,
    connection::{Connection, Context},
    stream::{Direction, Mode},
};
use crate::model::{Endpoints, ProcessRef, SocketEvent};

/// How long an event waits for the bytes before it, nanoseconds. A call that blocks for longer while its answer is
/// being read elsewhere is rare; until then nothing of the connection is reported.
const PATIENCE: u64 = 2_000_000_000;
/// The same for Unix sockets, where nothing says that there is something to wait for.
const UNIX_PATIENCE: u64 = 200_000_000;
/// Most events of one connection that wait; beyond, the missing bytes are taken for lost.
const MOST: usize = 64;

/// Events that wait, all of one direction.
#[derive(Debug)]
pub(super) struct Held {
    /// Theirs.
    pub(super) direction: Direction,
    /// Waits for any request, not for known bytes.
    awaits_request: bool,
    /// When waiting ends.
    pub(super) due: u64,
    events: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    event: SocketEvent,
    /// Turns missing right before it.
    missing: u32,
    process: ProcessRef,
}

impl Waiting {
    /// Has memory of its own: one that waits for seconds must not hold the batch that it came in.
    fn new(event: SocketEvent, missing: u32, process: &ProcessRef) -> Self {
        let own = |bytes: &Bytes| if bytes.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(bytes) };
        let event = SocketEvent { head: own(&event.head), tail: own(&event.tail), ..event };
        Self { event, missing, process: process.clone() }
    }
}

impl Held {
    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        let each = |waiting: &Waiting| size_of::<Waiting>() + waiting.event.head.len() + waiting.event.tail.len();
        self.events.iter().map(each).sum()
    }
}

impl Connection {
    /// How many turns are missing right before an event of this one. If it comes late, it is one of those that are missing
    /// before an event that waits: it takes its place among them, and they are counted once.
    pub(super) fn missing_before(&mut self, turn: u32) -> u32 {
        let waiting = self.held.iter_mut().flat_map(|held| held.events.iter_mut());
        for Waiting { event, missing, .. } in waiting {
            let back = event.turn.saturating_sub(turn);
            if back > 0 && back <= *missing {
                return std::mem::replace(missing, back - 1) - back;
            }
        }
        turn.saturating_sub(self.turn).saturating_sub(1)
    }

    /// Gives `event` back if it is its turn, else keeps it. `missing` turns are missing before it.
    pub(super) fn hold<S: Sink>(
        &mut self,
        direction: Direction,
        event: SocketEvent,
        missing: u32,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) -> Option<SocketEvent> {
        if let Some(held) = &mut self.held {
            if held.direction == direction {
                held.events.push_back(Waiting::new(event, missing, process));
                ctx.stats.events_held += 1;
                if held.events.len() >= MOST {
                    self.release(true, ctx);
                }
                return None;
            }
            // This call began after the one that waits had ended: it cannot be what that waits for.
            if held.awaits_request && held.events.front().is_some_and(|first| event.began > first.event.time) {
                self.release_until(u64::MAX, ctx);
            }
            // This begins behind the bytes that were waited for: they are lost.
            if event.offset > self.stream(direction).seen {
                self.release_until(event.offset, ctx);
            }
            return self.after_held(direction, event, missing, process, ctx);
        }
        let Some(awaits_request) = self.must_wait(direction, &event, ctx) else { return Some(event) };
        let due = ctx.now.saturating_add(if awaits_request { UNIX_PATIENCE } else { PATIENCE });
        self.wait(direction, awaits_request, due, Waiting::new(event, missing, process), ctx);
        None
    }

    /// Keeps `first`, the first event that waits.
    fn wait<S>(
        &mut self,
        direction: Direction,
        awaits_request: bool,
        due: u64,
        first: Waiting,
        ctx: &mut Context<'_, S>,
    ) {
        ctx.stats.events_held += 1;
        self.held = Some(Box::new(Held { direction, awaits_request, due, events: VecDeque::from([first]) }));
    }

    /// Whether `event` comes before what it follows from, and then whether it waits for any request, not for known bytes.
    pub(super) fn must_wait<S: Sink>(
        &self,
        direction: Direction,
        event: &SocketEvent,
        ctx: &Context<'_, S>,
    ) -> Option<bool> {
        let opposite = self.stream(direction.other());
        let ahead = event.opposite_offset.saturating_sub(opposite.seen);
        let awaits_request = ahead == 0 && self.is_early_on_unix(direction, event);
        // Bytes that are surely inside of a request's body change nothing.
        let comes_in_order =
            ahead == 0 || self.request_direction == Some(direction.other()) && opposite.would_skip(ahead);
        if comes_in_order && !awaits_request || ctx.stats.events_held >= ctx.limits.events_held {
            return None;
        }
        Some(awaits_request)
    }

    /// Gives `event` back if it goes before the events that wait, else reads those first.
    fn after_held<S: Sink>(
        &mut self,
        direction: Direction,
        event: SocketEvent,
        missing: u32,
        process: &ProcessRef,
        ctx: &mut Context<'_, S>,
    ) -> Option<SocketEvent> {
        let seen = self.stream(direction.other()).seen;
        // Each was recorded after the other's bytes had moved. Then what began first goes first.
        let later = |held: &Held| {
            event.opposite_offset > seen && held.events.front().is_some_and(|first| first.event.began < event.began)
        };
        let Some(held) = self.held.take_if(|held| later(held)) else { return Some(event) };
        let due = held.due;
        self.wait(direction, false, due, Waiting::new(event, missing, process), ctx);
        for Waiting { event, missing, process } in held.events {
            ctx.stats.events_held = ctx.stats.events_held.saturating_sub(1);
            self.apply(held.direction, &event, missing, &process, ctx);
        }
        self.release(false, ctx);
        None
    }

    /// A response on a Unix socket to which there is no request (yet).
    fn is_early_on_unix(&self, direction: Direction, event: &SocketEvent) -> bool {
        direction == Direction::Received
            && self.request_direction == Some(Direction::Sent)
            && self.queue.is_empty()
            && matches!(self.received.mode, Mode::Start)
            && event.head.starts_with(b"HTTP/")
            && matches!(self.connection.endpoints, Endpoints::Unix { .. })
    }

    /// Stream offset of the first event of `direction` that waits.
    pub(super) fn waits_at(&self, direction: Direction) -> Option<u64> {
        let held = self.held.as_ref().filter(|held| held.direction == direction)?;
        held.events.front().map(|first| first.event.offset)
    }

    /// Reads the events that wait, as far as what they wait for has come; with `force`, all.
    pub(super) fn release<S: Sink>(&mut self, force: bool, ctx: &mut Context<'_, S>) {
        let Some(held) = &self.held else { return };
        let all = force || held.awaits_request;
        let seen = self.stream(held.direction.other()).seen;
        self.release_until(if all { u64::MAX } else { seen }, ctx);
    }

    /// Reads the events that wait for nothing beyond stream offset `until` of the other direction. What they waited
    /// for and was not seen is lost.
    fn release_until<S: Sink>(&mut self, until: u64, ctx: &mut Context<'_, S>) {
        let Some(mut held) = self.held.take() else { return };
        while let Some(Waiting { event, missing, process }) =
            held.events.pop_front_if(|first| first.event.opposite_offset <= until)
        {
            ctx.stats.events_held = ctx.stats.events_held.saturating_sub(1);
            self.apply(held.direction, &event, missing, &process, ctx);
        }
        if !held.events.is_empty() {
            self.held = Some(held);
        }
    }
}
