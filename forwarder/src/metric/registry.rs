//! Series of all processes, bounded.
//!
//! In: measurements under a process's key, ends of processes. Out: series to export or to show. At most
//! [`SERIES_LIMIT`] series for each process and metric, the rest in one overflow series, so that nothing is lost; at most
//! [`PROCESS_LIMIT`] processes and [`RESOURCE_BYTES`] of what is known of them, of which ended ones that were exported go first.

mod held;
mod process;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use self::held::Held;
pub use self::process::{MetricSeries, ProcessSeries};
use super::{
    exemplar::Exemplar,
    instrument::{Instrument, Kind, Source},
    plan::Plan,
    point::{Amount, Sample},
    series::{OpenRequest, SeriesRef},
    usage,
};
use crate::{
    exchange::Side,
    model::{UnixNs, Usage},
    observation::{Observation, verdict::ErrorType},
    resource::Resource,
    telemetry::Telemetry,
    trace::SpanIdentity,
};

/// Series of one process and metric (metrics SDK specification, cardinality limit).
pub const SERIES_LIMIT: usize = 2000;
/// Processes whose series are kept.
pub const PROCESS_LIMIT: usize = 16384;
/// Bytes of the resources of those. Usual ones take some 3 KiB; a process may give itself a hundred times that by its
/// environment, and another one each moment.
pub const RESOURCE_BYTES: usize = 64 << 20;

/// A process in the registries, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessKey(pub u64);

/// Series of all processes, for one plan.
#[derive(Debug)]
pub struct Registry {
    plan: Arc<Plan>,
    ttl: Duration,
    held: Held,
    telemetry: Arc<Telemetry>,
}

impl Registry {
    /// An empty registry. Series of an ended process stay for `ttl`.
    pub fn new(plan: Arc<Plan>, ttl: Duration, telemetry: Arc<Telemetry>) -> Self {
        Self { plan, ttl, held: Held::new(telemetry.clone()), telemetry }
    }

    /// The instruments that are on.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// How long series of an ended process stay.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether this registry serves `plan` and `ttl`.
    pub fn serves(&self, plan: &Plan, ttl: Duration) -> bool {
        *self.plan == *plan && self.ttl == ttl
    }

    /// Measures an exchange with every instrument of its side. `span`: its span, if that is kept.
    pub fn record(
        &mut self,
        process: ProcessKey,
        resource: &Arc<Resource>,
        seen: &Observation<'_>,
        span: Option<&SpanIdentity>,
    ) {
        let plan = self.plan.clone();
        let groups = if seen.exchange.side == Side::Server { &plan.server } else { &plan.client };
        if groups.is_empty() {
            return;
        }
        let of = self.held.series(process, resource, &plan, seen.start);
        let exemplar = Exemplar::of(plan.exemplars, span, seen.end);
        for group in groups {
            let series = SeriesRef::of(seen, group.mask);
            for place in &group.members {
                if let (Some(active), Some(metric)) = (plan.active.get(*place), of.metrics.get_mut(*place))
                    && let Some(sample) = sample(active.instrument, seen)
                    && metric.take(active, &series, sample, seen.start, exemplar)
                {
                    self.telemetry.metric_overflow.add(1);
                }
            }
        }
    }

    /// Takes what a process that began at `start` uses, read at `time`.
    pub fn record_usage(
        &mut self,
        process: ProcessKey,
        resource: &Arc<Resource>,
        now: &Usage,
        start: UnixNs,
        time: UnixNs,
    ) {
        let plan = self.plan.clone();
        if !plan.wants_usage() {
            return;
        }
        let of = self.held.series(process, resource, &plan, time);
        if of.ended.is_some() {
            return;
        }
        for (place, active) in plan.of(Source::is_usage) {
            let Some(metric) = of.metrics.get_mut(place) else { continue };
            let start = if active.instrument.kind == Kind::Gauge { time } else { start };
            let values = usage::values(active.instrument.source, now, of.usage.as_ref());
            for (part, amount) in usage::kept(values, active.mask).into_iter().flatten() {
                let sample = match (active.instrument.kind, amount) {
                    (Kind::Counter, Amount::Int(more)) => Sample::Whole(more),
                    (Kind::Counter, Amount::Double(more)) => Sample::Value(more),
                    _ => Sample::Set(amount),
                };
                metric.take(active, &SeriesRef::of_process(part), sample, start, None);
            }
        }
        of.usage = Some(*now);
    }

    /// Takes how many requests a process has open, by what is known of them; the first of them began at `start`. Numbers that
    /// are not among `open` become 0: whatever was told before, they are right from then on.
    pub fn set_open<'a>(
        &mut self,
        process: ProcessKey,
        resource: &Arc<Resource>,
        open: impl Iterator<Item = (&'a OpenRequest, u64)>,
        start: UnixNs,
    ) {
        let plan = self.plan.clone();
        let Some((place, active)) = plan.of(|source| source == Source::OpenRequests).next() else { return };
        // What a process holds has ended with it.
        if self.get(process).is_some_and(|of| of.ended.is_some()) {
            return;
        }
        let of = self.held.series(process, resource, &plan, start);
        let Some(metric) = of.metrics.get_mut(place) else { return };
        metric.clear_numbers(active);
        for (request, number) in open {
            metric.take(active, &SeriesRef::of_open(request, active.mask), Sample::Whole(number), start, None);
        }
    }

    /// Says that `process` has ended; its series stay for the time to live.
    pub fn end(&mut self, process: ProcessKey, now: Instant) {
        self.held.end(process, now, &self.plan);
    }

    /// Keys of all processes, in no order.
    pub fn keys(&self) -> Vec<ProcessKey> {
        self.held.processes.keys().copied().collect()
    }

    /// Series of one process.
    pub fn get(&self, process: ProcessKey) -> Option<&ProcessSeries> {
        self.held.processes.get(&process)
    }

    /// All processes, in no order.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut ProcessSeries> {
        self.held.processes.values_mut()
    }

    /// All processes, in no order.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessSeries> {
        self.held.processes.values()
    }

    /// Takes out the processes whose time is over at `now`.
    pub fn take_expired(&mut self, now: Instant) -> Vec<ProcessSeries> {
        self.held.take_expired(now, self.ttl)
    }

    /// Whether there is so much of processes that those that ended should be exported before their series must go.
    pub fn is_crowded(&self) -> bool {
        self.held.is_crowded()
    }

    /// Number of processes.
    pub fn len(&self) -> usize {
        self.held.processes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.processes.is_empty()
    }

    /// Drops ended processes that are exported, the first to end first, until a quarter of the room is in use.
    pub fn make_room(&mut self) {
        self.held.make_room();
    }
}

/// What an instrument takes of an exchange; `None` where that is not known.
fn sample(instrument: &Instrument, seen: &Observation<'_>) -> Option<Sample> {
    let exchange = seen.exchange;
    match instrument.source {
        Source::Duration => Some(Sample::Value(seen.duration().as_secs_f64())),
        Source::RequestSize => exchange.request.body_size.map(Sample::Whole),
        Source::ResponseSize => exchange.response.as_ref().and_then(|r| r.body_size).map(Sample::Whole),
        Source::Calls => Some(Sample::Whole(1)),
        Source::Failures => seen.error.is_some_and(ErrorType::fails_span).then_some(Sample::Whole(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
