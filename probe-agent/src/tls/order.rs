//! What the agent asks of the process that attaches probes, and what that answers.
//!
//! In: orders. Out: the messages between the two (a Unix socket that keeps their bounds), read with bounds on both sides.

/// What the attaching process says first. No message is empty: that is the end.
pub(super) const READY: &[u8] = b".";
/// Stops in one library at most.
const MAX_STOPS: usize = 96;
/// Places in one program of Go at most: it may have OpenSSL's linked into it as well.
pub(super) const MAX_GO_PLACES: usize = 48;
/// Longest message.
pub(super) const MAX_BYTES: usize = 1024;

/// Whether requests of Node, CPython and tokio are linked: `LINKS_OF_RUNTIMES` in `probes/arch.h`.
pub(super) const LINKS_RUNTIMES: bool = cfg!(target_arch = "x86_64");

/// Programs of the kernel side that are attached to functions: one where they are left, then one for each [`Function`] in their
/// order, where it is entered; those that link requests of Node, CPython and tokio are the last. Each belongs to a [`Part`].
pub const PROGRAMS: &[&str] = match LINKS_RUNTIMES {
    true => &ALL,
    false => ALL.split_at(Function::PyCopied as usize).0,
};

/// The same, if nothing is left out.
const ALL: [&str; 46] = [
    "tls_return",
    "tls_read",
    "tls_read_ex",
    "tls_write",
    "tls_write_ex",
    "tls_other",
    "tls_forget",
    "tls_cipher",
    "tls_go_read",
    "tls_go_write",
    "tls_go_close",
    "tls_go_start",
    "tls_go_return",
    "tls_go_done",
    "tls_flush",
    "go_serve_a",
    "go_serve_b",
    "go_serve_c",
    "go_spawn_a",
    "go_spawn_b",
    "go_spawn_c",
    "go_ask_a",
    "go_ask_b",
    "go_ask_c",
    "py_copied",
    "py_calls",
    "py_enters",
    "py_buffers",
    "py_writes",
    "node_scope_a",
    "node_scope_b",
    "node_scope_c",
    "node_wrap_a",
    "node_wrap_b",
    "node_event",
    "node_turn",
    "node_made",
    "node_await",
    "node_then",
    "node_react",
    "node_adopt",
    "node_idle",
    "node_collected",
    "py_made",
    "tokio_wake",
    "tokio_spawn",
];

/// What is done at functions of programs and libraries: a feature each. Links take what reading TLS takes; beside that a kernel that does
/// not take one of their programs does without that part alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Reading TLS, Go's as well.
    Tls,
    /// Linking requests of Go's net/http.
    Go,
    /// Linking requests of CPython's asyncio.
    Python,
    /// Linking requests of Node; takes what Linux 5.13 brought (`bpf_for_each_map_elem`).
    Node,
    /// Linking requests of tokio, where that is asked for.
    Tokio,
}

impl Part {
    /// Those that link.
    pub const LINKS: [Self; 4] = [Self::Go, Self::Python, Self::Node, Self::Tokio];

    /// The part that one of [`PROGRAMS`] belongs to, by the beginning of its name.
    pub fn of(program: &str) -> Self {
        match program.split_once('_').map(|(begin, _)| begin) {
            Some("go") => Self::Go,
            Some("py") => Self::Python,
            Some("node") => Self::Node,
            Some("tokio") => Self::Tokio,
            _ => Self::Tls,
        }
    }

    /// Name of the feature.
    pub fn feature(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Go => "go-links",
            Self::Python => "python-links",
            Self::Node => "node-links",
            Self::Tokio => "tokio-links",
        }
    }

    /// Whether this processor has it.
    pub fn is_possible(self) -> bool {
        LINKS_RUNTIMES || matches!(self, Self::Tls | Self::Go)
    }
}

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// Receives plaintext, returns its length.
    Read = 1,
    /// Receives plaintext, leaves its length where the fourth argument says.
    ReadEx = 2,
    /// Sends plaintext, returns its length.
    Write = 3,
    /// Sends plaintext, leaves its length where the fourth argument says.
    WriteEx = 4,
    /// Moves bytes of the socket, but no plaintext.
    Other = 5,
    /// Ends a session.
    Forget = 6,
    /// Writes a session's ciphertext to its transport; attached in single processes (`cipher.rs`).
    Cipher = 7,
    /// Go's `(*tls.Conn).Read`.
    GoRead = 8,
    /// Go's `(*tls.Conn).Write`.
    GoWrite = 9,
    /// Go's `(*tls.Conn).Close`.
    GoClose = 10,
    /// Begins a connection of Go's.
    GoHandshake = 11,
    /// An instruction by which one of the first two returns.
    GoReturn = 12,
    /// What one of them calls before it returns, when its result stands on the stack: its place is a [`super::go::Done`].
    GoDone = 13,
    /// Sends plaintext that other calls took before; by calls of its own that are no news.
    Flush = 14,
    /// Go's net/http runs the handler of a request; fields lie as in layout a (`probes/go_link.h`).
    GoServeA = 15,
    /// Go's net/http runs the handler of a request; fields lie as in layout b (`probes/go_link.h`).
    GoServeB = 16,
    /// Go's net/http runs the handler of a request; fields lie as in layout c (`probes/go_link.h`).
    GoServeC = 17,
    /// A goroutine is made; fields lie as in layout a (`probes/go_link.h`).
    GoSpawnA = 18,
    /// A goroutine is made; fields lie as in layout b (`probes/go_link.h`).
    GoSpawnB = 19,
    /// A goroutine is made; fields lie as in layout c (`probes/go_link.h`).
    GoSpawnC = 20,
    /// Go's net/http sends a request; fields lie as in layout a (`probes/go_link.h`).
    GoAskA = 21,
    /// Go's net/http sends a request; fields lie as in layout b (`probes/go_link.h`).
    GoAskB = 22,
    /// Go's net/http sends a request; fields lie as in layout c (`probes/go_link.h`).
    GoAskC = 23,
    /// CPython makes a context, a copy of the current one or an empty one: known where that returns.
    PyCopied = 24,
    /// CPython's `_asyncio` has something called soon in a context.
    PyCalls = 25,
    /// CPython enters a context for whoever uses its interface in C: uvloop.
    PyEnters = 26,
    /// uvloop takes bytes to write.
    PyBuffers = 27,
    /// uvloop writes what it took.
    PyWrites = 28,
    /// Node's event loop calls back; its numbers stand as in layout a (`probes/node_entries.h`).
    NodeScopeA = 29,
    /// Node's event loop calls back; its numbers stand as in layout b (`probes/node_entries.h`).
    NodeScopeB = 30,
    /// Node's event loop calls back; its numbers stand as in layout c (`probes/node_entries.h`).
    NodeScopeC = 31,
    /// The same for a thing of Node's own, before Node 22.
    NodeWrapA = 32,
    /// The same for a thing of Node's own, since Node 22.
    NodeWrapB = 33,
    /// A stream or a message is handled by libuv.
    NodeEvent = 34,
    /// What was asked for before is done: timers, immediates, threads, connections.
    NodeTurn = 35,
    /// Node makes a thing that will call back.
    NodeMade = 36,
    /// V8 stores what awaits a promise.
    NodeAwait = 37,
    /// A program's `then`.
    NodeThen = 38,
    /// V8 runs what awaited a promise.
    NodeReact = 39,
    /// V8 has a promise follow another one.
    NodeAdopt = 40,
    /// V8 has run all that awaited promises.
    NodeIdle = 41,
    /// V8 has collected garbage.
    NodeCollected = 42,
    /// CPython makes a context: known where it holds it in a register ([`super::python`]).
    PyMade = 43,
    /// A task of tokio is woken.
    TokioWake = 44,
    /// A task of tokio is made.
    TokioSpawn = 45,
}

impl Function {
    const ALL: [Self; 45] = [
        Self::Read,
        Self::ReadEx,
        Self::Write,
        Self::WriteEx,
        Self::Other,
        Self::Forget,
        Self::Cipher,
        Self::GoRead,
        Self::GoWrite,
        Self::GoClose,
        Self::GoHandshake,
        Self::GoReturn,
        Self::GoDone,
        Self::Flush,
        Self::GoServeA,
        Self::GoServeB,
        Self::GoServeC,
        Self::GoSpawnA,
        Self::GoSpawnB,
        Self::GoSpawnC,
        Self::GoAskA,
        Self::GoAskB,
        Self::GoAskC,
        Self::PyCopied,
        Self::PyCalls,
        Self::PyEnters,
        Self::PyBuffers,
        Self::PyWrites,
        Self::NodeScopeA,
        Self::NodeScopeB,
        Self::NodeScopeC,
        Self::NodeWrapA,
        Self::NodeWrapB,
        Self::NodeEvent,
        Self::NodeTurn,
        Self::NodeMade,
        Self::NodeAwait,
        Self::NodeThen,
        Self::NodeReact,
        Self::NodeAdopt,
        Self::NodeIdle,
        Self::NodeCollected,
        Self::PyMade,
        Self::TokioWake,
        Self::TokioSpawn,
    ];

    /// Place of its program in [`PROGRAMS`].
    pub(super) fn program(self) -> usize {
        self as usize
    }

    /// Whether the kernel is to catch its end. Never in Go: its stacks move, with the return address.
    pub(super) fn has_return(self) -> bool {
        self == Self::Flush || self.program() < Self::Forget.program()
    }
}

/// A function, and where in its file it begins.
pub(super) type Place = (Function, u64);

/// What is seen at a [`Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// A call begins: its arguments stand in their registers.
    Enter = 0,
    /// A call ends: its result stands in its register.
    Leave = 1,
    /// A call ends; the kernel catches its return, having put its own address in the place of the return address. The
    /// offset is that of the function.
    Return = 2,
}

impl When {
    const ALL: [Self; 3] = [Self::Enter, Self::Leave, Self::Return];
}

/// An instruction at which the kernel stops programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) function: Function,
    pub(super) when: When,
    /// In the file.
    pub(super) offset: u64,
}

/// An order; an attachment is known by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Attach to these places of the file that comes with the message, in this order.
    Attach(u32, Vec<Stop>),
    /// The same, but only in the process of this number.
    AttachTo(u32, u32, Vec<Stop>),
    /// Take the probes away again.
    Detach(u32),
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, number, stops): (u8, u32, &[_]) = match self {
            Self::Detach(number) => (0, *number, &[]),
            Self::Attach(number, stops) => (1, *number, stops),
            Self::AttachTo(number, _, stops) => (2, *number, stops),
        };
        let mut bytes = vec![kind];
        bytes.extend(number.to_le_bytes());
        if let Self::AttachTo(_, pid, _) = self {
            bytes.extend(pid.to_le_bytes());
        }
        for stop in stops.iter().take(MAX_STOPS) {
            bytes.extend([stop.function as u8, stop.when as u8]);
            bytes.extend(stop.offset.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let number = u32::from_le_bytes(*number);
        if kind == 0 {
            return rest.is_empty().then_some(Self::Detach(number));
        }
        let (pid, rest) = match kind {
            2 => rest.split_first_chunk::<4>().map(|(pid, rest)| (Some(u32::from_le_bytes(*pid)), rest))?,
            _ => (None, rest),
        };
        let stops = rest.chunks(10).map(|stop| {
            let (&[function, when], offset) = stop.split_first_chunk::<2>()?;
            Some(Stop {
                function: Function::ALL.into_iter().find(|known| *known as u8 == function)?,
                when: When::ALL.into_iter().find(|known| *known as u8 == when)?,
                offset: u64::from_le_bytes(*offset.first_chunk::<8>()?),
            })
        });
        let stops: Vec<_> = stops.collect::<Option<_>>()?;
        match (kind, pid) {
            _ if stops.len() > MAX_STOPS => None,
            (1, None) => Some(Self::Attach(number, stops)),
            (2, Some(pid)) => Some(Self::AttachTo(number, pid, stops)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for order in [
            Order::Detach(7),
            Order::Attach(1, Vec::new()),
            Order::AttachTo(9, 4_000_000, vec![Stop { function: Function::Cipher, when: When::Enter, offset: 77 }]),
            Order::Attach(
                u32::MAX,
                vec![
                    Stop { function: Function::Read, when: When::Return, offset: 1 },
                    Stop { function: Function::Forget, when: When::Enter, offset: u64::MAX },
                ],
            ),
        ] {
            let bytes = order.encode();
            assert!(bytes.len() <= MAX_BYTES);
            assert_eq!(Order::decode(&bytes), Some(order));
        }
    }

    /// Each program of a part that is possible here is in the list.
    #[test]
    fn each_program_has_its_part() {
        let of = |part| PROGRAMS.iter().filter(|name| Part::of(name) == part).count();
        assert_eq!([Part::Tls, Part::Go].map(of), [15, 9]);
        assert!(Part::LINKS.into_iter().all(|part| (of(part) > 0) == part.is_possible()));
    }

    /// The kernel cuts longer ones off, and programs are found by them.
    #[test]
    fn names_of_programs_are_short_enough() {
        assert!(PROGRAMS.iter().all(|name| name.len() <= 15), "{PROGRAMS:?}");
    }

    #[test]
    fn the_most_there_can_be_fits() {
        let order = Order::Attach(
            1,
            vec![Stop { function: Function::GoReturn, when: When::Enter, offset: u64::MAX }; MAX_STOPS],
        );
        assert!(order.encode().len() <= MAX_BYTES);
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x02\0\0\0\0",
            b"\x03\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0x",
            b"\x01\0\0\0\0\x7f\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\x01\x03\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\x01\0",
        ] {
            assert_eq!(Order::decode(bytes), None, "{bytes:?}");
        }
        let many: Vec<u8> =
            [1, 0, 0, 0, 0].into_iter().chain([1, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_STOPS + 1)).collect();
        assert_eq!(Order::decode(&many), None);
    }
}
