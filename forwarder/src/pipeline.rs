//! The pipeline: exchanges in, spans, metrics and lines out, with the books to show for it.
//!
//! In: [`Pipeline::exchange`] for each exchange, ends of processes, the passing of time. Out: what the configured exporters
//! send and show. Called from one task; does not wait but in [`Pipeline::drain`].

mod batcher;
mod build;
mod collector;
mod instrumented;
mod linked;
mod processes;
mod reload;
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

use self::{batcher::Batcher, collector::Collector, instrumented::News, processes::Processes, spools::Spools};
use crate::{
    console::Console,
    exchange::Exchange,
    export::Exporter,
    link::{Links, node::NodeRef},
    metric::registry::Registry,
    model::{ClockAnchor, ProcessId, ProcessRef, UnixNs, Usage},
    observation::{Observation, Rules},
    otlp::span::SpanEncoder,
    resource::HostFacts,
    serve::Server,
    telemetry::{Telemetry, report::LossReporter, summary::Summary},
    trace::{Given, Parent, Tracer},
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

    /// Reports one exchange, which nothing is linked to. `clock` is the anchor of the batch that its end came with.
    pub fn exchange(&mut self, exchange: &Exchange, clock: &ClockAnchor) {
        self.report(exchange, clock, None);
    }

    fn report(&mut self, exchange: &Exchange, clock: &ClockAnchor, node: Option<&NodeRef>) {
        let mut seen = Observation::new(exchange, *clock, &self.rules);
        self.telemetry.exchange(exchange.side);
        let replaced = self.processes.is_replaced(&exchange.process);
        if replaced {
            self.flush_spans();
        }
        let keeps_any = self.processes.keeps_any();
        let known = self.processes.get(&exchange.process, replaced, &self.registries);
        seen.route = known.service.route(&seen);
        if let Some(news) = known.own.learn(&seen).filter(|_| self.exclude.spans) {
            tell(news, &exchange.process, self.exclude);
        }
        let left = ExcludeInstrumented {
            spans: known.own.traces && self.exclude.spans,
            metrics: known.own.metrics && self.exclude.metrics,
        };
        let ignored = self.rules.routes.ignored(seen.raw_path);
        let wanted = !(ignored.traces || left.spans)
            && exchange.process.export_traces
            && (self.traces.is_some() || self.console.is_some());
        let identity = if wanted {
            let surely = keeps_any && known.service.keeps(&seen);
            let lineage = match node {
                Some(node) => linked::Deciding {
                    links: &self.links,
                    tracer: &mut self.tracer,
                    processes: &self.processes,
                    exclude: self.exclude,
                    counts: &self.telemetry.links,
                }
                .lineage(node),
                None => {
                    let sampler = linked::sampler(&exchange.process, &self.tracer);
                    let given = Given::of(&exchange.request.headers);
                    self.tracer.descend(sampler, Parent::of(exchange.side, given.as_ref()))
                }
            };
            lineage.identity(surely)
        } else {
            None
        };
        let Some(known) = self.processes.get_known(exchange.process.id) else { return };
        if exchange.process.export_metrics && ignored.metrics {
            self.telemetry.measurements_ignored.add(1);
        } else if exchange.process.export_metrics && left.metrics {
            self.telemetry.measurements_instrumented.add(1);
        } else if exchange.process.export_metrics {
            for registry in &self.registries {
                lock(registry).record(known.key, &known.resource, &seen, identity.as_ref());
            }
            if let Some(metrics) = &mut self.metrics {
                metrics.collector.measured();
            }
        }
        if ignored.traces {
            self.telemetry.spans_ignored.add(1);
            return;
        }
        if left.spans && exchange.process.export_traces {
            self.telemetry.spans_instrumented.add(1);
            return;
        }
        let mut full = false;
        match (&mut self.traces, &identity) {
            (Some(traces), Some(identity)) if exchange.process.export_traces => {
                self.encoder.append(&mut known.spans, &seen, identity, &self.rules);
                full = traces.batcher.appended(exchange.process.id, known);
            }
            (Some(_), None) if exchange.process.export_traces => self.telemetry.spans_unsampled.add(1),
            _ => self.telemetry.spans_unwanted.add(1),
        }
        if let Some(console) = &mut self.console {
            console.print(&seen, identity.as_ref(), &known.resource, &self.rules);
        }
        if full {
            self.flush_spans();
        }
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
        self.processes.end(process, &self.registries, Instant::now());
    }

    /// Says that the agent has started anew: all processes it told of are over, their ids may come again.
    pub fn agent_restarted(&mut self) {
        self.release_links(true);
        self.links.clear();
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

/// Says, once for each process and signal, what is left out.
fn tell(news: News, process: &ProcessRef, exclude: ExcludeInstrumented) {
    let (pid, executable) = (process.pid, &process.executable);
    match news {
        News::Traces => tracing::info!(
            pid,
            executable,
            "the program exports spans itself; those that Spantap sees of it are left out from now on \
             (discovery.exclude_otel_instrumented_services: false keeps them)"
        ),
        News::Metrics if exclude.metrics => tracing::info!(
            pid,
            executable,
            "the program exports metrics itself; what Spantap measures of it is left out from now on \
             (spantap.exclude_instrumented_metrics: false keeps it)"
        ),
        News::Metrics => {}
        News::Gateway => tracing::info!(
            pid,
            executable,
            "the program passes on what others export; its own spans and metrics are kept after all"
        ),
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
