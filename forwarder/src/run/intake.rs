//! From arrivals to exchanges.
//!
//! In: what the ingest server hands over. Out: exchanges to the pipeline, losses to their counters, acknowledgements to
//! the agent once a batch is taken over.

use std::sync::{Arc, Weak};

use spantap_config::Headers;
use spantap_proto::v1;

use crate::{
    exchange::{Capture, Exchange, Opened, Sink, Table},
    ingest::{Arrival, Batch},
    loss::{Losses, Reason},
    model::{ClockAnchor, MonotonicNs, Process, ProcessId, ProcessRef, UnixNs},
    pipeline::Pipeline,
    resource::HostFacts,
    telemetry::TlsProgram,
};

/// Processes that are known at most; the agent's own bound, twice, for those that have just ended.
const MAX_PROCESSES: usize = 32_768;

/// Bytes of what is known of all processes. Thousands of usual ones, with some KiB each, fit.
const MAX_PROCESS_BYTES: usize = 32 * 1024 * 1024;

/// State between the agent and the pipeline.
pub struct Intake {
    table: Table,
    processes: rustc_hash::FxHashMap<ProcessId, ProcessRef>,
    /// What those take, about, and those that are leaving.
    process_bytes: usize,
    /// Forgotten here, and still in use by open requests or waiting spans; with what each takes.
    leaving: Vec<(Weak<Process>, usize)>,
    /// Up to this sequence the agent may send again what was taken over already.
    sent_again: u64,
    /// Highest sequence taken over in this run.
    taken: u64,
    /// The process of events of which nothing is known.
    nobody: ProcessRef,
    losses: Arc<Losses>,
    run: Option<u64>,
    /// Cumulative counts that the agent has told in this run.
    told: Vec<(Reason, u64)>,
    clock: ClockAnchor,
    /// This program's own time at `clock`, to know the host's time when no batch comes.
    clock_read: std::time::Instant,
}

impl Intake {
    /// Nothing known, nothing open; losses go to `losses`.
    pub fn new(losses: Arc<Losses>) -> Self {
        Self {
            table: Table::default(),
            processes: Default::default(),
            process_bytes: 0,
            leaving: Vec::new(),
            sent_again: 0,
            taken: 0,
            nobody: Arc::new(nobody()),
            losses,
            run: None,
            told: Vec::new(),
            clock: ClockAnchor::default(),
            clock_read: std::time::Instant::now(),
        }
    }

    /// Keeps the header fields that `headers` names from now on.
    pub fn set_capture(&mut self, headers: &Headers) {
        self.table.set_capture(Capture::new(headers));
    }

    /// Takes one arrival over, and acknowledges it.
    pub fn take(&mut self, arrival: Arrival, pipeline: &mut Pipeline) {
        match arrival {
            Arrival::Began(hello) => self.begin(&hello, pipeline),
            Arrival::Batch { batch, taken, sequence } => {
                // Whoever has not heard an acknowledgement sends again; what was taken over is not taken twice.
                if sequence == 0 || sequence > self.sent_again {
                    self.batch(*batch, pipeline);
                    self.taken = self.taken.max(sequence);
                }
                if sequence != 0 {
                    // Full or closed: a later acknowledgement covers this one, or nobody waits for it.
                    let _ = taken.try_send(Ok(v1::Acknowledgement { sequence }));
                }
            }
            Arrival::Invalid(invalid) => {
                tracing::debug!(%invalid, "left out a part of a batch");
                self.losses.count(Reason::IngestInvalid, 1);
            }
            Arrival::Ended => {
                tracing::info!("the agent's stream has ended");
                pipeline.telemetry().agent.set_connected(false);
            }
        }
    }

    fn begin(&mut self, hello: &v1::Hello, pipeline: &mut Pipeline) {
        tracing::info!(
            version = hello.agent_version,
            kernel = hello.kernel_release,
            hook_set = hello.hook_set,
            "an agent is connected"
        );
        for feature in hello.features.iter().filter(|feature| !feature.on) {
            tracing::warn!(feature = feature.name, reason = feature.reason, "the agent does without");
        }
        let known = self.run.replace(hello.agent_run);
        if known.is_some_and(|run| run != hello.agent_run) {
            self.table.agent_restarted(&mut Out { pipeline, losses: &self.losses, clock: self.clock });
            pipeline.agent_restarted();
            let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
            ids.into_iter().for_each(|id| self.forget(id));
            self.told.clear();
            self.taken = 0;
        }
        self.sent_again = self.taken;
        pipeline.set_host(HostFacts { name: hello.host_name.clone(), id: hello.host_id.clone() });
        pipeline.telemetry().agent.set_connected(true);
    }

    fn batch(&mut self, batch: Batch, pipeline: &mut Pipeline) {
        self.clock = batch.clock;
        self.clock_read = std::time::Instant::now();
        self.let_go();
        for process in batch.processes {
            // One that is told again takes its own place.
            self.forget(process.id);
            let bytes = size(&process);
            if self.processes.len() >= MAX_PROCESSES || self.process_bytes + bytes > MAX_PROCESS_BYTES {
                self.losses.count(Reason::IngestInvalid, 1);
                continue;
            }
            self.process_bytes += bytes;
            self.processes.insert(process.id, Arc::new(process));
        }
        let mut out = Out { pipeline, losses: &self.losses, clock: self.clock };
        for connection in batch.connections {
            self.table.connection(Arc::new(connection), &mut out);
        }
        let mut received = 0;
        for event in batch.events {
            received += 1;
            match event {
                Ok(event) => {
                    let process = self.processes.get(&event.process).unwrap_or(&self.nobody);
                    self.table.event(event, process, &mut out);
                }
                Err(invalid) => {
                    tracing::debug!(%invalid, "left out an event");
                    self.losses.count(Reason::IngestInvalid, 1);
                }
            }
        }
        self.table.batch_ends(batch.bytes);
        out.pipeline.telemetry().agent.events_received.add(received);
        for usage in batch.usages {
            match self.processes.get(&usage.process) {
                Some(process) => pipeline.usage(&usage, process, &self.clock),
                None => tracing::debug!(process = usage.process.0, "usage of a process that is not known"),
            }
        }
        for id in batch.unobserved {
            let mut out = Out { pipeline, losses: &self.losses, clock: self.clock };
            self.table.process_unobserved(id, &mut out);
        }
        for id in batch.ended {
            self.table.process_ended(id, self.clock.monotonic);
            self.forget(id);
            pipeline.process_ended(id);
        }
        for (reason, count) in batch.losses {
            self.agent_lost(reason, count);
        }
        if let Some(status) = batch.status {
            let agent = &pipeline.telemetry().agent;
            agent.processes.set(status.processes.into());
            agent.events_seen.set(status.events);
            agent.queue_bytes.set(status.queue_bytes);
            agent.set_tls(status.tls.into_iter().take(TLS_PROGRAMS).map(tls_program).collect());
        }
    }

    fn forget(&mut self, id: ProcessId) {
        let Some(process) = self.processes.remove(&id) else { return };
        let bytes = size(&process);
        if Arc::strong_count(&process) > 1 {
            self.leaving.push((Arc::downgrade(&process), bytes));
        } else {
            self.process_bytes = self.process_bytes.saturating_sub(bytes);
        }
    }

    /// Counts those no more that nobody uses any more; only once there is little room, for it looks at all of them.
    fn let_go(&mut self) {
        if self.process_bytes < MAX_PROCESS_BYTES / 2 {
            return;
        }
        let bytes = &mut self.process_bytes;
        self.leaving.retain(|(process, size)| {
            let used = process.strong_count() > 0;
            if !used {
                *bytes = bytes.saturating_sub(*size);
            }
            used
        });
    }

    /// The agent's counts are cumulative in its run; ours are in this program's.
    fn agent_lost(&mut self, reason: Reason, count: u64) {
        let before = match self.told.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, told)) => std::mem::replace(told, count),
            None => {
                self.told.push((reason, count));
                0
            }
        };
        self.losses.count(reason, count.saturating_sub(before));
    }

    /// Tells the table the time.
    pub fn tick(&mut self, pipeline: &mut Pipeline) {
        let now = self.now();
        self.table.tick(now, &mut Out { pipeline, losses: &self.losses, clock: self.clock });
    }

    /// Ends everything that is open.
    pub fn drain(&mut self, pipeline: &mut Pipeline) {
        self.table.drain(&mut Out { pipeline, losses: &self.losses, clock: self.clock });
    }

    /// Requests that were seen so far.
    pub fn requests_seen(&self) -> u64 {
        self.table.stats().requests
    }

    /// Whether every request that was seen is reported, lost for a reason, or open.
    pub fn adds_up(&self) -> bool {
        let stats = self.table.stats();
        stats.requests == stats.exchanges + stats.requests_lost + stats.requests_open as u64
    }

    /// The host's monotonic time now, as far as the last batch and our own clock tell.
    fn now(&self) -> MonotonicNs {
        let since = u64::try_from(self.clock_read.elapsed().as_nanos()).unwrap_or(u64::MAX);
        MonotonicNs(self.clock.monotonic.0.saturating_add(since))
    }
}

/// Bytes that a process takes, about.
fn size(process: &Process) -> usize {
    let optional = [&process.container_id, &process.language, &process.service_name, &process.service_namespace];
    let texts = process.environment.iter().flat_map(|(name, value)| [name, value]);
    let routes = &process.overrides.routes;
    let texts = texts.chain([&process.executable]).chain(optional.into_iter().flatten());
    let texts = texts.chain(&routes.incoming).chain(&routes.outgoing);
    texts.fold(size_of::<Process>(), |sum, text| sum + size_of::<String>() + text.len())
}

/// Where exchanges and losses of the table go.
struct Out<'a> {
    pipeline: &'a mut Pipeline,
    losses: &'a Losses,
    clock: ClockAnchor,
}

impl Sink for Out<'_> {
    fn exchange(&mut self, exchange: Exchange) {
        self.pipeline.ended(exchange, &self.clock);
    }

    fn opened(&mut self, opened: &Opened<'_>) {
        self.pipeline.opened(opened);
    }

    fn abandoned(&mut self, serial: u64) {
        self.pipeline.abandoned(serial);
    }

    fn loss(&mut self, reason: Reason, n: u64) {
        self.losses.count(reason, n);
    }
}

fn nobody() -> Process {
    Process {
        id: ProcessId(0),
        pid: 0,
        start: UnixNs(0),
        executable: String::new(),
        environment: Vec::new(),
        container_id: None,
        language: None,
        service_name: None,
        service_namespace: None,
        export_traces: true,
        export_metrics: true,
        overrides: Default::default(),
    }
}

/// Most programs with a library of TLS that an agent tells of.
const TLS_PROGRAMS: usize = 64;

fn tls_program(wire: v1::TlsProgram) -> TlsProgram {
    let cut = |text: String| text.chars().take(256).collect();
    TlsProgram {
        executable: cut(wire.executable),
        library: cut(wire.library),
        reason: cut(wire.reason),
        connections: wire.connections,
    }
}
