//! Traffic for property tests: exchanges that name themselves in target and status, with bodies that look like heads.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{kit::*, recorder::*};
use crate::{exchange::Exchange, model::*};

const FAKES: [&str; 4] = [
    "GET /fake HTTP/1.1\r\nHost: fake\r\n\r\n",
    "HTTP/1.1 599 FAKE\r\nContent-Length: 3\r\n\r\n",
    "0\r\n\r\n",
    "plain text, no head\r\n",
];

/// Status of exchange 0: none of those that follow means that there is no body.
pub(super) const FIRST: usize = 210;

/// A body and how it is framed.
#[derive(Clone)]
pub(super) enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// Content that looks like heads, at every place.
fn content() -> impl Strategy<Value = Vec<u8>> {
    vec((0..FAKES.len(), 0..40_usize), 1..6).prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(fake, filler)| [FAKES[fake].as_bytes().to_vec(), vec![b'x'; filler]].concat())
            .collect()
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![Just(Body::None), content().prop_map(Body::Length), vec(content(), 1..4).prop_map(Body::Chunked)]
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.fields_and_bytes()))
    }
}

impl Body {
    fn fields_and_bytes(&self) -> Vec<u8> {
        match self {
            Body::None => b"Content-Length: 0\r\n\r\n".to_vec(),
            Body::Length(bytes) => [format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes(), bytes].concat(),
            Body::Chunked(chunks) => {
                let mut all = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in chunks {
                    all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    all.extend_from_slice(chunk);
                    all.extend_from_slice(b"\r\n");
                }
                all.extend_from_slice(b"0\r\n\r\n");
                all
            }
        }
    }
}

/// An exchange; its number stands in its target and in its status.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) request: Body,
    pub(super) response: Body,
    pub(super) interim: bool,
    pub(super) head: bool,
    /// The body waits for a 100.
    pub(super) waits: bool,
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    (body(), body(), prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.2)).prop_map(
        |(mut request, response, interim, head, waits)| {
            let waits = waits && !matches!(request, Body::None);
            // A body that begins a turn with a head, after a head and a 100 that are both lost, is a request to
            // anyone who sees it.
            if let (true, Body::Length(bytes)) = (waits, &mut request) {
                bytes.insert(0, b' ');
            }
            Plan { request, response, interim, head, waits }
        },
    )
}

impl Plan {
    pub(super) fn request(&self, n: usize) -> Vec<u8> {
        let method = if self.head { "HEAD" } else { "POST" };
        let expect = if self.waits { "Expect: 100-continue\r\n" } else { "" };
        [format!("{method} /{n} HTTP/1.1\r\nHost: h\r\n{expect}").as_bytes(), &self.request.fields_and_bytes()].concat()
    }

    /// Head and body of the request, where one waits for the other.
    fn request_in_turns(&self, n: usize) -> Vec<Vec<u8>> {
        let mut head = self.request(n);
        if !self.waits {
            return vec![head];
        }
        let body = head.split_off(head.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4);
        vec![head, body]
    }

    pub(super) fn response(&self, n: usize) -> Vec<u8> {
        let interim = if self.interim { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" } else { "" };
        let rest = self.response.fields_and_bytes();
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let rest = if self.head { &rest[..end] } else { &rest };
        [format!("{interim}HTTP/1.1 {} OK\r\n", FIRST + n).as_bytes(), rest].concat()
    }
}

impl Plan {
    /// The same with bodies that look like nothing.
    pub(super) fn plain(self) -> Self {
        let plain = |body| match body {
            Body::None => Body::None,
            Body::Length(bytes) => Body::Length(vec![b'x'; bytes.len()]),
            Body::Chunked(chunks) => Body::Chunked(chunks.iter().map(|chunk| vec![b'x'; chunk.len()]).collect()),
        };
        Plan { request: plain(self.request), response: plain(self.response), ..self }
    }
}

/// The events of `plans` whose sends are recorded late by so many steps. What is received is acted upon only after it is
/// recorded; what is sent may be received elsewhere before the call returns.
pub(super) fn record(plans: &[Plan], cuts: &[Vec<Index>], late: &[u64], client: bool) -> Vec<SocketEvent> {
    let (request, response) = ways(client);
    let mut recorder = Recorder::default();
    let mut late = late.iter().cycle();
    for (n, plan) in plans.iter().enumerate() {
        let mut messages: Vec<_> = plan.request_in_turns(n).into_iter().map(|part| (request, part)).collect();
        if plan.waits {
            messages.insert(1, (response, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
        }
        messages.push((response, plan.response(n)));
        for (way, message) in messages {
            for piece in pieces(&message, &cuts[n]) {
                recorder.call(way, piece, if way == Out { *late.next().unwrap() } else { 0 });
            }
        }
    }
    recorder.events()
}

/// Cuts `bytes` at the given places.
pub(super) fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Number of an exchange, by its target; none for a target that nobody sent.
pub(super) fn number(exchange: &Exchange) -> Option<usize> {
    std::str::from_utf8(&exchange.request.target).ok()?.strip_prefix('/')?.parse().ok()
}

/// Each exchange has the response to its request.
pub(super) fn assert_paired(seen: &Seen) -> Result<(), TestCaseError> {
    for exchange in &seen.exchanges {
        let status = exchange.response.as_ref().map(|response| response.status);
        prop_assert!(status.is_some(), "{:?}", seen.lines());
        prop_assert_eq!(status, number(exchange).map(|n| (FIRST + n) as u16), "{:?}", seen.lines());
    }
    Ok(())
}

/// All but the times.
pub(super) fn timeless(mut seen: Seen) -> Seen {
    for exchange in &mut seen.exchanges {
        (exchange.start, exchange.end, exchange.response_start) = (MonotonicNs(0), MonotonicNs(0), None);
    }
    seen
}

/// The events, to read.
pub(super) fn trace(events: &[SocketEvent]) -> String {
    let line = |event: &SocketEvent| {
        let head = event.head.escape_ascii().to_string();
        format!(
            "{:?} turn {} at {}+{} opposite {} {:.60}",
            event.kind, event.turn, event.offset, event.length, event.opposite_offset, head
        )
    };
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Which side is observed.
pub(super) fn ways(client: bool) -> (Way, Way) {
    if client { (Out, In) } else { (In, Out) }
}

pub(super) fn play(plans: &[Plan], cuts: &[Vec<Index>], client: bool, capture: usize) -> Socket {
    let (request, response) = ways(client);
    let mut s = Socket::new();
    s.capture = capture;
    for (n, plan) in plans.iter().enumerate() {
        let no_cuts = vec![];
        let cuts = cuts.get(n).unwrap_or(&no_cuts);
        for (turn, part) in plan.request_in_turns(n).iter().enumerate() {
            if turn > 0 {
                s.moves(response, b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            pieces(part, cuts).into_iter().for_each(|piece| _ = s.moves(request, piece));
        }
        pieces(&plan.response(n), cuts).into_iter().for_each(|piece| _ = s.moves(response, piece));
    }
    s
}
