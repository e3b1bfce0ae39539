//! What one run of the agent has told, when another that observed beside it takes its place.
//!
//! In: the connections of a table, as the old run has left them; requests that the new run tells. Out: whether the old run told
//! of a request as well, and if so whether it saw what became of it. Each request is then reported once, or counted once.
//!
//! Both runs know a connection by the same socket, except where cookies are the agent's own (docs/kernels.md). Bytes of TCP are
//! known by their sequence numbers, so that no clock is asked; plaintext of TLS and Unix sockets have none, there it is the times
//! at which the two runs recorded the same call, which differ by microseconds.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::{
    Opened, Side,
    connection::{Connection, Phase},
    requests::Requests,
    stream::{Direction, Mode},
};
use crate::model::{MonotonicNs, SocketId, Tie};

/// By how much the times may differ at which two runs recorded the same call, nanoseconds. More is an interrupt between the two.
const APART: u64 = 100_000;

/// Whose a request is that the new run tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The old run saw nothing of it.
    New,
    /// The old run saw it begin and not end: the new one goes on with it.
    Adopted,
    /// The old run has told of it.
    Told,
}

/// The connections of the old run. As many as the table held; with nothing open each takes some 60 bytes.
#[derive(Debug, Default)]
pub struct Handover {
    sockets: HashMap<u64, Heard, FxBuildHasher>,
    /// Requests that nobody has gone on with.
    open: u64,
}

#[derive(Debug)]
struct Heard {
    /// TCP: sequence number of the first byte that it has not told of, received and sent.
    ends: Option<[u32; 2]>,
    /// When it last told of bytes.
    last: MonotonicNs,
    /// Requests without their response, the oldest first, and heads that are not whole.
    open: Vec<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    key: Key,
    /// It was told to begin: its head was seen to the end.
    begun: bool,
}

/// A request by the sequence number of its first byte, or by when that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Byte(u32),
    Call(MonotonicNs),
}

impl Handover {
    /// Takes note of a connection as it stands. Events of it that wait for earlier ones count as not told.
    pub(super) fn note(&mut self, socket: SocketId, connection: &Connection, requests: &Requests) {
        let base = base(&connection.connection.tie, connection.tls);
        let end = |direction: Direction, base: u32| {
            let stream = connection.stream(direction);
            let end = if let Mode::Head(head) = &stream.mode { head.offset } else { stream.seen };
            base.wrapping_add(end as u32)
        };
        let key = |direction: Direction, offset: u64, time: MonotonicNs| match base {
            Some(base) => Key::Byte(of(direction, base).wrapping_add(offset as u32)),
            None => Key::Call(time),
        };
        let mut open = Vec::new();
        for direction in [Direction::Received, Direction::Sent] {
            if connection.request_direction.is_some_and(|requests| requests != direction) {
                continue;
            }
            let begun = requests.iter(&connection.queue).filter(|_| connection.request_direction.is_some());
            open.extend(begun.map(|open| Unfinished { key: key(direction, open.offset, open.call.1), begun: true }));
            if let Mode::Head(head) = &connection.stream(direction).mode {
                open.push(Unfinished { key: key(direction, head.offset, head.origin.time), begun: false });
            }
        }
        self.open += open.len() as u64;
        // Of one that was only announced nothing was told, and its offsets may begin anywhere: the old run was losing sight of it.
        let told = connection.phase != Phase::New;
        let heard = Heard {
            ends: base
                .filter(|_| told)
                .map(|[received, sent]| [end(Direction::Received, received), end(Direction::Sent, sent)]),
            last: connection.received.last.max(connection.sent.last),
            open,
        };
        self.sockets.insert(socket.0, heard);
    }

    /// Whose the request is. `until`: the old run observed until then. To be asked once for each.
    pub fn whose(&mut self, opened: &Opened<'_>, until: MonotonicNs) -> Whose {
        let Some(heard) = self.sockets.get_mut(&opened.connection.socket.0) else {
            // It is over, or came later.
            return if opened.time <= until { Whose::Told } else { Whose::New };
        };
        let direction = if opened.side == Side::Server { Direction::Received } else { Direction::Sent };
        let byte = base(&opened.connection.tie, opened.tls)
            .zip(heard.ends)
            .map(|(base, ends)| (of(direction, base).wrapping_add(opened.offset as u32), of(direction, ends)));
        let place = heard.open.iter().position(|open| match (open.key, byte) {
            (Key::Byte(known), Some((byte, _))) => known == byte,
            (Key::Call(known), None) => known.0.abs_diff(opened.time.0) <= APART,
            _ => false,
        });
        if let Some(place) = place {
            self.open = self.open.saturating_sub(1);
            return if heard.open.remove(place).begun { Whose::Adopted } else { Whose::New };
        }
        let told = match byte {
            // Half of the numbers lie before another (RFC 9293, section 3.4).
            Some((byte, end)) => end.wrapping_sub(byte).wrapping_sub(1) < 1 << 31,
            None => opened.time <= heard.last,
        };
        if told { Whose::Told } else { Whose::New }
    }

    /// Requests that the old run saw begin and that nobody has gone on with.
    pub fn left(&self) -> u64 {
        self.open
    }

    /// Connections that it knows.
    pub fn connections(&self) -> usize {
        self.sockets.len()
    }
}

fn of(direction: Direction, [received, sent]: [u32; 2]) -> u32 {
    if direction == Direction::Received { received } else { sent }
}

/// Sequence numbers at offset 0, if offsets are those of TCP.
fn base(tie: &Tie, tls: bool) -> Option<[u32; 2]> {
    match tie {
        Tie::Sequence { received, sent } if !tls => Some([*received, *sent]),
        _ => None,
    }
}
