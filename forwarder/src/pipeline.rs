//! The pipeline: exchanges in, spans, metrics and lines out, with the books to show for it.
//!
//! In: [`Pipeline::exchange`] for each exchange, ends of processes, the passing of time. Out: what the configured exporters
//! send and show. Called from one task; does not wait but in [`Pipeline::drain`].

mod active;
mod batcher;
mod build;
mod collector;
mod instrumented;
mod linked;
mod processes;
mod reload;
mod report;
mod services;
mod spools;

pub use build::{StartError, check};
pub use reload::fixed;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{task::JoinSet, time::Instant};

use spantap_config::ExcludeInstrumented;

use self::{active::ActiveRequests, batcher::Batcher, collector::Collector, processes::Processes, spools::Spools};
use crate::{
    console::Console,
    export::Exporter,
    link::Links,
    metric::registry::Registry,
    model::{ClockAnchor, ProcessId, ProcessRef, UnixNs, Usage},
    observation::Rules,
    otlp::span::SpanEncoder,
    resource::HostFacts,
    serve::Server,
    telemetry::{Telemetry, report::LossReporter, summary::Summary},
    trace::Tracer,
};

struct Traces {
    batcher: Batcher,
    exporter: Exporter,
}

struct Metrics {
    collector: Collector,
    exporter: Exporter,
}

/// From exchanges to exporters.
pub struct Pipeline {
    rules: Arc<Rules>,
    telemetry: Arc<Telemetry>,
    tracer: Tracer,
    links: Links,
    /// Whether anything is linked that no header tells of.
    links_on: bool,
    active: ActiveRequests,
    encoder: SpanEncoder,
    processes: Processes,
    exclude: ExcludeInstrumented,
    registries: Vec<Arc<Mutex<Registry>>>,
    traces: Option<Traces>,
    metrics: Option<Metrics>,
    console: Option<Console>,
    reporter: LossReporter,
    scrape: Option<build::Scrape>,
    admin: Option<Server>,
    spools: Spools,
    /// Exporters of an earlier configuration that still send.
    retiring: JoinSet<()>,
    /// When the counters of the program began.
    started: UnixNs,
}

impl Pipeline {
    /// Counters of the program, to add to and to read.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Address of the scrape endpoint, if on.
    pub fn scrape_address(&self) -> Option<SocketAddr> {
        self.scrape.as_ref().map(|scrape| scrape.server.address())
    }

    /// Address of the admin endpoint, if on.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::address)
    }

    /// Takes what the agent tells of its host, before the first exchange of its stream.
    pub fn set_host(&mut self, host: HostFacts) {
        self.processes.set_host(host);
    }

    /// Takes what `process` uses. `clock` is the anchor of the batch that it came with.
    pub fn usage(&mut self, usage: &Usage, process: &ProcessRef, clock: &ClockAnchor) {
        if !process.export_metrics || !self.registries.iter().any(|r| lock(r).plan().wants_usage()) {
            return;
        }
        let replaced = self.processes.is_replaced(process);
        if replaced {
            self.flush_spans();
        }
        let known = self.processes.get(process, replaced, &self.registries);
        for registry in &self.registries {
            lock(registry).record_usage(known.key, &known.resource, usage, process.start, clock.to_unix(usage.time));
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.collector.measured();
        }
    }

    /// Says that a process has ended. Exchanges of it may still follow.
    pub fn process_ended(&mut self, process: ProcessId) {
        self.links.process_ended(process);
        self.active.process_ended(process);
        self.processes.end(process, &self.registries, Instant::now());
    }

    /// Says that the agent has started anew: all processes it told of are over, their ids may come again.
    pub fn agent_restarted(&mut self) {
        self.release_links(true);
        self.links.clear();
        self.active.clear();
        self.flush_spans();
        self.processes.end_all(&self.registries, Instant::now());
    }

    /// When [`Pipeline::tick`] is due next. A second at most, for the log and the console.
    pub fn next_tick(&self) -> Instant {
        let now = Instant::now();
        let dues = [
            self.traces.as_ref().and_then(|t| t.batcher.due()),
            self.metrics.as_ref().map(|m| m.collector.due()),
            self.console.as_ref().and_then(Console::due),
            Some(now + Duration::from_secs(1)),
        ];
        dues.into_iter().flatten().min().unwrap_or(now)
    }

    /// Sends, shows and logs what is due. To be called at [`Pipeline::next_tick`], or every 50 ms or so.
    pub fn tick(&mut self) {
        self.release_links(false);
        let now = Instant::now();
        self.tell_active(now);
        if self.traces.as_ref().and_then(|t| t.batcher.due()).is_some_and(|due| due <= now) {
            self.flush_spans();
        }
        if let Some(metrics) = &mut self.metrics
            && (metrics.collector.due() <= now || metrics.collector.is_pressed(now))
        {
            let requests = metrics.collector.collect(now, wall_clock(), self.processes.resources());
            metrics.exporter.push(requests);
        }
        if let Some(console) = &mut self.console {
            console.tick(now);
        }
        let collected = self.metrics.as_ref().map(|m| m.collector.registry());
        for registry in self.registries.iter().filter(|r| !collected.is_some_and(|c| Arc::ptr_eq(c, r))) {
            let mut registry = lock(registry);
            registry.take_expired(now);
            if registry.is_crowded() {
                // Nothing pushes these series: those that ended go when the room is needed.
                registry.processes_mut().for_each(|p| p.exported = true);
                registry.make_room();
            }
        }
        self.processes.forget(now);
        self.reporter.report(&self.telemetry.losses, now);
    }

    /// Sends what is left, until `deadline` at most; counts what could not be sent. The scrape and admin endpoints
    /// answer to the end.
    pub async fn drain(mut self, deadline: Instant) -> Summary {
        self.release_links(true);
        self.flush_spans();
        let now = Instant::now();
        self.tell_active(now);
        let traces = self.traces.take().map(|t| t.exporter.drain(deadline));
        let metrics = self.metrics.take().map(|mut m| {
            let requests = m.collector.collect(now, wall_clock(), self.processes.resources());
            m.exporter.push(requests);
            m.exporter.drain(deadline)
        });
        tokio::join!(
            async {
                if let Some(traces) = traces {
                    traces.await;
                }
            },
            async {
                if let Some(metrics) = metrics {
                    metrics.await;
                }
            },
            // Each ends by a deadline of its own, set when it was retired, and books what is left.
            async { while self.retiring.join_next().await.is_some() {} },
        );
        if let Some(console) = self.console.take() {
            console.finish(deadline).await;
        }
        self.reporter.report(&self.telemetry.losses, Instant::now());
        Summary::of(&self.telemetry)
    }

    fn flush_spans(&mut self) {
        if let Some(traces) = &mut self.traces {
            let requests = traces.batcher.seal(&mut self.processes);
            if !requests.is_empty() {
                traces.exporter.push(requests);
            }
        }
    }
}

/// Locks a registry. A panic elsewhere leaves counts, not broken invariants.
pub(crate) fn lock(registry: &Mutex<Registry>) -> std::sync::MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall_clock() -> UnixNs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixNs(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
