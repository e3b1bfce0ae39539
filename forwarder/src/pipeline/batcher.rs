//! When spans go out: as a full request, or when the oldest has waited long enough.
//!
//! In: notes that a span was appended to its process. Out: sealed requests, each process's resource once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::processes::{Known, Processes};
use crate::{
    export::SOFT_REQUEST_BYTES,
    model::ProcessId,
    otlp::request::{ENVELOPE, append_resource},
    telemetry::destination::Destination,
};

/// The very first request goes out after this: a new user looks for it.
const FIRST_TIMEOUT: Duration = Duration::from_millis(200);
/// Space for spans that a process may keep between requests however few it has.
const KEPT_CAPACITY: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Batcher {
    max_spans: u64,
    timeout: Duration,
    first: bool,
    spans: u64,
    bytes: usize,
    /// Processes with spans that wait.
    dirty: Vec<ProcessId>,
    due: Option<Instant>,
    books: Arc<Destination>,
}

impl Batcher {
    pub(super) fn new(max_spans: usize, timeout: Duration, books: Arc<Destination>) -> Self {
        let max_spans = u64::try_from(max_spans.max(1)).unwrap_or(u64::MAX);
        Self { max_spans, timeout, first: true, spans: 0, bytes: 0, dirty: Vec::new(), due: None, books }
    }

    /// Notes that a span was appended to `known`; true if the request is full.
    pub(super) fn appended(&mut self, id: ProcessId, known: &mut Known) -> bool {
        if known.span_count == 0 {
            self.dirty.push(id);
            self.bytes += known.resource.encoded.len() + ENVELOPE;
        } else {
            self.bytes -= known.counted;
        }
        known.span_count += 1;
        known.counted = known.spans.len();
        self.bytes += known.counted;
        self.spans += 1;
        self.books.accepted.add(1);
        self.books.pending.set(self.spans);
        if self.due.is_none() {
            let timeout = if self.first { self.timeout.min(FIRST_TIMEOUT) } else { self.timeout };
            self.due = Some(Instant::now() + timeout);
        }
        self.spans >= self.max_spans || self.bytes >= SOFT_REQUEST_BYTES
    }

    /// When the oldest span has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The request with all spans that wait, if any.
    pub(super) fn seal(&mut self, processes: &mut Processes) -> Vec<(Bytes, u64)> {
        if self.spans == 0 {
            return Vec::new();
        }
        let mut body = Vec::with_capacity(self.bytes);
        for id in self.dirty.drain(..) {
            let Some(known) = processes.get_known(id) else { continue };
            append_resource(&mut body, &known.resource.encoded, &known.spans);
            // A busy process keeps its buffer: growing it anew for each request costs more than the spans in it.
            let used = known.spans.len();
            known.spans.clear();
            if known.spans.capacity() / 4 > used {
                known.spans.shrink_to(used.saturating_mul(2).max(KEPT_CAPACITY));
            }
            (known.span_count, known.counted) = (0, 0);
        }
        let spans = std::mem::take(&mut self.spans);
        (self.bytes, self.due, self.first) = (0, None, false);
        self.books.pending.set(0);
        vec![(body.into(), spans)]
    }
}
