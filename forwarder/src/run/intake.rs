//! From arrivals to exchanges.
//!
//! In: what the ingest server hands over. Out: exchanges to the pipeline, losses to their counters, acknowledgements to
//! the agent once a batch is taken over.

mod handover;
mod out;
mod processes;

use std::sync::Arc;

use spantap_config::Headers;
use spantap_proto::v1;

use self::{handover::Takeover, out::Out, processes::Processes};
use crate::{
    exchange::{Capture, Table},
    ingest::{Arrival, Batch},
    loss::{Losses, Reason},
    model::{ClockAnchor, MonotonicNs},
    pipeline::Pipeline,
    resource::HostFacts,
    telemetry::{LinkedProgram, Propagation, TlsProgram},
};

/// State between the agent and the pipeline.
pub struct Intake {
    table: Table,
    processes: Processes,
    /// Up to this sequence the agent may send again what was taken over already.
    sent_again: u64,
    /// Highest sequence taken over in this run.
    taken: u64,
    losses: Arc<Losses>,
    run: Option<u64>,
    /// When this run observed last, as it says when it ends; else its newest event.
    observed_until: MonotonicNs,
    newest_event: MonotonicNs,
    takeover: Takeover,
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
            processes: Processes::default(),
            sent_again: 0,
            taken: 0,
            losses,
            run: None,
            observed_until: MonotonicNs::default(),
            newest_event: MonotonicNs::default(),
            takeover: Takeover::default(),
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
                    let _ = taken.try_send(Ok(v1::Acknowledgement { sequence, finish: false }));
                }
            }
            Arrival::Invalid(invalid) => {
                tracing::debug!(%invalid, "left out a part of a batch");
                self.losses.count(Reason::IngestInvalid, 1);
            }
            Arrival::Ended => {
                tracing::info!("the agent's stream has ended");
                pipeline.telemetry().agent.set_connected(false);
                pipeline.agent_away();
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
            self.next_run(hello.observing_since_ns, pipeline);
            pipeline.agent_restarted();
            self.processes.forget_all();
            self.told.clear();
            self.taken = 0;
        }
        pipeline.agent_back();
        self.sent_again = self.taken;
        pipeline.set_host(HostFacts { name: hello.host_name.clone(), id: hello.host_id.clone() });
        pipeline.telemetry().agent.set_connected(true);
    }

    /// Ends what the run before had open: for good, or if the next one has observed beside it, for that to go on with.
    fn next_run(&mut self, observing_since: u64, pipeline: &mut Pipeline) {
        let told = if self.observed_until.0 == 0 { self.newest_event } else { self.observed_until };
        let told = told.min(self.clock.monotonic);
        (self.observed_until, self.newest_event) = Default::default();
        let mut out = Out::new(pipeline, &self.losses, self.clock, &mut self.takeover);
        if told.0 != 0 && observing_since <= told.0 {
            let handover = self.table.hand_over(&mut out);
            self.takeover.begin(handover, told, &self.losses);
        } else {
            self.table.agent_restarted(&mut out);
            self.takeover.end(&self.losses);
        }
    }

    fn batch(&mut self, batch: Batch, pipeline: &mut Pipeline) {
        self.clock = batch.clock;
        self.clock_read = std::time::Instant::now();
        self.losses.count(Reason::IngestInvalid, self.processes.learn(batch.processes));
        let mut out = Out::new(pipeline, &self.losses, self.clock, &mut self.takeover);
        for connection in batch.connections {
            self.table.connection(Arc::new(connection), &mut out);
        }
        let mut received = 0;
        for event in batch.events {
            received += 1;
            match event {
                Ok(event) => {
                    self.newest_event = self.newest_event.max(event.time);
                    out.known = out.takeover.covers(event.time);
                    let process = self.processes.get_or_nobody(event.process);
                    out.pipeline.socket_event(&event, process);
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
            match self.processes.get(usage.process) {
                Some(process) => pipeline.usage(&usage, process, &self.clock),
                None => tracing::debug!(process = usage.process.0, "usage of a process that is not known"),
            }
        }
        for id in batch.unobserved {
            let mut out = Out::new(pipeline, &self.losses, self.clock, &mut self.takeover);
            self.table.process_unobserved(id, &mut out);
        }
        for id in batch.ended {
            self.table.process_ended(id, self.clock.monotonic);
            self.processes.forget(id);
            pipeline.process_ended(id);
        }
        for (reason, count) in batch.losses {
            if self.agent_lost(reason, count) > 0 && reason.hides_ends() {
                pipeline.events_lost();
            }
        }
        if let Some(status) = batch.status {
            // No later than when it was said.
            self.observed_until = MonotonicNs(status.observed_until_ns).min(self.clock.monotonic);
            let agent = &pipeline.telemetry().agent;
            agent.processes.set(status.processes.into());
            agent.events_seen.set(status.events);
            agent.queue_bytes.set(status.queue_bytes);
            if let Some(propagation) = status.propagation {
                agent.set_propagation(propagation_of(&propagation));
            }
            agent.set_tls(status.tls.into_iter().take(PROGRAMS).map(tls_program).collect());
            agent.set_linked(status.linked.into_iter().take(PROGRAMS).filter_map(linked_program).collect());
        }
    }

    /// The agent's counts are cumulative in its run; ours are in this program's. Gives what is new.
    fn agent_lost(&mut self, reason: Reason, count: u64) -> u64 {
        let before = match self.told.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, told)) => std::mem::replace(told, count),
            None => {
                self.told.push((reason, count));
                0
            }
        };
        let new = count.saturating_sub(before);
        self.losses.count(reason, new);
        new
    }

    /// Tells the table the time.
    pub fn tick(&mut self, pipeline: &mut Pipeline) {
        let now = self.now();
        self.takeover.tick(&self.losses);
        self.table.tick(now, &mut Out::new(pipeline, &self.losses, self.clock, &mut self.takeover));
    }

    /// Ends everything that is open.
    pub fn drain(&mut self, pipeline: &mut Pipeline) {
        self.table.drain(&mut Out::new(pipeline, &self.losses, self.clock, &mut self.takeover));
        self.takeover.end(&self.losses);
    }

    /// Requests that were seen so far.
    pub fn requests_seen(&self) -> u64 {
        self.table.stats().requests.saturating_sub(self.takeover.twice())
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

/// Most programs of which an agent tells whether their TLS is read, and whether their requests are linked.
const PROGRAMS: usize = 64;

fn propagation_of(wire: &v1::Propagation) -> Propagation {
    let mut counts: Vec<_> =
        wire.counts.iter().filter_map(|count| Some((outcome(count.outcome())?, count.count))).take(OUTCOMES).collect();
    counts.sort_unstable();
    counts.dedup_by_key(|(name, _)| *name);
    Propagation { on: wire.on, counts }
}

/// Outcomes of requests and connections that an agent tells of at most.
const OUTCOMES: usize = 32;

/// Name of an outcome, as in docs/telemetry.md.
fn outcome(wire: v1::PropagationOutcome) -> Option<&'static str> {
    use v1::PropagationOutcome as Of;
    Some(match wire {
        Of::Added => "added",
        Of::Present => "present",
        Of::Busy => "busy",
        Of::Failed => "failed",
        Of::Untold => "untold",
        Of::NotHttp => "not_http",
        Of::Split => "split",
        Of::TooLarge => "too_large",
        Of::Pipelined => "pipelined",
        Of::Endless => "endless",
        Of::Tunnel => "tunnel",
        Of::Skipped => "skipped",
        Of::NoRoom => "no_room",
        Of::Blocking => "blocking",
        Of::Unspecified => return None,
    })
}

/// A text of the agent, which bounds series.
fn cut(text: String) -> String {
    text.chars().take(256).collect()
}

fn linked_program(wire: v1::LinkedProgram) -> Option<LinkedProgram> {
    let state = match wire.state() {
        v1::LinkedState::Linked => "linked",
        v1::LinkedState::Partly => "partly",
        v1::LinkedState::Not => "not_linked",
        v1::LinkedState::Unspecified => return None,
    };
    Some(LinkedProgram {
        executable: cut(wire.executable),
        runtime: cut(wire.runtime),
        state,
        reason: cut(wire.reason),
    })
}

fn tls_program(wire: v1::TlsProgram) -> TlsProgram {
    TlsProgram {
        executable: cut(wire.executable),
        library: cut(wire.library),
        reason: cut(wire.reason),
        connections: wire.connections,
    }
}
