//! One exchange: its span, its measurements, its line.
//!
//! In: an exchange, and what it is linked to. Out: spans that wait in the batcher, measurements in the registries, a line; for each
//! signal what is not sent is counted by why.

use spantap_config::{ExcludeInstrumented, Signal};

use super::{Pipeline, instrumented::News, linked, lock};
use crate::{
    exchange::{Exchange, Side},
    link::node::NodeRef,
    model::{ClockAnchor, ProcessRef},
    observation::Observation,
    trace::{self, Given, Parent},
};

impl Pipeline {
    /// Reports one exchange, which nothing is linked to. `clock` is the anchor of the batch that its end came with.
    pub fn exchange(&mut self, exchange: &Exchange, clock: &ClockAnchor) {
        self.report(exchange, clock, None);
    }

    /// By gRPC, which is no exchange, `process` has exported what `signal` says; or, as a server, was asked to take it.
    pub fn exported(&mut self, side: Side, signal: Signal, process: &ProcessRef) {
        let replaced = self.processes.is_replaced(process);
        if replaced {
            self.flush_spans();
        }
        let known = self.processes.get(process, replaced, &self.registries);
        if let Some(news) = known.own.exports(side, signal) {
            tell(news, process, self.exclude);
        }
    }

    pub(super) fn report(&mut self, exchange: &Exchange, clock: &ClockAnchor, node: Option<&NodeRef>) {
        let mut seen = Observation::new(exchange, *clock, &self.rules);
        self.telemetry.exchange(exchange.side);
        let replaced = self.processes.is_replaced(&exchange.process);
        if replaced {
            self.flush_spans();
        }
        let keeps_any = self.processes.keeps_any();
        let known = self.processes.get(&exchange.process, replaced, &self.registries);
        seen.route = known.service.route(&seen);
        if let Some(news) = known.own.learn(&seen) {
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
                    let headers = &exchange.request.headers;
                    let (given, own) = (Given::of(headers), linked::ids(trace::own(headers)));
                    self.tracer.descend_as(sampler, Parent::of(exchange.side, given.as_ref()), own)
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
}

/// Says, once for each process and signal, what is left out.
fn tell(news: News, process: &ProcessRef, exclude: ExcludeInstrumented) {
    if !exclude.spans {
        return;
    }
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
