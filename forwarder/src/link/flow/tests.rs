//! What an event loop does, told by hand: which links are made, and which must not be.

use std::sync::Arc;

use crate::{
    exchange::{Opened, Side},
    link::{Ancestor, Links, Method, Unlinked, node::NodeRef, tests::waits},
    model::{EventKind, MonotonicNs, ProcessId, ProcessRef, SocketEvent},
    sample,
};

struct Loop {
    links: Links,
    process: ProcessRef,
    now: u64,
    turns: [u32; 32],
}

impl Loop {
    fn of(executable: &str) -> Self {
        let process = crate::model::Process { executable: executable.into(), ..sample::process(1, "p") };
        Self { links: Links::default(), process: Arc::new(process), now: 0, turns: [0; 32] }
    }

    /// Each has a turn of its own, at this offset.
    fn event(&mut self, kind: EventKind, socket: u64) -> u32 {
        self.now += 1;
        let turn = self.turns.get_mut(socket as usize).map_or(0, |turn| {
            *turn += 1;
            *turn
        });
        let event = sample::socket_event(kind, socket, self.now);
        let event = SocketEvent { offset: turn.into(), length: 10, turn, ..event };
        self.links.event(&event, &self.process);
        turn
    }

    fn open(&mut self, side: Side, socket: u64, offset: u32) -> u64 {
        let connection = crate::model::Connection { ..sample::connection(socket) };
        let serial = 1000 + self.now;
        let request = sample::request("/");
        let opened = Opened {
            serial,
            side,
            process: &self.process,
            connection: &Arc::new(connection),
            tls: false,
            thread: 5,
            blocking: false,
            began: MonotonicNs(self.now),
            time: MonotonicNs(self.now),
            offset: offset.into(),
            opposite: 0,
            request: &request,
        };
        self.links.opened(&opened, false);
        serial
    }

    /// A request comes in.
    fn asked(&mut self, socket: u64) -> u64 {
        let turn = self.event(EventKind::Receive, socket);
        self.open(Side::Server, socket, turn)
    }

    /// A request goes out.
    fn asks(&mut self, socket: u64) -> u64 {
        let turn = self.event(EventKind::Send, socket);
        self.open(Side::Client, socket, turn)
    }

    fn node(&self, serial: u64) -> Option<NodeRef> {
        self.links.nodes.get(&serial).cloned()
    }

    /// Its parent, as it would be decided now.
    fn parent(&self, serial: u64) -> Result<u64, Unlinked> {
        let node = self.node(serial).ok_or(Unlinked::Limit)?;
        match self.links.ancestor(&node.borrow()) {
            Ancestor::Span(of, Method::EventLoopFlow) => {
                Ok(self.links.nodes.iter().find(|(_, node)| node.is(&of)).map_or(0, |(serial, _)| *serial))
            }
            Ancestor::None(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    /// Whether it waits.
    fn ended(&mut self, serial: u64, side: Side) -> bool {
        let exchange = crate::exchange::Exchange { serial, process: self.process.clone(), ..sample::exchange(side) };
        waits(&mut self.links, exchange)
    }
}

fn nginx() -> Loop {
    Loop::of("/usr/sbin/nginx")
}

#[test]
fn what_was_received_last_is_served_and_its_answer_shows_it() {
    let mut nginx = nginx();
    let one = nginx.asked(1);
    nginx.event(EventKind::Connect, 11);
    let two = nginx.asked(2);
    nginx.event(EventKind::Connect, 12);
    // Connected in another order: each belongs to what it was connected for.
    let (of_two, of_one) = (nginx.asks(12), nginx.asks(11));
    assert_eq!(nginx.parent(of_one), Err(Unlinked::Unconfirmed));
    nginx.event(EventKind::Receive, 11);
    nginx.event(EventKind::Send, 1);
    nginx.event(EventKind::Receive, 12);
    nginx.event(EventKind::Send, 2);
    assert_eq!((nginx.parent(of_one), nginx.parent(of_two)), (Ok(one), Ok(two)));
    // The connection is kept, and is another's now.
    nginx.ended(one, Side::Server);
    nginx.ended(two, Side::Server);
    let three = nginx.asked(2);
    let of_three = nginx.asks(11);
    nginx.event(EventKind::Receive, 11);
    nginx.event(EventKind::Send, 2);
    assert_eq!(nginx.parent(of_three), Ok(three));
}

#[test]
fn a_response_leads_back_to_its_request() {
    let mut nginx = nginx();
    let one = nginx.asked(1);
    let asks = nginx.asks(11);
    let two = nginx.asked(2);
    nginx.event(EventKind::Receive, 11);
    // It asks a second time before it answers, as after a check of who asks.
    let again = nginx.asks(12);
    nginx.event(EventKind::Receive, 12);
    nginx.event(EventKind::Send, 1);
    assert_eq!(nginx.parent(again), Ok(one));
    assert_eq!(nginx.parent(asks), Err(Unlinked::Unconfirmed), "its response was not what was answered with");
    assert_ne!(one, two);
}

#[test]
fn what_a_timer_starts_is_not_linked_to_another() {
    let mut nginx = nginx();
    nginx.asked(1);
    let two = nginx.asked(2);
    // For the first, by a timer.
    let delayed = nginx.asks(11);
    nginx.event(EventKind::Receive, 11);
    nginx.event(EventKind::Send, 1);
    assert_eq!(nginx.parent(delayed), Err(Unlinked::Unconfirmed));
    assert!(nginx.node(two).is_some_and(|node| node.borrow().parent.is_none()));
}

#[test]
fn proven_processes_need_not_wait_until_they_disagree() {
    let mut nginx = nginx();
    for _ in 0..super::PROVEN {
        let asked = nginx.asked(1);
        let asks = nginx.asks(11);
        assert_eq!(nginx.parent(asks), Err(Unlinked::Unconfirmed));
        assert!(nginx.ended(asks, Side::Client));
        nginx.event(EventKind::Receive, 11);
        nginx.event(EventKind::Send, 1);
        assert_eq!(nginx.links.released(false).len(), 1);
        nginx.ended(asked, Side::Server);
    }
    let asked = nginx.asked(1);
    let asks = nginx.asks(11);
    assert_eq!(nginx.parent(asks), Ok(asked), "as far as can be told now");
    nginx.asked(2);
    nginx.event(EventKind::Receive, 11);
    nginx.event(EventKind::Send, 2);
    assert_eq!(nginx.parent(asks), Err(Unlinked::Unconfirmed), "another was answered");
    let later = nginx.asks(12);
    assert!(nginx.parent(later).is_err(), "and each has to show it from now on");
}

#[test]
fn others_have_no_such_links() {
    for executable in ["/usr/bin/python3", "/usr/local/openresty/nginx/sbin/nginx", "/opt/nginx-exporter"] {
        let mut other = Loop::of(executable);
        other.asked(1);
        let asks = other.asks(11);
        other.event(EventKind::Receive, 11);
        other.event(EventKind::Send, 1);
        assert_eq!(other.parent(asks), Err(Unlinked::NoRequest), "{executable}");
        assert_eq!(other.links.flow.sockets.len(), 0);
    }
}

#[test]
fn nothing_stays_of_what_is_closed() {
    let mut nginx = nginx();
    let asked = nginx.asked(1);
    nginx.event(EventKind::Connect, 11);
    nginx.links.abandoned(asked);
    let asks = nginx.asks(11);
    assert_eq!(nginx.parent(asks), Err(Unlinked::NoRequest));
    nginx.event(EventKind::Closed, 1);
    nginx.event(EventKind::Reset, 11);
    assert!(nginx.links.flow.sockets.is_empty());
    nginx.links.process_ended(ProcessId(1));
    assert!(nginx.links.flow.threads.is_empty() && nginx.links.flow.trust.is_empty());
}
