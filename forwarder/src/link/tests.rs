//! Links of requests that are told by hand: which are made, and which must not be.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    exchange::{Request, RequestHeaders},
    model::{Connection, ConnectionRef, Endpoints, EventKind, MonotonicNs, ProcessRef, SocketEvent, SocketId, Tie},
    sample,
};

mod threads;
mod translated;

struct World {
    links: Links,
    serial: u64,
}

/// One end of a connection of a process.
struct End {
    side: Side,
    process: ProcessRef,
    connection: ConnectionRef,
}

fn end(side: Side, process: u32, language: &str, connection: Connection) -> End {
    let process = crate::model::Process { language: Some(language.into()), ..sample::process(process, "p") };
    End { side, process: Arc::new(process), connection: Arc::new(connection) }
}

/// Both ends of a TCP connection; `namespaces` and sequence numbers are the client's and the server's.
fn tcp(socket: u64, namespaces: (u32, u32), address: [u8; 4], bases: (u32, u32)) -> (Connection, Connection) {
    let (client, server) = ((address.into(), 40_000), (address.into(), 80));
    let one = |socket, namespace, local, peer, received, sent| Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Tcp { local, peer },
        network_namespace: namespace,
        tie: Tie::Sequence { received, sent },
    };
    (one(socket, namespaces.0, client, server, 7, bases.0), one(socket + 1, namespaces.1, server, client, bases.1, 7))
}

fn request(target: &str, traceparent: Option<&str>) -> Request {
    let traceparent = traceparent.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Request {
        headers: RequestHeaders { traceparent: traceparent.into_iter().collect(), ..Default::default() },
        ..sample::request(target)
    }
}

/// Ends an exchange; whether it waits.
pub(super) fn waits(links: &mut Links, exchange: Exchange) -> bool {
    match links.ended(&exchange) {
        Ended::Ready(_) => false,
        Ended::Waits(node) => {
            assert!(links.wait(exchange, &sample::clock(), node).is_none(), "another one had to go");
            true
        }
    }
}

impl World {
    fn new() -> Self {
        Self { links: Links::default(), serial: 0 }
    }

    fn open(&mut self, end: &End, thread: u32, time: u64, offset: u64, request: &Request, blocking: bool) -> u64 {
        self.opened(end, request, |opened| {
            (opened.thread, opened.blocking, opened.offset) = (thread, blocking, offset);
            (opened.began, opened.time) = (MonotonicNs(time), MonotonicNs(time));
        })
    }

    /// A request that begins with its connection, unless `set` says otherwise.
    fn opened(&mut self, end: &End, request: &Request, set: impl FnOnce(&mut Opened<'_>)) -> u64 {
        self.serial += 1;
        let mut opened = Opened {
            serial: self.serial,
            side: end.side,
            process: &end.process,
            connection: &end.connection,
            tls: false,
            thread: 1,
            blocking: false,
            began: MonotonicNs(10),
            time: MonotonicNs(10),
            offset: 0,
            opposite: 0,
            request,
        };
        set(&mut opened);
        self.links.opened(&opened, false);
        self.serial
    }

    /// A thread of the process of `end` sends over its socket.
    fn sends(&mut self, end: &End, thread: u32, head: &'static [u8]) {
        let event = SocketEvent {
            process: end.process.id,
            thread,
            head: Bytes::from_static(head),
            ..sample::socket_event(EventKind::Send, end.connection.socket.0, 0)
        };
        self.links.event(&event, &end.process);
    }

    fn found(&self, serial: u64) -> Ancestor {
        self.links.nodes.get(&serial).map_or(Ancestor::None(Unlinked::Limit), |node| {
            let node = node.borrow();
            self.links.ancestor(&node)
        })
    }

    fn parent(&self, serial: u64) -> Result<(u64, Method), Unlinked> {
        match self.found(serial) {
            Ancestor::Span(of, method) => {
                let known = self.links.nodes.iter().find(|(_, node)| node.is(&of));
                Ok((known.map_or(0, |(serial, _)| *serial), method))
            }
            Ancestor::None(why) => Err(why),
            Ancestor::Header => Ok((0, Method::Connection)),
        }
    }

    /// Whether it waits.
    fn end(&mut self, serial: u64, of: &End, answered: u64) -> bool {
        let exchange = Exchange {
            serial,
            process: of.process.clone(),
            response_start: Some(MonotonicNs(answered)),
            ..sample::exchange(of.side)
        };
        waits(&mut self.links, exchange)
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n";
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

#[test]
fn one_byte_has_one_number_at_both_ends() {
    for (what, namespaces, address, bases, offsets, same_target, joined) in [
        ("the same request", (1, 1), LOOPBACK, (100, 100), (0, 0), true, true),
        ("picked up at another byte", (1, 1), LOOPBACK, (100, 90), (20, 30), true, true),
        ("over the end of the numbers", (1, 1), LOOPBACK, (u32::MAX, u32::MAX - 10), (20, 30), true, true),
        ("another request of the connection", (1, 1), LOOPBACK, (100, 100), (0, 50), true, false),
        ("loopback of another namespace", (1, 2), LOOPBACK, (100, 100), (0, 0), true, false),
        ("a cable between namespaces", (1, 2), [10, 0, 0, 1], (100, 100), (0, 0), true, true),
        ("another connection of other hosts", (1, 2), [10, 0, 0, 1], (100, 101), (0, 0), true, false),
        ("ends that disagree", (1, 1), LOOPBACK, (100, 100), (0, 0), false, false),
    ] {
        for client_first in [true, false] {
            let (client, server) = tcp(10, namespaces, address, bases);
            let (client, server) = (end(Side::Client, 1, "go", client), end(Side::Server, 2, "go", server));
            let mut world = World::new();
            let (asked, got) = (request("/a", None), request(if same_target { "/a" } else { "/b" }, None));
            let sent = client_first.then(|| world.open(&client, 1, 10, offsets.0, &asked, false));
            let received = world.open(&server, 2, 20, offsets.1, &got, false);
            let sent = sent.unwrap_or_else(|| world.open(&client, 1, 19, offsets.0, &asked, false));
            let want = if joined { Ok((sent, Method::Connection)) } else { Err(Unlinked::PeerUnknown) };
            assert_eq!(world.parent(received), want, "{what}, client first: {client_first}");
        }
    }
}

#[test]
fn unix_sockets_are_tied_by_whichever_end_knows() {
    let unix = |socket, peer| Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Unix { path: None },
        network_namespace: 1,
        tie: if peer == 0 { Tie::Unknown } else { Tie::Socket(SocketId(peer)) },
    };
    for (client_knows, server_knows, joined) in
        [(false, true, true), (true, false, true), (true, true, true), (false, false, false)]
    {
        for client_first in [true, false] {
            let mut world = World::new();
            let client = end(Side::Client, 1, "c", unix(5, if client_knows { 6 } else { 0 }));
            let server = end(Side::Server, 2, "c", unix(6, if server_knows { 5 } else { 0 }));
            for offset in [0, 100] {
                let ask = request("/a", None);
                let sent = client_first.then(|| world.open(&client, 1, 10 + offset, offset, &ask, false));
                let received = world.open(&server, 2, 20 + offset, offset, &ask, false);
                let sent = sent.unwrap_or_else(|| world.open(&client, 1, 10 + offset, offset, &ask, false));
                assert_eq!(world.parent(received).is_ok_and(|found| found == (sent, Method::Connection)), joined);
            }
        }
    }
    // What was sent after it was received is another request: the two ends do not count from the same byte.
    let mut world = World::new();
    let received = world.open(&end(Side::Server, 2, "c", unix(6, 5)), 2, 20, 0, &request("/a", None), false);
    world.open(&end(Side::Client, 1, "c", unix(5, 6)), 1, 30, 0, &request("/a", None), false);
    assert_eq!(world.parent(received), Err(Unlinked::PeerUnknown));
}

/// A server with connections of the given sockets, and a client of the same process.
fn program(language: &str) -> (End, End, End) {
    let remote = |socket| Connection { ..sample::connection(socket) };
    (
        end(Side::Server, 1, language, remote(1)),
        end(Side::Server, 1, language, remote(2)),
        end(Side::Client, 1, language, remote(3)),
    )
}

#[test]
fn headers_win_unless_they_are_only_handed_on() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01";
    for (received, sent, by_thread) in [(GIVEN, GIVEN, true), (GIVEN, OTHER, false)] {
        let (server, _, client) = program("python");
        let mut world = World::new();
        let asked = world.open(&server, 7, 10, 0, &request("/a", Some(received)), true);
        let asks = world.open(&client, 7, 20, 0, &request("/b", Some(sent)), false);
        world.sends(&server, 7, ANSWER);
        assert!(matches!(world.found(asked), Ancestor::Header));
        assert_eq!(matches!(world.found(asks), Ancestor::Span(_, Method::Thread)), by_thread);
        assert!(by_thread || matches!(world.found(asks), Ancestor::Header));
    }
}

#[test]
fn what_hangs_on_a_late_end_waits_for_it() {
    let ask = request("/a", None);
    let (client, server) = tcp(10, (1, 1), LOOPBACK, (100, 100));
    let (client, server) = (end(Side::Client, 1, "c", client), end(Side::Server, 2, "c", server));
    let below = end(Side::Client, 2, "c", sample::connection(30));
    let mut world = World::new();
    let received = world.open(&server, 7, 20, 0, &ask, true);
    let asks = world.open(&below, 7, 25, 0, &ask, false);
    world.sends(&server, 7, ANSWER);
    assert!(world.end(asks, &below, 30));
    assert!(world.end(received, &server, 40));
    assert!(world.links.released(false).is_empty() && world.links.waiting() == 2);
    world.open(&client, 1, 10, 0, &ask, false);
    let released = world.links.released(false);
    assert_eq!((released.len(), world.links.waiting()), (2, 0));
    assert!(released.iter().all(|(_, _, node)| matches!(world.links.ancestor(&node.borrow()), Ancestor::Span(..))));

    // One that never shows: the next request of the connection does not wait.
    let mut world = World::new();
    let received = world.open(&server, 7, 20, 0, &ask, true);
    assert!(world.end(received, &server, 40));
    assert_eq!(world.links.released(true).len(), 1);
    let received = world.open(&server, 7, 50, 60, &ask, true);
    assert!(!world.end(received, &server, 70));
    assert!(world.links.pairs.is_empty() && world.links.nodes.is_empty(), "nothing stays");
}
