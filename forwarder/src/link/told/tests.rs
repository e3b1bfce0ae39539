//! What Go tells, by hand: which links are made, and which must not be.

use std::sync::Arc;

use super::{
    CONTEXT, GRACE, INHERITED, INHERITED_AGAIN, NODE, NODE_BLIND, PYTHON, TOKIO_ITSELF, TOKIO_LATER, TOKIO_NONE,
    TOKIO_WOKEN,
};
use crate::{
    exchange::{Exchange, Opened, Side},
    link::{Ancestor, Links, Method, Unlinked},
    model::{Connection, EventKind, MonotonicNs, ProcessId, ProcessRef, SocketEvent, Tie},
    sample,
};

const HANDLER: u32 = 1;
/// Sequence number of the byte at offset 0.
const BASE: u32 = u32::MAX - 3;

struct Program {
    links: Links,
    process: ProcessRef,
    serial: u64,
}

impl Program {
    fn go() -> Self {
        Self::of("go")
    }

    fn of(language: &str) -> Self {
        let process = crate::model::Process { language: Some(language.into()), ..sample::process(1, "p") };
        Self { links: Links::default(), process: Arc::new(process), serial: 0 }
    }

    fn event(&mut self, event: &SocketEvent) {
        self.links.event(event, &self.process.clone());
    }

    /// `socket` is about to send at `offset` for what came over `serves`, whose handler began at `handler`.
    fn tell(&mut self, time: u64, (socket, offset): (u64, u64), (serves, handler): (u64, u64), by: u32) {
        let number = BASE.wrapping_add(offset as u32);
        let event = SocketEvent {
            turn: by,
            queued_ns: handler,
            opposite_offset: serves,
            ..sample::socket_event(EventKind::Link, socket, time)
        };
        self.event(&SocketEvent { offset: number.into(), ..event });
    }

    fn open(&mut self, side: Side, socket: u64, offset: u64, time: u64) -> u64 {
        self.serial += 1;
        let tie = Tie::Sequence { received: 7, sent: BASE };
        let request = sample::request("/");
        let opened = Opened {
            serial: self.serial,
            side,
            process: &self.process,
            connection: &Arc::new(Connection { tie, ..sample::connection(socket) }),
            tls: false,
            thread: 5,
            blocking: false,
            began: MonotonicNs(time),
            time: MonotonicNs(time),
            offset,
            opposite: 0,
            request: &request,
        };
        self.links.opened(&opened, false);
        self.serial
    }

    fn asked(&mut self, socket: u64, time: u64) -> u64 {
        self.open(Side::Server, socket, time, time)
    }

    fn answered(&mut self, serial: u64, socket: u64, end: u64) {
        let connection = Arc::new(sample::connection(socket));
        let exchange = Exchange {
            serial,
            process: self.process.clone(),
            connection,
            end: MonotonicNs(end),
            ..sample::exchange(Side::Server)
        };
        self.links.ended(&exchange);
    }

    fn parent(&self, serial: u64) -> Result<Method, Unlinked> {
        let Some(node) = self.links.nodes.get(&serial) else { panic!("{serial} is not open") };
        match self.links.ancestor(&node.borrow()) {
            Ancestor::Span(_, method) => Ok(method),
            Ancestor::None(why) => Err(why),
            Ancestor::Header => panic!("there is no header"),
        }
    }

    fn is_parent(&self, serial: u64, of: u64) -> bool {
        let parent = self.links.nodes.get(&of).and_then(|node| node.borrow().parent.clone());
        parent.is_some_and(|parent| self.links.nodes.get(&serial).is_some_and(|node| node.is(&parent)))
    }
}

#[test]
fn what_is_told_names_one_request() {
    for (what, told_offset, told_time, by, want) in [
        ("the handler", 50, 20, HANDLER, Ok(Method::GoGoroutine)),
        ("a goroutine that it made", 50, 20, INHERITED, Ok(Method::GoGoroutine)),
        ("a later request of that", 50, 20, INHERITED_AGAIN, Ok(Method::GoGoroutine)),
        ("another one with its context", 50, 20, CONTEXT, Ok(Method::GoContext)),
        ("for another byte", 49, 20, HANDLER, Err(Unlinked::NoRequest)),
        ("after it was sent", 50, 40, HANDLER, Err(Unlinked::NoRequest)),
    ] {
        let mut go = Program::go();
        let other = go.asked(2, 5);
        let asked = go.asked(1, 10);
        go.tell(told_time, (11, told_offset), (1, 15), by);
        let asks = go.open(Side::Client, 11, 50, 30);
        assert_eq!(go.parent(asks), want, "{what}");
        assert_eq!(go.is_parent(asked, asks), want.is_ok(), "{what}");
        assert!(!go.is_parent(other, asks));
        // It is not told of the next one on that connection.
        let again = go.open(Side::Client, 11, 50, 60);
        assert_eq!(go.parent(again), Err(Unlinked::NoRequest), "{what}");
    }
}

#[test]
fn of_pipelined_requests_the_first_is_served() {
    let mut go = Program::go();
    let (first, second) = (go.asked(1, 10), go.asked(1, 11));
    go.tell(20, (11, 0), (1, 15), HANDLER);
    let asks = go.open(Side::Client, 11, 0, 21);
    assert!(go.is_parent(first, asks));
    go.answered(first, 1, 30);
    go.tell(40, (11, 50), (1, 35), HANDLER);
    let asks = go.open(Side::Client, 11, 50, 41);
    assert!(go.is_parent(second, asks));
}

#[test]
fn after_the_answer_only_for_a_while_and_the_first_of_a_goroutine() {
    for (what, after, by, want) in [
        ("before it is known to be over", 0, INHERITED, Ok(Method::GoGoroutine)),
        ("soon", 1000, INHERITED, Ok(Method::GoLate)),
        ("of the handler", 1000, HANDLER, Ok(Method::GoLate)),
        ("by its context", 1000, CONTEXT, Ok(Method::GoLate)),
        ("a second request", 1000, INHERITED_AGAIN, Err(Unlinked::NoRequest)),
        ("too late", GRACE + 1000, INHERITED, Err(Unlinked::NoRequest)),
    ] {
        let mut go = Program::go();
        let asked = go.asked(1, 10);
        go.answered(asked, 1, 100);
        // Others came and went over the same connection.
        let next = go.asked(1, 150);
        go.answered(next, 1, 180);
        go.event(&sample::socket_event(EventKind::Closed, 1, 190));
        go.tell(100 + after, (11, 0), (1, 15), by);
        let asks = go.open(Side::Client, 11, 0, 200 + after);
        assert_eq!(go.parent(asks), want, "{what}");
    }
}

#[test]
fn the_order_in_which_answers_are_heard_of_does_not_matter() {
    let mut go = Program::go();
    let (first, second) = (go.asked(1, 10), go.asked(1, 11));
    go.answered(second, 1, 90);
    go.answered(first, 1, 50);
    go.tell(95, (11, 0), (1, 60), HANDLER);
    let asks = go.open(Side::Client, 11, 0, 96);
    assert_eq!(go.parent(asks), Ok(Method::GoLate));
}

#[test]
fn goroutines_that_go_on_are_not_trusted() {
    let mut go = Program::go();
    let asked = go.asked(1, 10);
    go.answered(asked, 1, 100);
    go.tell(200 + GRACE, (11, 0), (1, 15), INHERITED_AGAIN);
    let asks = go.open(Side::Client, 11, 0, 300 + GRACE);
    assert_eq!(go.parent(asks), Err(Unlinked::NoRequest));
    let now = 1000 + GRACE;
    go.asked(1, now);
    for (by, want) in [(INHERITED, Err(Unlinked::Interleaved)), (HANDLER, Ok(Method::GoGoroutine))] {
        go.tell(now + 20, (12, 0), (1, now + 10), by);
        let asks = go.open(Side::Client, 12, 0, now + 30);
        assert_eq!(go.parent(asks), want);
    }
    go.links.process_ended(ProcessId(1));
    assert!(go.links.runtimes.outlive.is_empty());
}

#[test]
fn nothing_stays_of_what_is_closed() {
    let mut go = Program::go();
    for socket in 0..3 {
        let asked = go.asked(socket, 10);
        go.tell(20, (100 + socket, 0), (socket, 15), HANDLER);
        go.answered(asked, socket, 100 + socket * GRACE * 2);
        go.event(&sample::socket_event(EventKind::Closed, socket, 200 + socket * GRACE * 2));
        go.event(&sample::socket_event(EventKind::Closed, 100 + socket, 200 + socket * GRACE * 2));
    }
    assert_eq!((go.links.runtimes.served.len(), go.links.runtimes.recent.len()), (1, 1));
    assert!(go.links.runtimes.told.is_empty());
}

#[test]
fn a_context_leads_to_the_request_that_was_received_then_and_is_not_answered() {
    let mut python = Program::of("python");
    let (other, asked) = (python.asked(2, 5), python.asked(1, 10));
    for (what, number, received, want) in [
        ("the request", 11, 10, Ok(Method::PythonContext)),
        ("one before it", 12, 9, Err(Unlinked::NoRequest)),
        ("one that is not known", 13, 11, Err(Unlinked::NoRequest)),
    ] {
        python.tell(20, (number, 50), (1, received), PYTHON);
        let asks = python.open(Side::Client, number, 50, 30);
        assert_eq!(python.parent(asks), want, "{what}");
        assert_eq!(python.is_parent(asked, asks), want.is_ok(), "{what}");
        assert!(!python.is_parent(other, asks));
    }
    python.answered(asked, 1, 100);
    python.tell(110, (11, 80), (1, 10), PYTHON);
    let late = python.open(Side::Client, 11, 80, 110);
    assert_eq!(python.parent(late), Err(Unlinked::NoRequest));
    // The same context was used for the next one, or not.
    let next = python.asked(1, 120);
    for (received, want) in [(10, Err(Unlinked::NoRequest)), (120, Ok(Method::PythonContext))] {
        python.tell(130, (11, 90), (1, received), PYTHON);
        let asks = python.open(Side::Client, 11, 90, 130);
        assert_eq!(python.parent(asks), want);
        assert_eq!(python.is_parent(next, asks), want.is_ok());
    }
}

#[test]
fn pipelined_requests_of_a_context_are_not_told_apart() {
    let mut python = Program::of("python");
    let (first, _) = (python.asked(1, 10), python.asked(1, 11));
    python.tell(20, (11, 0), (1, 10), PYTHON);
    let asks = python.open(Side::Client, 11, 0, 21);
    assert_eq!(python.parent(asks), Err(Unlinked::NoRequest));
    python.answered(first, 1, 30);
    // Now only the other is left, and it is not the one.
    python.tell(40, (11, 9), (1, 10), PYTHON);
    let asks = python.open(Side::Client, 11, 9, 41);
    assert_eq!(python.parent(asks), Err(Unlinked::NoRequest));
}

#[test]
fn of_node_one_open_request_is_meant_until_it_is_answered() {
    let mut node = Program::of("nodejs");
    let (asked, _other) = (node.asked(1, 10), node.asked(2, 12));
    node.tell(20, (11, 50), (1, 10), NODE);
    let asks = node.open(Side::Client, 11, 50, 20);
    assert_eq!(node.parent(asks), Ok(Method::NodeAsync));
    assert!(node.is_parent(asked, asks));
    // Told before the answer, sent after it.
    node.tell(30, (12, 0), (1, 10), NODE);
    node.answered(asked, 1, 40);
    let asks = node.open(Side::Client, 12, 0, 45);
    assert_eq!(node.parent(asks), Ok(Method::NodeAsync));
    // Told after it; and when the next one was received over that connection.
    for (told, received) in [(50, None), (70, Some(60)), (60 + 2 * GRACE, None)] {
        if let Some(received) = received {
            node.asked(1, received);
        }
        node.tell(told, (13, 0), (1, 10), NODE);
        let asks = node.open(Side::Client, 13, 0, told);
        assert_eq!(node.parent(asks), Err(Unlinked::NoRequest), "{told}");
    }
}

#[test]
fn pipelined_requests_of_node_are_not_linked() {
    // Both in one call, and each in its own.
    for (second, handler) in [(10, 10), (15, 10)] {
        let mut node = Program::of("nodejs");
        let first = node.asked(1, 10);
        node.asked(1, second);
        node.tell(20, (11, 0), (1, handler), NODE);
        let asks = node.open(Side::Client, 11, 0, 20);
        assert_eq!(node.parent(asks), Err(Unlinked::NoRequest));
        node.answered(first, 1, 30);
        node.tell(40, (11, 50), (1, handler), NODE);
        let asks = node.open(Side::Client, 11, 50, 40);
        assert_eq!(node.parent(asks), Err(Unlinked::NoRequest));
    }
}

#[test]
fn without_promises_node_is_not_linked() {
    let mut node = Program::of("nodejs");
    node.asked(1, 10);
    node.tell(20, (11, 0), (1, 10), NODE_BLIND);
    let asks = node.open(Side::Client, 11, 0, 20);
    assert_eq!(node.parent(asks), Err(Unlinked::NoRequest));
    assert_eq!(node.links.runtimes.blind.len(), 1);
    node.links.process_ended(ProcessId(1));
    assert!(node.links.runtimes.blind.is_empty());
}

/// A request is received over socket 1 at 10, another is sent over socket 2 at 50; what is said of it when its response arrives.
fn tokio(response: u32, (serves, received): (u64, u64), first: u64) -> Result<Method, Unlinked> {
    let mut program = Program::of("rust");
    program.open(Side::Server, 1, 0, 10);
    program.tell(49, (2, 100), (0, 0), TOKIO_LATER);
    let client = program.open(Side::Client, 2, 100, 50);
    assert_eq!(program.parent(client), Err(Unlinked::Unconfirmed));
    program.tell(60, (2, first), (serves, received), response);
    program.parent(client)
}

#[test]
fn requests_of_tokio_are_linked_when_their_response_has_arrived() {
    for (name, response, request, first, want) in [
        ("who asked was woken", TOKIO_WOKEN, (1, 10), 100, Ok(Method::TokioTask)),
        ("nobody knows", TOKIO_NONE, (0, 0), 100, Err(Unlinked::NoRequest)),
        ("an earlier request of that connection", TOKIO_WOKEN, (1, 9), 100, Err(Unlinked::NoRequest)),
        ("a connection without requests", TOKIO_WOKEN, (3, 10), 100, Err(Unlinked::NoRequest)),
        ("the response to another request", TOKIO_WOKEN, (1, 10), 99, Err(Unlinked::Unconfirmed)),
    ] {
        assert_eq!(tokio(response, request, first), want, "{name}");
    }
}

#[test]
fn what_a_task_of_tokio_sends_itself_is_linked_at_once_while_its_request_is_open() {
    let mut program = Program::of("rust");
    let server = program.open(Side::Server, 1, 0, 10);
    program.tell(49, (2, 100), (1, 10), TOKIO_ITSELF);
    let client = program.open(Side::Client, 2, 100, 50);
    assert_eq!(program.parent(client), Ok(Method::TokioTask));
    program.answered(server, 1, 60);
    program.tell(69, (3, 100), (1, 10), TOKIO_ITSELF);
    let client = program.open(Side::Client, 3, 100, 70);
    assert_eq!(program.parent(client), Err(Unlinked::NoRequest));
}

#[test]
fn nothing_that_was_received_later_is_the_parent_of_a_request_of_tokio() {
    let mut program = Program::of("rust");
    program.tell(49, (2, 100), (0, 0), TOKIO_LATER);
    let client = program.open(Side::Client, 2, 100, 50);
    program.open(Side::Server, 1, 0, 55);
    program.tell(60, (2, 100), (1, 55), TOKIO_WOKEN);
    assert_eq!(program.parent(client), Err(Unlinked::NoRequest));
}
