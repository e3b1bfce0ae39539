//! What is lost, by reason: a closed list and its counters.
//!
//! In: `count(reason, n)` from wherever something is lost. Out: cumulative counts for self-metrics, logs and the
//! summary at stop. Rule: every request of a selected process is reported right, or stands here.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $unit:literal;)*) => {
        /// Why something was lost.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }
        impl Reason {
            /// All reasons, in the order of the table in the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];
            /// Value of the attribute `reason`.
            pub fn name(self) -> &'static str { match self { $(Reason::$variant => $name,)* } }
            /// What is counted: `exchange`, `event`, `connection`, `span`, `data_point` …
            pub fn unit(self) -> &'static str { match self { $(Reason::$variant => $unit,)* } }
        }
    };
}

reasons! {
    /// Ring buffer of the kernel side was full (told by the agent).
    RingBufferFull => "ring_buffer_full", "event";
    /// The kernel skipped a run of a probe (told by the agent).
    ProbeSkipped => "probe_skipped", "event";
    /// Ring buffer of process events was full (told by the agent).
    ProcessRingFull => "process_ring_full", "event";
    /// A head that should have been captured could not be read (told by the agent).
    HeadUnreadable => "head_unreadable", "event";
    /// The kernel had no memory for a socket's state (told by the agent).
    NoSocketState => "no_socket_state", "connection";
    /// A request was seen; the events of its response are missing.
    ResponseNotObserved => "response_not_observed", "exchange";
    /// A response was seen; the events of its request are missing.
    RequestNotObserved => "request_not_observed", "exchange";
    /// Both lie in a hole of the event stream; counted from the changes of direction that are missing. Those before a connection's
    /// first event and behind its last are told by the agent.
    ExchangeNotObserved => "exchange_not_observed", "exchange";
    /// A message begins where an HTTP head should stand, and is none.
    ParseError => "parse_error", "exchange";
    /// A connection that speaks something else.
    ProtocolUnknown => "protocol_unknown", "connection";
    /// A connection that is encrypted (TLS) and not read.
    Encrypted => "encrypted", "connection";
    /// A TLS connection of which exchanges are reported without their peer: all (told by the agent), or those before it was
    /// known.
    TlsPeerUnknown => "tls_peer_unknown", "connection";
    /// A call of a TLS library whose plaintext was not seen (told by the agent).
    TlsCall => "tls_call_not_seen", "event";
    /// A connection that speaks HTTP/2, which is not read yet.
    Http2 => "http2_not_read", "connection";
    /// More connections at once than the table holds, the one idle for longest was given up; or more bytes of unfinished
    /// heads than are kept.
    ConnectionLimit => "connection_limit", "exchange";
    /// More requests outstanding on one connection, or bytes of them on all, than are kept.
    PipelineLimit => "pipeline_limit", "exchange";
    /// Was still open when the program stopped.
    OpenAtStop => "open_at_stop", "exchange";
    /// The queue of an exporter was full.
    ExportQueueFull => "export_queue_full", "item";
    /// The destination refused for good (not retryable).
    ExportRefused => "export_refused", "item";
    /// Given up after retries.
    ExportGivenUp => "export_given_up", "item";
    /// The destination took a part only (partial success).
    ExportPartial => "export_partial_success", "item";
    /// Not sent before the shutdown timeout.
    ExportAtStop => "export_at_stop", "item";
    /// The oldest in the spool, because the spool was full.
    SpoolFull => "spool_full", "item";
    /// Was in the spool for longer than `spantap.spool.max_age`.
    SpoolExpired => "spool_expired", "item";
    /// Was written to the spool and could not be read back.
    SpoolUnreadable => "spool_unreadable", "item";
    /// Found in the spool at start, in no whole record: cut off by a crash, or not ours.
    SpoolDamaged => "spool_damaged", "byte";
    /// A message on the ingest socket that broke a rule of the protocol.
    IngestInvalid => "ingest_invalid", "event";
}

impl Reason {
    /// Whether the end of any request may be among what is lost. (What is missing on a connection that goes on shows by its
    /// offsets; on one that is silent from then on nothing shows it.)
    pub fn hides_ends(self) -> bool {
        matches!(self, Self::RingBufferFull | Self::ProbeSkipped | Self::TlsCall)
    }
}

/// Counters of all reasons; shared.
#[derive(Debug)]
pub struct Losses {
    counts: Vec<AtomicU64>,
}

impl Default for Losses {
    fn default() -> Self {
        Self { counts: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Losses {
    /// Adds `n` to `reason`.
    pub fn count(&self, reason: Reason, n: u64) {
        if let Some(counter) = self.counts.get(reason as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Count of `reason` so far.
    pub fn get(&self, reason: Reason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}
