//! Requests that wait for their response.
//!
//! In: requests as they are read. Out: the oldest of a connection, once its response is complete. All connections
//! share one slab, so that an idle connection holds no memory for requests and a request costs no allocation.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::{Request, Response, capture::Captured};
use crate::model::{MonotonicNs, ProcessRef};

/// A request and what is known of its response.
#[derive(Debug)]
pub(super) struct Open {
    /// Names it, once it was pushed.
    pub(super) serial: u64,
    /// The request.
    pub(super) request: Request,
    /// Who read or wrote it.
    pub(super) process: ProcessRef,
    /// Which thread did.
    pub(super) thread: u32,
    /// That was a call that waits for data.
    pub(super) blocking: bool,
    /// When that call began and had ended.
    pub(super) call: (MonotonicNs, MonotonicNs),
    /// Its first byte.
    pub(super) start: MonotonicNs,
    /// How much of that was waiting in the kernel.
    pub(super) queued: Option<Duration>,
    /// Which request of its connection it is.
    pub(super) number: u32,
    /// Stream offset of its first byte.
    pub(super) offset: u64,
    /// Bytes of the response direction that had been moved when it was read or written.
    pub(super) opposite: u64,
    /// Requests before it may be missing.
    pub(super) after_gap: bool,
    /// Its response may lie in a hole.
    pub(super) doubtful: bool,
    /// It waits for a 100 before it sends its body.
    pub(super) expects_continue: bool,
    /// Its final response, once that has begun; second: when.
    pub(super) response: Option<(Response, MonotonicNs)>,
    /// When it came, on the clock of the table; 0 once its memory is its own.
    since: u64,
    /// What it takes, counted in [`Requests`].
    bytes: usize,
    next: u32,
}

/// What [`Requests::push`] takes, apart from what it sets itself.
pub(super) type NewOpen = Open;

const NONE: u32 = u32::MAX;

/// The open requests of one connection, oldest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    front: u32,
    back: u32,
    length: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { front: NONE, back: NONE, length: 0 }
    }
}

impl Queue {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Open {
    /// A request without links; the flags are for the caller to set.
    #[allow(clippy::too_many_arguments, reason = "a constructor of plain facts, called once")]
    pub(super) fn new(
        request: Request,
        process: ProcessRef,
        thread: u32,
        start: MonotonicNs,
        queued: Option<Duration>,
        offset: u64,
        opposite: u64,
        expects_continue: bool,
    ) -> Self {
        Open {
            serial: 0,
            request,
            process,
            thread,
            blocking: false,
            call: (start, start),
            start,
            queued,
            number: 0,
            offset,
            opposite,
            after_gap: false,
            doubtful: false,
            expects_continue,
            response: None,
            since: 0,
            bytes: 0,
            next: NONE,
        }
    }

    /// Gives the request memory of its own, in one piece. Its fields are slices of what the event came in, which may
    /// be a whole batch: a request that waits for minutes must not hold that.
    fn detach(&mut self) {
        let mut fields = self.fields();
        let mut own = BytesMut::with_capacity(fields.iter().map(|field| field.len()).sum());
        for field in &mut fields {
            own.extend_from_slice(field);
            **field = own.split().freeze();
        }
    }

    /// What it takes, once it has memory of its own.
    fn size(&mut self) -> usize {
        let captured = size_of_captured(&self.request.headers.captured);
        size_of::<Self>() + captured + self.fields().iter().map(|field| field.len()).sum::<usize>()
    }

    /// What may share the memory of the batch.
    fn fields(&mut self) -> Vec<&mut Bytes> {
        let headers = &mut self.request.headers;
        let mut fields: Vec<&mut Bytes> = vec![&mut self.request.method, &mut self.request.target];
        fields.extend(headers.traceparent.iter_mut().chain(headers.tracestate.iter_mut()));
        let single = [
            &mut headers.host,
            &mut headers.user_agent,
            &mut headers.forwarded,
            &mut headers.x_forwarded_for,
            &mut headers.x_forwarded_proto,
            &mut headers.x_forwarded_host,
        ];
        fields.extend(single.into_iter().flatten());
        fields
    }
}

/// The open requests of all connections.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slab: Slab<Open>,
    /// Of the newest request.
    serial: u64,
    /// What they take.
    bytes: usize,
}

/// Bytes of captured fields.
fn size_of_captured(captured: &Captured) -> usize {
    captured.iter().map(|(_, value)| size_of::<(Arc<str>, Bytes)>() + value.len()).sum()
}

impl Requests {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes that they take, once each has memory of its own.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends to `queue`; `now` is the clock of the table.
    pub(super) fn push(&mut self, queue: &mut Queue, mut request: NewOpen, now: u64) {
        request.since = now.max(1);
        request.bytes = request.size();
        self.serial += 1;
        request.serial = self.serial;
        self.bytes += request.bytes;
        let key = self.slab.insert(request) as u32;
        match self.slab.get_mut(queue.back as usize) {
            Some(back) => back.next = key,
            None => queue.front = key,
        }
        queue.back = key;
        queue.length += 1;
    }

    /// Takes the oldest of `queue`.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<Open> {
        let open = self.slab.try_remove(queue.front as usize)?;
        self.bytes = self.bytes.saturating_sub(open.bytes);
        queue.front = open.next;
        queue.length -= 1;
        if queue.length == 0 {
            *queue = Queue::default();
        }
        Some(open)
    }

    /// The oldest of `queue`.
    pub(super) fn front(&self, queue: &Queue) -> Option<&Open> {
        self.slab.get(queue.front as usize)
    }

    /// The oldest of `queue`, to change.
    pub(super) fn front_mut(&mut self, queue: &Queue) -> Option<&mut Open> {
        self.slab.get_mut(queue.front as usize)
    }

    /// The newest of `queue`.
    pub(super) fn back(&self, queue: &Queue) -> Option<&Open> {
        self.slab.get(queue.back as usize)
    }

    /// The newest of `queue`, to change.
    pub(super) fn back_mut(&mut self, queue: &Queue) -> Option<&mut Open> {
        self.slab.get_mut(queue.back as usize)
    }

    /// The oldest of `queue` has got its final response.
    pub(super) fn answer(&mut self, queue: &Queue, response: Response, at: MonotonicNs) {
        let Some(open) = self.slab.get_mut(queue.front as usize) else { return };
        let more = size_of_captured(&response.captured);
        open.response = Some((response, at));
        open.bytes += more;
        self.bytes += more;
    }

    /// All of `queue`, oldest first.
    pub(super) fn iter<'a>(&'a self, queue: &Queue) -> impl Iterator<Item = &'a Open> {
        let mut next = queue.front;
        std::iter::from_fn(move || {
            let open = self.slab.get(next as usize)?;
            next = open.next;
            Some(open)
        })
    }

    /// Changes each of `queue`, oldest first.
    pub(super) fn each(&mut self, queue: &Queue, mut change: impl FnMut(&mut Open)) {
        let mut next = queue.front;
        while let Some(open) = self.slab.get_mut(next as usize) {
            change(open);
            next = open.next;
        }
    }

    /// Gives requests that came before `before` memory of their own.
    pub(super) fn detach(&mut self, before: u64) {
        for (_, open) in &mut self.slab {
            if open.since != 0 && open.since < before {
                open.detach();
                open.since = 0;
            }
        }
    }

    /// Forgets all, with their memory.
    pub(super) fn clear(&mut self) {
        *self = Self { serial: self.serial, ..Self::default() };
    }
}
