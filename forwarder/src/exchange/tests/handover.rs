//! Two runs of the agent that observe beside each other for a while: each exchange comes out once, or is counted.

use std::{collections::HashSet, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{kit::*, plan::*};
use crate::{
    exchange::{Exchange, Handover, Limits, Opened, Sink, Table, Whose},
    loss::Reason,
    model::*,
};

/// What a socket's bytes are known by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    Sequence,
    Time,
    /// The two runs have cookies of their own.
    Nothing,
}

/// The new run's: leaves out what the old one has told, as the intake does.
struct Second {
    from: Handover,
    until: MonotonicNs,
    known: bool,
    told: HashSet<u64>,
    seen: Seen,
}

impl Sink for Second {
    fn exchange(&mut self, exchange: Exchange) {
        if !self.told.remove(&exchange.serial) {
            self.seen.exchange(exchange);
        }
    }
    fn loss(&mut self, reason: Reason, n: u64) {
        if !self.known {
            self.seen.loss(reason, n);
        }
    }
    fn opened(&mut self, opened: &Opened<'_>) {
        if self.from.whose(opened, self.until) == Whose::Told {
            self.told.insert(opened.serial);
        }
    }
}

fn connection(known: Known, id: u64, bases: [u32; 2]) -> ConnectionRef {
    let tie = match known {
        Known::Sequence => Tie::Sequence { received: bases[0], sent: bases[1] },
        _ => Tie::Unknown,
    };
    Arc::new(Connection { tie, ..(*tcp(id)).clone() })
}

/// The old run sees `events` up to `to`, the new one those from `from` on, recorded `apart` later. `gone`: the old one says when it
/// ended so long after its last event. Gives what each reported, and how many are counted as lost.
fn runs(
    events: &[SocketEvent],
    (from, to): (usize, usize),
    known: Known,
    (apart, gone): (i64, u64),
) -> (Seen, Seen, u64) {
    // The old run met the connection some bytes ago; its numbers wrap.
    let base = [u32::MAX - 40, u32::MAX - 1000];
    let mut old = Bench::new(Limits::default());
    old.table.connection(connection(known, 7, base), &mut old.seen);
    old.feed(events[..to].to_vec());
    let until = MonotonicNs(to.checked_sub(1).map_or(0, |last| events[last].time.0 + gone));
    let handover = old.table.hand_over(&mut old.seen);

    let Some(first) = events.get(from) else { return (old.seen, Seen::default(), handover.left()) };
    let way = |event: &SocketEvent| usize::from(event.kind == EventKind::Send);
    let mut moved = [0; 2];
    (moved[way(first)], moved[1 - way(first)]) = (first.offset, first.opposite_offset);
    let id = if known == Known::Nothing { 8 } else { 7 };
    let bases = [0, 1].map(|n| base[n].wrapping_add(moved[n] as u32));
    let mut sink = Second { from: handover, until, known: false, told: HashSet::new(), seen: Seen::default() };
    let mut table = Table::new(Limits::default());
    let mut now = 1000 * MS;
    table.tick(MonotonicNs(now), &mut sink);
    table.connection(connection(known, id, bases), &mut sink);
    for event in &events[from..] {
        let mut event = event.clone();
        event.socket = SocketId(id);
        event.offset -= moved[way(&event)];
        event.opposite_offset -= moved[1 - way(&event)];
        event.turn = event.turn - first.turn + 1;
        event.time = MonotonicNs(event.time.0.saturating_add_signed(apart));
        event.began = event.time;
        while now + 100 * MS <= event.time.0 {
            now += 100 * MS;
            table.tick(MonotonicNs(now), &mut sink);
        }
        sink.known = event.time <= until;
        table.event(event, &process(1), &mut sink);
    }
    sink.known = false;
    table.tick(MonotonicNs(now + 4000 * MS), &mut sink);
    table.drain(&mut sink);
    let lost = old.seen.lost() + sink.seen.lost() + sink.from.left();
    (old.seen, sink.seen, lost)
}

fn check(plans: &[Plan], cuts: &[Vec<Index>], client: bool, range: (usize, usize), known: Known, times: (i64, u64)) {
    let events = play(plans, cuts, client, 4096).events;
    let starts: Vec<usize> = (0..=plans.len()).map(|n| play(&plans[..n], cuts, client, 4096).events.len()).collect();
    let (old, new, lost) = runs(&events, range, known, times);
    let (from, to) = range;
    let mut reported = 0;
    for n in 0..plans.len() {
        let times = |seen: &Seen| seen.exchanges.iter().filter(|exchange| number(exchange) == Some(n)).count();
        let all = times(&old) + times(&new);
        reported += all as u64;
        assert!(all <= 1, "{n} is reported {all} times: {:?} {:?}\n{}", old.lines(), new.lines(), trace(&events));
        // One of the two has seen it as a whole, and the new one knows where the old one was.
        let whole = starts[n] >= from && known != Known::Nothing || starts[n + 1] <= to;
        assert!(all == 1 || !whole, "{n} is missing: {:?} {:?}\n{}", old.lines(), new.lines(), trace(&events));
    }
    assert!(
        reported + lost >= plans.len() as u64,
        "{:?} {:?}, {lost} lost\n{}",
        old.lines(),
        new.lines(),
        trace(&events)
    );
    // Nobody saw the rest of at most one: it may be counted by both.
    assert!(
        reported + lost <= plans.len() as u64 + 1,
        "{:?} {:?}, {lost} lost\n{}",
        old.lines(),
        new.lines(),
        trace(&events)
    );
}

#[test]
fn what_the_old_run_only_announced_is_left_to_the_new_one() {
    let request = "GET /a HTTP/1.1\r\n\r\n";
    let mut old = Bench::new(Limits::default());
    // It was losing sight of the connection, and met it when the request was over.
    old.table.connection(connection(Known::Sequence, 7, [1000 + request.len() as u32, 500]), &mut old.seen);
    let from = old.table.hand_over(&mut old.seen);
    let until = MonotonicNs(1000 * MS);
    let mut sink = Second { from, until, known: false, told: HashSet::new(), seen: Seen::default() };
    let mut table = Table::new(Limits::default());
    let mut socket = Socket::new();
    socket.recv(request).send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    table.connection(connection(Known::Sequence, 7, [1000, 500]), &mut sink);
    for mut event in socket.events {
        event.socket = SocketId(7);
        table.event(event, &process(1), &mut sink);
    }
    assert_eq!(sink.seen.lines(), ["GET /a 200 complete"]);
}

proptest! {
    /// Wherever the one ends and the other begins.
    #[test]
    fn each_exchange_comes_out_once(
        plans in vec(plan(), 1..6),
        cuts in vec(vec(any::<Index>(), 0..4), 6),
        (from, to) in any::<(Index, Index)>(),
        known in prop::sample::select(vec![Known::Sequence, Known::Time, Known::Nothing]),
        apart in prop::sample::select(vec![-2000_i64, 0, 2000]),
        // Some time in which there was nothing.
        gone in 2000..900_000_u64,
        client: bool,
    ) {
        let plans: Vec<Plan> = plans.into_iter().map(Plan::plain).collect();
        let events = play(&plans, &cuts, client, 4096).events;
        let to = to.index(events.len() + 1);
        let mut from = from.index(to + 1);
        // The rest of a head, with which an agent begins, may look like a head: that is so wherever one begins.
        while from > 0 && from < events.len() && events[from].turn == events[from - 1].turn {
            from -= 1;
        }
        check(&plans, &cuts, client, (from, to), known, (apart, gone));
    }
}

/// The moment of the end lies between the two records of one call.
#[test]
fn an_end_between_two_records_of_a_call_tells_nothing_twice() {
    let plan = Plan { request: Body::None, response: Body::None, interim: false, head: false, waits: false };
    for known in [Known::Sequence, Known::Time] {
        for to in 0..=8 {
            // The new run records it after that moment; or the old one after, so that it left it out.
            check(&vec![plan.clone(); 4], &[], false, (0, to), known, (2000, 500));
            check(&vec![plan.clone(); 4], &[], false, (0, to), known, (-2000, MS - 500));
        }
    }
}

/// A request that both saw begin is finished by the new run, one that it did not see begin is counted.
#[test]
fn what_is_open_is_gone_on_with() {
    let mut s = Socket::new();
    s.recv("GET /0 HTTP/1.1\r\n\r\n").send("HTTP/1.1 210 OK\r\nContent-Length: 4\r\n\r\n").send("body");
    let (old, new, lost) = runs(&s.events, (0, 2), Known::Sequence, (1000, 2000));
    assert_eq!((old.lines(), new.lines(), lost), (vec![], vec!["GET /0 210 complete".to_owned()], 0));
    let (old, new, lost) = runs(&s.events, (1, 2), Known::Sequence, (1000, 2000));
    assert_eq!((old.exchanges.len(), new.exchanges.len(), lost), (0, 0, 1));
}
