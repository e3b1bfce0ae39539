//! Wire types to domain types. Everything on the wire is hostile: sizes are bounded here, and what breaks a rule is
//! left out and counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use spantap_proto::v1;

use super::decode::{self, Events};
use crate::{
    loss::Reason,
    model::{ClockAnchor, Connection, Endpoints, MonotonicNs, Process, ProcessId, SocketId, UnixNs},
};

/// Characters kept of any text of the wire.
const TEXT: usize = 4096;
/// Entries kept of any list that describes a process.
const ENTRIES: usize = 64;

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
    /// Processes that have ended.
    pub ended: Vec<ProcessId>,
    /// Cumulative losses of the agent.
    pub losses: Vec<(Reason, u64)>,
    /// The agent's figures, if told.
    pub status: Option<v1::AgentStatus>,
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
    /// More captured bytes than bytes.
    #[error("an event with more captured bytes than bytes")]
    Head,
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
            events: Events::new(bytes),
            ended: wire.ended_processes.into_iter().map(ProcessId).collect(),
            losses,
            status: wire.status,
        };
        Ok((batch, sequence))
    }
}

impl From<v1::ClockAnchor> for ClockAnchor {
    fn from(wire: v1::ClockAnchor) -> Self {
        Self { monotonic: MonotonicNs(wire.monotonic_ns), realtime: UnixNs(wire.realtime_ns) }
    }
}

impl From<v1::Process> for Process {
    fn from(wire: v1::Process) -> Self {
        let optional = |value: String| (!value.is_empty()).then(|| text(&value));
        Self {
            id: ProcessId(wire.id),
            pid: wire.pid,
            start: UnixNs(wire.start_realtime_ns),
            executable: text(&wire.executable),
            environment: wire.environment.iter().take(ENTRIES).map(|(name, value)| (text(name), text(value))).collect(),
            container_id: optional(wire.container_id),
            language: optional(wire.language),
            service_name: optional(wire.service_name),
            service_namespace: optional(wire.service_namespace),
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
            Ok(v1::Transport::Unix) => {
                Endpoints::Unix { path: (!wire.unix_path.is_empty()).then(|| text(&wire.unix_path)) }
            }
            _ => Endpoints::Unknown,
        };
        Ok(Self { socket: SocketId(wire.socket), endpoints, network_namespace: wire.network_namespace })
    }
}

fn reason(wire: i32) -> Result<Reason, Invalid> {
    match v1::LossReason::try_from(wire) {
        Ok(v1::LossReason::RingBufferFull) => Ok(Reason::RingBufferFull),
        Ok(v1::LossReason::ProbeSkipped) => Ok(Reason::ProbeSkipped),
        Ok(v1::LossReason::ProcessRingFull) => Ok(Reason::ProcessRingFull),
        Ok(v1::LossReason::HeadUnreadable) => Ok(Reason::HeadUnreadable),
        Ok(v1::LossReason::NoSocketState) => Ok(Reason::NoSocketState),
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

/// At most [`TEXT`] characters of `text`.
pub(super) fn text(text: &str) -> String {
    text.chars().take(TEXT).collect()
}
