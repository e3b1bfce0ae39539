//! What Spantap tells about itself: counters that every part adds to.
//!
//! In: counts from ingest, pipeline and exporters. Out: [`Telemetry`], read by the admin endpoint, the metrics export,
//! the log and the summary at stop. Nothing here carries a header value, a body or a URL's query.

pub mod destination;
pub mod links;
pub mod report;
pub mod snapshot;
pub mod summary;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use self::{destination::Destination, links::LinkCounts};
use crate::{exchange::Side, loss::Losses};

/// A count that several parts add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value: for gauges, and for counts that another program keeps.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Takes `n` away, of a gauge that several parts add to.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A program that speaks TLS, or may, as the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProgram {
    /// Path of its executable.
    pub executable: String,
    /// Its library; empty if not known.
    pub library: String,
    /// Why it is not read, or not in full; empty if it is.
    pub reason: String,
    /// Connections that were not read for this reason.
    pub connections: u64,
}

/// A program of a runtime that tells which request another one is made for, as the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedProgram {
    /// Path of its executable.
    pub executable: String,
    /// Its runtime.
    pub runtime: String,
    /// Whether its requests are linked: `linked`, `partly`, `not_linked`.
    pub state: &'static str,
    /// Why not, or not all; empty if they are.
    pub reason: String,
}

/// What the agent does to requests, as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// Whether it goes on.
    pub on: bool,
    /// How often, by outcome.
    pub counts: Vec<(&'static str, u64)>,
}

/// What is known of the agent.
#[derive(Debug, Default)]
pub struct AgentStatus {
    tls: Mutex<Vec<TlsProgram>>,
    linked: Mutex<Vec<LinkedProgram>>,
    propagation: Mutex<Option<Propagation>>,
    connected: AtomicBool,
    /// Streams that agents have opened so far.
    pub streams: Counter,
    /// Socket events that have arrived here.
    pub events_received: Counter,
    /// Socket events that the agent has taken from the kernel, as it says.
    pub events_seen: Counter,
    /// Selected processes now, as the agent says.
    pub processes: Counter,
    /// Bytes in the ring buffer, as the agent says.
    pub ring_bytes: Counter,
    /// Bytes that wait for acknowledgement, as the agent says.
    pub queue_bytes: Counter,
}

impl AgentStatus {
    /// Replaces what is known of programs that speak TLS.
    pub fn set_tls(&self, programs: Vec<TlsProgram>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = programs;
    }

    /// Programs that speak TLS.
    pub fn tls(&self) -> Vec<TlsProgram> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is known of programs whose requests are linked or not.
    pub fn set_linked(&self, programs: Vec<LinkedProgram>) {
        *self.linked.lock().unwrap_or_else(PoisonError::into_inner) = programs;
    }

    /// Programs whose requests are linked or not.
    pub fn linked(&self) -> Vec<LinkedProgram> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is known of requests that were given a `traceparent`.
    pub fn set_propagation(&self, now: Propagation) {
        *self.propagation.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Requests that were given a `traceparent`; `None` if the agent never said that it does so.
    pub fn propagation(&self) -> Option<Propagation> {
        self.propagation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether a stream is up.
    pub fn set_connected(&self, connected: bool) {
        if connected {
            self.streams.add(1);
        }
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether a stream is up.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// What the console exporter did.
#[derive(Debug, Default)]
pub struct ConsoleStatus {
    /// Exchanges written to standard output.
    pub printed: Counter,
    /// Exchanges not printed because standard output was slow or closed.
    pub dropped: Counter,
}

/// All counters of the program; shared.
#[derive(Debug)]
pub struct Telemetry {
    /// Losses by reason.
    pub losses: Arc<Losses>,
    /// The agent.
    pub agent: AgentStatus,
    /// Exchanges reported where the observed process was the server.
    pub server_exchanges: Counter,
    /// Exchanges reported where the observed process was the client.
    pub client_exchanges: Counter,
    /// Exchanges that became no span by choice of the sampler.
    pub spans_unsampled: Counter,
    /// Exchanges that became no span because nobody asked: no destination, or the process's selection excludes traces.
    pub spans_unwanted: Counter,
    /// Exchanges that became no span because `routes.ignored_patterns` names their path.
    pub spans_ignored: Counter,
    /// Exchanges that were not measured because `routes.ignored_patterns` names their path.
    pub measurements_ignored: Counter,
    /// Exchanges that became no span because their program exports spans itself.
    pub spans_instrumented: Counter,
    /// Exchanges that were not measured because their program exports metrics itself.
    pub measurements_instrumented: Counter,
    /// Links between spans.
    pub links: LinkCounts,
    /// Configurations that were read again and taken.
    pub reloads: Counter,
    /// Configurations that were read again and refused.
    pub reloads_refused: Counter,
    /// Measurements that went to an overflow series.
    pub metric_overflow: Counter,
    /// Processes whose series were dropped before their time because there were too many.
    pub metric_evicted: Counter,
    /// Destination of spans.
    pub traces: Arc<Destination>,
    /// Destination of data points.
    pub metrics: Arc<Destination>,
    /// Standard output.
    pub console: ConsoleStatus,
    /// Scrapes of the Prometheus endpoint answered.
    pub scrapes: Counter,
}

impl Telemetry {
    /// Counters at zero, over `losses`.
    pub fn new(losses: Arc<Losses>) -> Self {
        Self {
            traces: Arc::new(Destination::new("traces", losses.clone())),
            metrics: Arc::new(Destination::new("metrics", losses.clone())),
            losses,
            agent: AgentStatus::default(),
            server_exchanges: Counter::default(),
            client_exchanges: Counter::default(),
            spans_unsampled: Counter::default(),
            spans_unwanted: Counter::default(),
            spans_ignored: Counter::default(),
            measurements_ignored: Counter::default(),
            spans_instrumented: Counter::default(),
            measurements_instrumented: Counter::default(),
            links: LinkCounts::default(),
            reloads: Counter::default(),
            reloads_refused: Counter::default(),
            metric_overflow: Counter::default(),
            metric_evicted: Counter::default(),
            console: ConsoleStatus::default(),
            scrapes: Counter::default(),
        }
    }

    /// Counts an exchange that is reported.
    pub fn exchange(&self, side: Side) {
        match side {
            Side::Server => self.server_exchanges.add(1),
            Side::Client => self.client_exchanges.add(1),
        }
    }

    /// Why the program is not ready to do its job, in words; empty if it is.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.agent.is_connected() {
            reasons.push("no agent is connected".to_owned());
        }
        for destination in [&self.traces, &self.metrics] {
            if let Some(why) = destination.refusal() {
                reasons.push(format!("the destination of {} refuses: {why}", destination.name()));
            }
        }
        reasons
    }
}
