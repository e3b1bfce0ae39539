//! HTTP exchanges: a request and what became of it.
//!
//! In: [`crate::model::SocketEvent`]s with their process and connection. Out: [`Exchange`]s, and losses by reason.
//!
//! # Layout
//! `table` holds the connections and is the way in · `connection` one of them · `hold` puts late events in order ·
//! `stream` one direction · `data` reads bytes in their place · `message` begins messages · `line`, `fields`, `head`
//! read heads, `capture` keeps fields of them · `framing`, `chunked` find ends · `opening` opens requests, `requests` keeps them · `pairing` finds the
//! request of a response · `hole` deals with bytes nobody saw · `close` with the end of a connection ·
//! `handover` tells the requests that two runs of the agent saw · `http2` finds exports of telemetry in what else is not read.

mod capture;
mod chunked;
mod close;
mod connection;
mod data;
mod fields;
mod framing;
mod handover;
mod head;
mod hold;
mod hole;
mod http2;
mod line;
mod message;
mod opening;
mod pairing;
mod requests;
mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use capture::{Capture, Captured};
pub use handover::{Handover, Whose};
pub use table::{Limits, Sink, Stats, Table};

use std::time::Duration;

use bytes::Bytes;

use crate::model::{ConnectionRef, MonotonicNs, ProcessRef};

/// Which side of the connection the observed process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It received the request.
    Server,
    /// It sent the request.
    Client,
}

/// HTTP versions that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Which end stopped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// The observed process.
    Local,
    /// The other end.
    Peer,
    /// Reset or timed out; the kernel does not tell by whom.
    Reset,
}

/// What became of a request. "Not observed" is no outcome: such exchanges are counted as lost, never reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The response was seen to its last byte (or up to the switch of protocol, for 101 and CONNECT).
    Complete,
    /// The response began and its connection ended before its last byte.
    Aborted(ClosedBy),
    /// The connection ended without any byte of a response.
    NoResponse(ClosedBy),
}

/// Request fields that are used; everything else of the head is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeaders {
    /// `Host`.
    pub host: Option<Bytes>,
    /// `User-Agent`.
    pub user_agent: Option<Bytes>,
    /// Each `traceparent`, in order, at most 2 kept (two make it invalid).
    pub traceparent: Vec<Bytes>,
    /// That was put in on the way out of the client, which does not know of it: it names the span of this request.
    pub propagated: bool,
    /// Each `tracestate`, in order.
    pub tracestate: Vec<Bytes>,
    /// `Forwarded`.
    pub forwarded: Option<Bytes>,
    /// `X-Forwarded-For`.
    pub x_forwarded_for: Option<Bytes>,
    /// `X-Forwarded-Proto`.
    pub x_forwarded_proto: Option<Bytes>,
    /// `X-Forwarded-Host`.
    pub x_forwarded_host: Option<Bytes>,
    /// Fields that were asked for by name.
    pub captured: Captured,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method as sent (a token, RFC 9110 section 9.1).
    pub method: Bytes,
    /// Target as sent: origin form, absolute form, authority form or `*`.
    pub target: Bytes,
    /// Version of the request line.
    pub version: HttpVersion,
    /// The fields that are used.
    pub headers: RequestHeaders,
    /// Bytes of the body on the wire without chunked framing where that could be seen; `None` if not known.
    pub body_size: Option<u64>,
    /// The head was longer than what was captured: later fields are missing.
    pub truncated: bool,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status of the final response, 100..=599 as sent (1xx only for 101).
    pub status: u16,
    /// Version of the status line.
    pub version: HttpVersion,
    /// Bytes of the body, as for the request.
    pub body_size: Option<u64>,
    /// Fields that were asked for by name.
    pub captured: Captured,
}

/// A request that begins. It becomes an [`Exchange`] or is abandoned.
#[derive(Debug, Clone, Copy)]
pub struct Opened<'a> {
    /// Names the request, never reused by a [`Table`].
    pub serial: u64,
    /// Which side was observed.
    pub side: Side,
    /// Process that did the I/O.
    pub process: &'a ProcessRef,
    /// Connection it goes over.
    pub connection: &'a ConnectionRef,
    /// It goes through TLS.
    pub tls: bool,
    /// Thread that moved its first byte.
    pub thread: u32,
    /// Server: that was a call that waits for data.
    pub blocking: bool,
    /// When that call began to move bytes.
    pub began: MonotonicNs,
    /// When that call had moved them.
    pub time: MonotonicNs,
    /// Stream offset of its first byte.
    pub offset: u64,
    /// Bytes of the direction of responses that had surely been moved by then: unless requests are sent ahead, its response
    /// begins there.
    pub opposite: u64,
    /// Its head.
    pub request: &'a Request,
}

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Names the request as in [`Opened`]; 0: it was never told to begin.
    pub serial: u64,
    /// Which side was observed.
    pub side: Side,
    /// Process that did the I/O of the request.
    pub process: ProcessRef,
    /// Connection it went over.
    pub connection: ConnectionRef,
    /// It went through TLS.
    pub tls: bool,
    /// Thread that read (server) or wrote (client) the request's first byte.
    pub thread: u32,
    /// The request.
    pub request: Request,
    /// The final response; `None` for [`Outcome::NoResponse`].
    pub response: Option<Response>,
    /// What became of it.
    pub outcome: Outcome,
    /// First byte of the request: read by the server (less `queued`), or sent by the client.
    pub start: MonotonicNs,
    /// First byte of the final response.
    pub response_start: Option<MonotonicNs>,
    /// Last byte of the response; for `Aborted` and `NoResponse` the end of the connection.
    pub end: MonotonicNs,
    /// Server only: how long the request waited in the kernel before it was read; `start` includes it.
    pub queued: Option<Duration>,
}
