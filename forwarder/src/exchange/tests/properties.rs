//! What must hold for any traffic: split, interleaved, reordered, with losses, random.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{kit::*, plan::*};
use crate::{exchange::Limits, model::*};

proptest! {
    /// However messages are split into calls, the exchanges are the same; and right.
    #[test]
    fn any_split(plans in vec(plan(), 1..5), cuts in vec(vec(any::<Index>(), 0..12), 5), client: bool) {
        let whole = timeless(play(&plans, &[], client, 1 << 20).seen());
        prop_assert_eq!(whole.exchanges.len(), plans.len());
        prop_assert_eq!(whole.lost(), 0);
        assert_paired(&whole)?;
        let split = timeless(play(&plans, &cuts, client, 1 << 20).seen());
        prop_assert_eq!(&split, &whole);
        // With little captured, sizes may be unknown, but not the exchanges.
        let little = play(&plans, &cuts, client, 200).seen();
        prop_assert_eq!(little.lines(), whole.lines());
    }

    /// A client may send requests before it has the responses, a server may read them when it likes.
    #[test]
    fn any_interleaving(
        plans in vec(plan(), 1..6),
        cuts in vec(any::<Index>(), 0..30),
        order in vec(any::<bool>(), 200),
        client: bool,
    ) {
        let (way_in, way_out) = ways(client);
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        // A piece of a response may go once this much of the requests has come.
        let mut needs = Vec::new();
        for (n, plan) in plans.iter().enumerate() {
            requests.extend(plan.request(n));
            let response = plan.response(n);
            needs.extend(std::iter::repeat_n(requests.len(), response.len()));
            responses.extend(response);
        }
        let mut s = Socket::new();
        s.capture = 1 << 20;
        let (mut ins, mut outs) = (pieces(&requests, &cuts).into_iter(), pieces(&responses, &cuts).into_iter().peekable());
        let (mut came, mut went, mut order) = (0, 0, order.into_iter().cycle());
        while went < responses.len() {
            let ready = outs.peek().is_some_and(|piece| needs[went + piece.len() - 1] <= came);
            if ready && (order.next().unwrap() || came == requests.len()) {
                let piece = outs.next().unwrap();
                went += piece.len();
                s.moves(way_out, piece);
            } else {
                let piece = ins.next().unwrap();
                came += piece.len();
                s.moves(way_in, piece);
            }
        }
        let events = trace(&s.events);
        let seen = s.seen();
        prop_assert_eq!(seen.lost(), 0);
        prop_assert_eq!(seen.exchanges.len(), plans.len());
        assert_paired(&seen).map_err(|error| TestCaseError::fail(format!("{error}\n{events}")))?;
        prop_assert!(seen.exchanges.iter().enumerate().all(|(n, exchange)| number(exchange) == Some(n)));
    }

    /// Whatever events are lost: no wrong pair, nothing invented, and as many exchanges counted as there were.
    #[test]
    fn any_loss(
        plans in vec(plan(), 1..8),
        cuts in vec(vec(any::<Index>(), 0..3), 8),
        keep in vec(prop::bool::weighted(0.8), 100),
        client: bool,
        (ends, whole_start) in any::<(bool, bool)>(),
        capture in prop::sample::select(vec![200_usize, 4096]),
    ) {
        let mut s = play(&plans, &cuts, client, capture);
        let mut keep = keep.into_iter().cycle();
        // What was missed before the first message that is seen cannot be told from a connection met late.
        s.events.retain(|event| event.turn < 2 && whole_start || keep.next().unwrap());
        if ends {
            s.close();
        } else {
            // An exchange that is seen, so that what is missing before it shows.
            let (request, response) = ways(client);
            let n = plans.len();
            s.moves(request, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
            s.moves(response, format!("HTTP/1.1 {} OK\r\nContent-Length: 0\r\n\r\n", FIRST + n).as_bytes());
        }
        let events = trace(&s.events);
        let seen = s.seen();
        assert_paired(&seen).map_err(|error| TestCaseError::fail(format!("{error}\n{events}")))?;
        let all = plans.len() as u64 + u64::from(!ends);
        let counted = seen.exchanges.len() as u64 + seen.lost();
        // A turn that is missing may have been a 100 or what waited for it: then the numbers are not exact.
        let exact = plans.iter().all(|plan| !plan.waits);
        prop_assert!(!exact || counted <= all && (!whole_start || counted == all), "{:?}\n{}", seen.lines(), events);
    }

    /// The same with one event for each message: then the numbers are exact.
    #[test]
    fn losses_are_counted_exactly(keep in vec(prop::bool::weighted(0.6), 2..60), client: bool, ends: bool) {
        let plan = Plan { request: Body::None, response: Body::None, interim: false, head: false, waits: false };
        let all = keep.len() / 2;
        let mut s = play(&vec![plan; all], &[], client, 4096);
        let (first, mut at) = (2, 0);
        s.events.retain(|_| {
            at += 1;
            at <= first || keep[at - 1]
        });
        if ends {
            s.close();
        } else {
            s.events.truncate(s.events.len().max(first));
            let last = s.events.last().unwrap().clone();
            s.turn = last.turn.max(s.turn);
            let (request, response) = ways(client);
            s.moves(request, format!("GET /{all} HTTP/1.1\r\n\r\n").as_bytes());
            s.moves(response, format!("HTTP/1.1 {} OK\r\nContent-Length: 0\r\n\r\n", FIRST + all).as_bytes());
        }
        let events = trace(&s.events);
        let seen = s.seen();
        assert_paired(&seen).map_err(|error| TestCaseError::fail(format!("{error}\n{events}")))?;
        prop_assert_eq!(seen.exchanges.len() as u64 + seen.lost(), all as u64 + u64::from(!ends), "{:?}\n{}", seen.lines(), events);
    }

    /// Responses of a client that pipelines are lost: no wrong pair.
    #[test]
    fn lost_responses_while_pipelining(batches in vec(1..5_usize, 1..8), keep in vec(prop::bool::weighted(0.8), 40), joined: bool) {
        let mut s = Socket::new();
        let (mut n, mut dropped, mut keep) = (0, Vec::new(), keep.into_iter().cycle());
        for batch in batches {
            let heads: String = (n..n + batch).map(|n| format!("GET /{n} HTTP/1.1\r\n\r\n")).collect();
            s.recv(heads);
            // With `joined`, the last response goes after the next batch came.
            let left = if joined { 1 } else { 0 };
            let ready = dropped.len() / 2..n + batch - left;
            for n in ready {
                s.send(format!("HTTP/1.1 {} OK\r\nContent-Length: 2\r\n\r\n", FIRST + n)).send("ok");
                dropped.extend([!keep.next().unwrap(), !keep.next().unwrap()]);
            }
            n += batch;
        }
        let mut dropped = dropped.into_iter();
        s.events.retain(|event| event.kind == EventKind::Receive || !dropped.next().unwrap());
        let events = trace(&s.events);
        assert_paired(&s.seen()).map_err(|error| TestCaseError::fail(format!("{error}\n{events}")))?;
    }

    /// Calls that are recorded late change nothing.
    #[test]
    fn late_records(
        plans in vec(plan(), 1..6),
        cuts in vec(vec(any::<Index>(), 0..3), 6),
        late in vec(0..8_u64, 100),
        client: bool,
    ) {
        let events = record(&plans, &cuts, &late, client);
        let seen = run(events.clone());
        prop_assert_eq!(seen.lost(), 0, "{:?}\n{}", seen.lines(), trace(&events));
        prop_assert_eq!(seen.exchanges.len(), plans.len());
        assert_paired(&seen)?;
    }

    /// If events are lost besides, there is still no wrong pair. Bodies are plain here: where calls overlap, a turn may
    /// seem to begin in the middle of a body, and only its content tells.
    #[test]
    fn late_records_and_loss(
        plans in vec(plan(), 1..6),
        cuts in vec(vec(any::<Index>(), 0..3), 6),
        late in vec(0..8_u64, 100),
        keep in vec(prop::bool::weighted(0.8), 100),
        client: bool,
    ) {
        let plans: Vec<_> = plans.into_iter().map(Plan::plain).collect();
        let mut keep = keep.into_iter().cycle();
        let events: Vec<_> = record(&plans, &cuts, &late, client).into_iter().filter(|_| keep.next().unwrap()).collect();
        let seen = run(events.clone());
        assert_paired(&seen).map_err(|error| TestCaseError::fail(format!("{error}\n{}", trace(&events))))?;
    }

    /// Events that no kernel would send: no panic, no invented status, and the numbers add up.
    #[test]
    fn random_events(events in vec(random_event(), 0..60)) {
        let mut bench = Bench::new(Limits { connections: 2, pipeline: 3, ..Limits::default() });
        bench.feed(events.clone());
        bench.pass(3000);
        bench.table.process_ended(ProcessId(1), MonotonicNs(0));
        bench.pass(3000);
        bench.table.drain(&mut bench.seen);
        bench.check();
        for exchange in &bench.seen.exchanges {
            if let Some(response) = &exchange.response {
                prop_assert!([200, 204, 404, 101].contains(&response.status));
            }
        }
    }
}

/// Pieces of heads and bodies, anywhere.
fn random_event() -> impl Strategy<Value = SocketEvent> {
    let texts = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 204 N\r\n\r\n",
        "HTTP/1.0 404 N\r\n\r\n",
        "HTTP/1.1 101 S\r\n\r\n",
        "HTTP/1.1 100 C\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "GE",
        "HTTP/1.1 2",
        "\r\n",
        "\0\u{1}garbage",
        "",
    ]);
    let kinds = prop::sample::select(vec![
        EventKind::Send,
        EventKind::Send,
        EventKind::Send,
        EventKind::Receive,
        EventKind::Receive,
        EventKind::Receive,
        EventKind::EndOfStream,
        EventKind::PeerClosed,
        EventKind::LocalClosed,
        EventKind::Closed,
        EventKind::Reset,
    ]);
    let offsets = prop_oneof![0..100_u64, Just(u64::MAX)];
    let numbers = (
        0..4_u64,
        offsets.clone(),
        offsets,
        prop_oneof![0..6_u32, Just(u32::MAX)],
        prop_oneof![0..4_u32, Just(u32::MAX)],
    );
    (texts, kinds, numbers, 0..5000_u64, prop::bool::weighted(0.02)).prop_map(|(text, kind, numbers, ms, opaque)| {
        let (socket, offset, opposite_offset, turn, extra) = numbers;
        let time = MonotonicNs((1000 + ms) * MS);
        SocketEvent {
            socket: SocketId(socket),
            kind,
            time,
            began: time,
            process: ProcessId(1),
            thread: 1,
            offset,
            length: (text.len() as u32).saturating_add(extra),
            opposite_offset,
            queued_ns: ms,
            turn,
            head: Bytes::from_static(text.as_bytes()),
            tail: Bytes::from_static(&text.as_bytes()[..text.len().min(8)]),
            unreadable: false,
            opaque,
            tls: turn % 7 == 3,
            encrypted: ms % 61 == 7,
            untied: ms % 2 == 0,
            blocking: ms % 3 == 0,
            propagated: false,
        }
    })
}
