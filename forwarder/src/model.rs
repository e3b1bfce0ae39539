//! What arrives from the agent, as domain types: processes, connections, socket events.
//!
//! In: nothing. Out: the types that `ingest` makes of the wire's and that `exchange` works on.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use spantap_config::{Sampler, ServiceRoutes};

/// Nanoseconds of CLOCK_MONOTONIC on the observed host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicNs(pub u64);

/// Nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNs(pub u64);

/// The same instant on both clocks; turns kernel times into wall-clock times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockAnchor {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic: MonotonicNs,
    /// CLOCK_REALTIME, nanoseconds.
    pub realtime: UnixNs,
}

impl ClockAnchor {
    /// Wall-clock time of `at`; saturates at the ends of the range.
    pub fn to_unix(self, at: MonotonicNs) -> UnixNs {
        UnixNs(if at.0 >= self.monotonic.0 {
            self.realtime.0.saturating_add(at.0 - self.monotonic.0)
        } else {
            self.realtime.0.saturating_sub(self.monotonic.0 - at.0)
        })
    }
}

/// Socket cookie of the observed kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Process id given by the agent, unique within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// What the discovery entry of a process says in the place of the general configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    /// Sampler.
    pub sampler: Option<Sampler>,
    /// Path patterns; empty lists say nothing.
    pub routes: ServiceRoutes,
}

/// A selected process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Id given by the agent.
    pub id: ProcessId,
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Start of the process on the wall clock.
    pub start: UnixNs,
    /// Path of the executable as the process sees it; may be empty.
    pub executable: String,
    /// Its `OTEL_*` variables.
    pub environment: Vec<(String, String)>,
    /// 64 hexadecimal digits, if in a container.
    pub container_id: Option<String>,
    /// Value for `telemetry.sdk.language`, if known.
    pub language: Option<String>,
    /// From the discovery entry that selected it.
    pub service_name: Option<String>,
    /// From the discovery entry that selected it.
    pub service_namespace: Option<String>,
    /// Whether its exchanges become spans.
    pub export_traces: bool,
    /// Whether its exchanges become metrics.
    pub export_metrics: bool,
    /// From the discovery entry that selected it.
    pub overrides: Overrides,
}

/// What a process uses, at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The process.
    pub process: ProcessId,
    /// When it was read.
    pub time: MonotonicNs,
    /// CPU time in the program since its start, nanoseconds.
    pub cpu_user: u64,
    /// CPU time in the kernel since its start, nanoseconds.
    pub cpu_system: u64,
    /// Resident bytes.
    pub memory: u64,
    /// Mapped bytes.
    pub memory_virtual: u64,
    /// Bytes read from storage since its start, if known.
    pub disk_read: Option<u64>,
    /// Bytes written to storage since its start, if known.
    pub disk_written: Option<u64>,
    /// CPUs that it may run on; 0: not known.
    pub cpus: u32,
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    /// TCP over IPv4 or IPv6 (IPv4-mapped addresses are IPv4 here).
    Tcp {
        /// This side's address and port.
        local: (IpAddr, u16),
        /// The other side's address and port.
        peer: (IpAddr, u16),
    },
    /// A Unix stream socket, with the path it is bound to, if any.
    Unix {
        /// Path; abstract names begin with `@`.
        path: Option<String>,
    },
    /// Events came, the description of the connection did not (it was lost).
    Unknown,
}

/// What the two ends of a connection on one host have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tie {
    /// Nothing is known.
    #[default]
    Unknown,
    /// TCP: sequence numbers of the bytes at stream offset 0.
    Sequence {
        /// Of what is received.
        received: u32,
        /// Of what is sent.
        sent: u32,
    },
    /// Unix: the socket at the other end.
    Socket(SocketId),
}

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its socket.
    pub socket: SocketId,
    /// Where it leads.
    pub endpoints: Endpoints,
    /// Inode of its network namespace; 0 if not known.
    pub network_namespace: u32,
    /// What tells that another socket is its other end.
    pub tie: Tie,
}

/// What a socket event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Bytes were sent.
    Send,
    /// Bytes were received.
    Receive,
    /// A receive returned 0: the peer closed its sending side and all its bytes were read.
    EndOfStream,
    /// The peer's FIN has arrived.
    PeerClosed,
    /// This side has sent its FIN.
    LocalClosed,
    /// Over, after an orderly close.
    Closed,
    /// Reset by either side, or timed out.
    Reset,
    /// The thread begins to connect the socket.
    Connect,
    /// What is sent next is for a request that was received.
    Link,
}

/// One completed send or receive, or a change of a connection's state. See `ingest.proto` for each field's rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketEvent {
    /// Its socket.
    pub socket: SocketId,
    /// What it tells.
    pub kind: EventKind,
    /// When the last byte was handed over.
    pub time: MonotonicNs,
    /// When the call began to move bytes; not after `time`.
    pub began: MonotonicNs,
    /// Process that made the call.
    pub process: ProcessId,
    /// Thread that made the call.
    pub thread: u32,
    /// Stream offset of the first byte of this call in its direction.
    pub offset: u64,
    /// Bytes moved by this call.
    pub length: u32,
    /// Bytes of the other direction that had been moved by then.
    pub opposite_offset: u64,
    /// How long at least the first byte lay in the kernel before it was read, nanoseconds; 0: not known.
    pub queued_ns: u64,
    /// Changes of direction on this socket so far.
    pub turn: u32,
    /// First bytes of the call's data; never longer than `length`.
    pub head: Bytes,
    /// Last up to 8 bytes of the data, where `head` does not reach its end.
    pub tail: Bytes,
    /// The data could not be read: `length` is right, `head` is empty.
    pub unreadable: bool,
    /// The kernel side has given up on this socket; no further data events follow.
    pub opaque: bool,
    /// Plaintext that a TLS library was given or gave.
    pub tls: bool,
    /// The socket speaks TLS and is not read.
    pub encrypted: bool,
    /// Receive only: the call would have waited for data.
    pub blocking: bool,
    /// With `encrypted`: it is read, but not known which of the plaintext is its own.
    pub untied: bool,
    /// Send only: the `traceparent` in the head was put in by the agent's probes.
    pub propagated: bool,
}

/// Shared, immutable facts of a process.
pub type ProcessRef = Arc<Process>;
/// Shared, immutable facts of a connection.
pub type ConnectionRef = Arc<Connection>;
