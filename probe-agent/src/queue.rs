//! Batches between the ring buffer and the forwarder.
//!
//! In: encoded batches. Out: the next to send; a batch leaves when it is acknowledged. Bounded in bytes: when there is
//! no room, the ring buffer is left alone, so that there is one place where events are lost, and it counts them.

use std::collections::VecDeque;

use bytes::Bytes;

/// Batches that the forwarder has not taken over.
#[derive(Debug)]
pub struct Queue {
    batches: VecDeque<Waiting>,
    /// How many of them, from the front, are on their way.
    sent: usize,
    bytes: usize,
    /// How many of them hold events.
    with_events: usize,
    limit: usize,
    last_sequence: u64,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    bytes: Bytes,
    has_events: bool,
}

impl Queue {
    /// An empty queue that takes batches as long as it holds less than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { batches: VecDeque::new(), sent: 0, bytes: 0, with_events: 0, limit, last_sequence: 0 }
    }

    /// Whether another batch may be made.
    pub fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// Whether everything was taken over.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether anything is held that no later stream would tell anyway: processes and figures are told to each again.
    pub fn holds_events(&self) -> bool {
        self.with_events > 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sequence for the next batch.
    pub fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Takes a batch whose sequence came from [`Self::next_sequence`].
    pub fn push(&mut self, sequence: u64, bytes: Bytes, has_events: bool) {
        self.bytes += bytes.len();
        self.with_events += usize::from(has_events);
        self.batches.push_back(Waiting { sequence, bytes, has_events });
    }

    /// The next batch that is not on its way yet.
    pub fn send_next(&mut self) -> Option<Bytes> {
        let bytes = self.batches.get(self.sent)?.bytes.clone();
        self.sent += 1;
        Some(bytes)
    }

    /// Lets go of everything up to `sequence`. An acknowledgement of what was never sent is ignored.
    pub fn acknowledge(&mut self, sequence: u64) {
        while self.sent > 0 && self.batches.front().is_some_and(|front| front.sequence <= sequence) {
            self.sent -= 1;
            if let Some(front) = self.batches.pop_front() {
                self.bytes -= front.bytes.len();
                self.with_events -= usize::from(front.has_events);
            }
        }
    }

    /// Whether anything was sent that the other end has not acknowledged.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.sent > 0
    }

    /// The stream is gone: what was not acknowledged was not taken over and goes to the next.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let mut queue = Queue::new(10);
        for _ in 0..3 {
            let sequence = queue.next_sequence();
            queue.push(sequence, Bytes::from_static(b"1234"), sequence == 2);
        }
        assert!(!queue.has_room());
        queue.acknowledge(3);
        assert_eq!(queue.bytes(), 12, "nothing was sent, nothing can be acknowledged");
        assert!(queue.send_next().is_some() && queue.send_next().is_some());
        queue.acknowledge(1);
        assert!(queue.has_room());
        queue.rewind();
        assert!(queue.holds_events(), "sent, but not taken over");
        assert!(queue.send_next().is_some() && queue.send_next().is_some() && queue.send_next().is_none());
        queue.acknowledge(2);
        assert!(!queue.holds_events() && !queue.is_empty(), "figures only");
        queue.acknowledge(u64::MAX);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
