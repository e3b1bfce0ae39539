//! Calls whose bytes move at one time and that are recorded at another.

use bytes::Bytes;

use super::kit::*;
use crate::{model::*, sample};

struct Call {
    way: Way,
    bytes: Vec<u8>,
    moved_at: u64,
    recorded_at: u64,
}

/// Collects calls in the order in which their bytes move; gives events in the order in which they are recorded.
#[derive(Default)]
pub(super) struct Recorder {
    calls: Vec<Call>,
    now: u64,
}

impl Recorder {
    /// A call whose bytes move next, recorded `late` time steps after. Calls of one direction follow each other.
    pub(super) fn call(&mut self, way: Way, bytes: &[u8], late: u64) {
        let before = self.calls.iter().rev().find(|call| call.way == way).map_or(0, |call| call.recorded_at);
        self.now = (self.now + 2).max(before + 1);
        self.calls.push(Call { way, bytes: bytes.to_vec(), moved_at: self.now, recorded_at: self.now + late * 2 + 1 });
    }

    /// Offsets are those of the moved bytes; turns count in the order of recording.
    pub(super) fn events(mut self) -> Vec<SocketEvent> {
        let mut moved = [0; 2];
        let mut calls = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            calls.push((moved[call.way as usize], call));
            let last = &calls.last().unwrap().1;
            moved[last.way as usize] += last.bytes.len() as u64;
        }
        let opposite = |way: Way, at: u64| -> u64 {
            calls
                .iter()
                .filter(|(_, call)| call.way != way && call.moved_at < at)
                .map(|(_, call)| call.bytes.len() as u64)
                .sum()
        };
        let mut events: Vec<_> = calls
            .iter()
            .map(|(offset, call)| SocketEvent {
                began: MonotonicNs(1000 * MS + call.moved_at),
                thread: 11,
                offset: *offset,
                length: call.bytes.len() as u32,
                opposite_offset: opposite(call.way, call.recorded_at),
                head: Bytes::copy_from_slice(&call.bytes),
                ..sample::socket_event(
                    if call.way == In { EventKind::Receive } else { EventKind::Send },
                    7,
                    1000 * MS + call.recorded_at,
                )
            })
            .collect();
        events.sort_by_key(|event| event.time);
        let mut turn = 0;
        let mut last = events.first().map(|event| event.kind);
        for event in &mut events {
            if last != Some(event.kind) {
                turn += 1;
                last = Some(event.kind);
            }
            event.turn = turn;
        }
        events
    }
}
