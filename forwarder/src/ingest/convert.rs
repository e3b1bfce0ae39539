//! Wire types to domain types. Everything on the wire is hostile: sizes are bounded here, and what breaks a rule is
//! left out and counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use prost::Message as _;
use spantap_config::{Sampler, ServiceRoutes};
use spantap_proto::v1;

use super::decode::{self, Events};
use crate::{
    loss::Reason,
    model::{
        ClockAnchor, Connection, Endpoints, MonotonicNs, Overrides, Process, ProcessId, SocketId, Tie, UnixNs, Usage,
    },
};

/// Bytes kept of any text of the wire.
const TEXT: usize = 4096;
/// Entries kept of any list that describes a process.
const ENTRIES: usize = 64;
/// Path patterns kept of one list of a process.
const PATTERNS: usize = 1000;
/// Bytes kept of all texts of one process; the agent's own bounds come to less than half of it for all but odd ones.
const PROCESS_TEXT: usize = 32 * 1024;
/// Bytes kept of the path of a Unix socket: the kernel has room for 108 bytes (unix(7)).
const UNIX_PATH: usize = 108;
/// Longest encoded `Hello`; what is empty on the wire takes some thirty times its bytes here.
const HELLO: usize = 64 * 1024;

/// A batch of the agent.
#[derive(Debug, Default)]
pub struct Batch {
    /// Both clocks when it was made.
    pub clock: ClockAnchor,
    /// Processes that are new or have changed.
    pub processes: Vec<Process>,
    /// Connections that are new or told again.
    pub connections: Vec<Connection>,
    /// Events in their order; decoded one by one as they are taken, so that no list of them is held.
    pub events: Events,
    /// What processes use.
    pub usages: Vec<Usage>,
    /// Processes that go on and are observed no more.
    pub unobserved: Vec<ProcessId>,
    /// Processes that have ended.
    pub ended: Vec<ProcessId>,
    /// Cumulative losses of the agent.
    pub losses: Vec<(Reason, u64)>,
    /// The agent's figures, if told.
    pub status: Option<v1::AgentStatus>,
    /// Length of the encoded batch: what its events keep alive.
    pub bytes: usize,
}

/// What broke a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Bytes that are no batch.
    #[error("bytes that are no batch")]
    Malformed,
    /// An event of no known kind.
    #[error("an event of unknown kind {0}")]
    Kind(u64),
    /// More captured bytes than bytes, or than anything captures.
    #[error("an event with more captured bytes than bytes, or than are ever captured")]
    Head,
    /// More processes, connections or fields of theirs than an agent tells at once.
    #[error("a batch of too many parts")]
    Parts,
    /// A hello that is none, or too long.
    #[error("bytes that are no hello")]
    Hello,
    /// An address that is neither 4 nor 16 bytes.
    #[error("a connection with an address of {0} bytes")]
    Address(usize),
    /// A loss of no known reason.
    #[error("a loss of unknown reason {0}")]
    Loss(i32),
}

impl Batch {
    /// Takes what is valid of an encoded `Batch`; what is not goes to `invalid`. Also returns its sequence.
    ///
    /// # Errors
    /// If the bytes are no batch at all.
    pub fn decode(bytes: Bytes, invalid: &mut Vec<Invalid>) -> Result<(Self, u64), Invalid> {
        let wire = decode::without_events(&bytes)?;
        let sequence = wire.sequence;
        let mut keep = |result: Result<_, Invalid>| result.map_err(|error| invalid.push(error)).ok();
        let connections = wire.connections.into_iter().filter_map(|connection| keep(connection.try_into())).collect();
        let mut losses = Vec::new();
        for loss in wire.losses {
            match reason(loss.reason) {
                Ok(reason) => losses.push((reason, loss.count)),
                Err(error) => invalid.push(error),
            }
        }
        let batch = Self {
            clock: wire.clock.map(Into::into).unwrap_or_default(),
            processes: wire.processes.into_iter().map(Into::into).collect(),
            connections,
            bytes: bytes.len(),
            events: Events::new(bytes),
            usages: wire.usages.into_iter().map(Into::into).collect(),
            unobserved: wire.unobserved_processes.into_iter().map(ProcessId).collect(),
            ended: wire.ended_processes.into_iter().map(ProcessId).collect(),
            losses,
            status: wire.status,
        };
        Ok((batch, sequence))
    }
}

/// Reads the first message of a stream.
///
/// # Errors
/// If it is none, or longer than 64 KiB.
pub fn decode_hello(bytes: Bytes) -> Result<v1::Hello, Invalid> {
    if bytes.len() > HELLO {
        return Err(Invalid::Hello);
    }
    v1::Hello::decode(bytes).map_err(|_| Invalid::Hello)
}

impl From<v1::ClockAnchor> for ClockAnchor {
    fn from(wire: v1::ClockAnchor) -> Self {
        Self { monotonic: MonotonicNs(wire.monotonic_ns), realtime: UnixNs(wire.realtime_ns) }
    }
}

impl From<v1::ProcessUsage> for Usage {
    fn from(wire: v1::ProcessUsage) -> Self {
        Self {
            process: ProcessId(wire.process),
            time: MonotonicNs(wire.time_ns),
            cpu_user: wire.cpu_user_ns,
            cpu_system: wire.cpu_system_ns,
            memory: wire.memory_usage,
            memory_virtual: wire.memory_virtual,
            disk_read: wire.disk_read,
            disk_written: wire.disk_written,
            cpus: wire.cpus,
        }
    }
}

impl From<v1::Process> for Process {
    fn from(wire: v1::Process) -> Self {
        let mut left = PROCESS_TEXT;
        let mut text = |value: &str| {
            let kept = cut(value, TEXT.min(left));
            left -= kept.len();
            kept.to_owned()
        };
        // What names it comes first, so that the rest cannot take its place.
        let executable = text(&wire.executable);
        let [container_id, language, service_name, service_namespace] =
            [wire.container_id, wire.language, wire.service_name, wire.service_namespace]
                .map(|value| (!value.is_empty()).then(|| text(&value)));
        // A sampler that nobody knows, or a share that is none, is as good as none.
        let sampler = Sampler::named(&wire.sampler, wire.sampler_ratio);
        // A pattern that is cut would match something else: it is left out.
        let mut patterns = |given: Vec<String>| {
            let kept = given.iter().take(PATTERNS).map(|pattern| (text(pattern), pattern.len()));
            kept.filter(|(kept, length)| kept.len() == *length && *length > 0).map(|(kept, _)| kept).collect()
        };
        let routes =
            ServiceRoutes { incoming: patterns(wire.routes_incoming), outgoing: patterns(wire.routes_outgoing) };
        Self {
            overrides: Overrides { sampler, routes },
            id: ProcessId(wire.id),
            pid: wire.pid,
            start: UnixNs(wire.start_realtime_ns),
            executable,
            environment: wire.environment.iter().take(ENTRIES).map(|(name, value)| (text(name), text(value))).collect(),
            container_id,
            language,
            service_name,
            service_namespace,
            export_traces: wire.export_traces,
            export_metrics: wire.export_metrics,
        }
    }
}

impl TryFrom<v1::Connection> for Connection {
    type Error = Invalid;

    fn try_from(wire: v1::Connection) -> Result<Self, Invalid> {
        let endpoints = match v1::Transport::try_from(wire.transport) {
            Ok(v1::Transport::Tcp) => Endpoints::Tcp {
                local: (address(&wire.local_address)?, wire.local_port as u16),
                peer: (address(&wire.peer_address)?, wire.peer_port as u16),
            },
            Ok(v1::Transport::Unix) => Endpoints::Unix {
                path: (!wire.unix_path.is_empty()).then(|| cut(&wire.unix_path, UNIX_PATH).to_owned()),
            },
            _ => Endpoints::Unknown,
        };
        let tie = match (&endpoints, wire.received_base, wire.sent_base) {
            (Endpoints::Tcp { .. }, Some(received), Some(sent)) => Tie::Sequence { received, sent },
            (Endpoints::Unix { .. }, ..) if wire.peer_socket != 0 => Tie::Socket(SocketId(wire.peer_socket)),
            _ => Tie::Unknown,
        };
        Ok(Self { socket: SocketId(wire.socket), endpoints, network_namespace: wire.network_namespace, tie })
    }
}

fn reason(wire: i32) -> Result<Reason, Invalid> {
    match v1::LossReason::try_from(wire) {
        Ok(v1::LossReason::RingBufferFull) => Ok(Reason::RingBufferFull),
        Ok(v1::LossReason::ProbeSkipped) => Ok(Reason::ProbeSkipped),
        Ok(v1::LossReason::ProcessRingFull) => Ok(Reason::ProcessRingFull),
        Ok(v1::LossReason::HeadUnreadable) => Ok(Reason::HeadUnreadable),
        Ok(v1::LossReason::NoSocketState) => Ok(Reason::NoSocketState),
        Ok(v1::LossReason::TlsCall) => Ok(Reason::TlsCall),
        Ok(v1::LossReason::Exchange) => Ok(Reason::ExchangeNotObserved),
        Ok(v1::LossReason::Unspecified) | Err(_) => Err(Invalid::Loss(wire)),
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, Invalid> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .map(|sixteen| Ipv6Addr::from(sixteen).to_canonical())
        .map_err(|_| Invalid::Address(bytes.len()))
}

/// At most [`TEXT`] bytes of `text`.
pub(super) fn text(text: &str) -> String {
    cut(text, TEXT).to_owned()
}

/// At most `limit` bytes of `text`, whole characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_process_are_bounded_together() {
        let long = "ä".repeat(TEXT);
        let wire = v1::Process {
            executable: long.clone(),
            environment: (0..100).map(|n| (format!("OTEL_{n}"), long.clone())).collect(),
            service_name: "shop".into(),
            ..Default::default()
        };
        let process = Process::from(wire);
        let variables = process.environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        assert!(process.executable.len() + variables <= PROCESS_TEXT);
        assert_eq!(process.service_name.as_deref(), Some("shop"));
    }

    #[test]
    fn overrides_are_whole_or_not_there() {
        let of = |sampler: &str, sampler_ratio| {
            Process::from(v1::Process { sampler: sampler.into(), sampler_ratio, ..Default::default() })
                .overrides
                .sampler
        };
        assert_eq!(of("traceidratio", 0.5), Some(Sampler::TraceIdRatio(0.5)));
        assert_eq!(of("always_off", 0.0), Some(Sampler::AlwaysOff));
        for (name, ratio) in [("", 0.0), ("rubbish", 0.5), ("traceidratio", f64::NAN), ("traceidratio", -0.1)] {
            assert_eq!(of(name, ratio), None, "{name} {ratio}");
        }
        let many = (0..5000).map(|n| format!("/{n}/{}", "x".repeat(20))).collect();
        let routes_incoming = vec!["/a".into(), String::new(), format!("/{}", "x".repeat(TEXT)), "/b".into()];
        let wire = v1::Process { routes_incoming, routes_outgoing: many, ..Default::default() };
        let ServiceRoutes { incoming, outgoing } = Process::from(wire).overrides.routes;
        assert_eq!(incoming, ["/a", "/b"], "a part of a pattern would match something else");
        assert!(outgoing.len() <= PATTERNS && outgoing.iter().all(|pattern| pattern.len() > 20));
    }

    #[test]
    fn a_long_hello_is_refused() {
        let hello = v1::Hello { host_name: "h".repeat(HELLO), ..Default::default() };
        assert_eq!(decode_hello(hello.encode_to_vec().into()), Err(Invalid::Hello));
        let hello = v1::Hello { host_name: "h".into(), ..Default::default() };
        assert_eq!(decode_hello(hello.encode_to_vec().into()), Ok(hello));
    }
}
