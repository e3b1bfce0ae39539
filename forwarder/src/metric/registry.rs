//! Series of all processes, bounded.
//!
//! In: measurements under a process's key, ends of processes. Out: series to export or to show. At most
//! [`SERIES_LIMIT`] series for each process and metric, the rest in one overflow series, so that nothing is lost; at most
//! [`PROCESS_LIMIT`] processes, of which ended ones that were exported go first.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{
    exemplar::Exemplar,
    instrument::{Instrument, Kind, Source},
    plan::{Active, Plan},
    point::{Amount, Data, Sample},
    series::{BuildHashed, SeriesKey, SeriesRef},
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

/// A process in the registries, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessKey(pub u64);

/// Series of one metric of one process.
#[derive(Debug, Default)]
pub struct MetricSeries {
    /// By their attributes.
    pub series: HashMap<SeriesKey, Data, BuildHashed>,
    /// What found no room.
    pub overflow: Option<Data>,
}

impl MetricSeries {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len() + usize::from(self.overflow.is_some())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every series; the one without a key is the overflow.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&SeriesKey>, &Data)> {
        self.series.iter().map(|(key, data)| (Some(key), data)).chain(self.overflow.iter().map(|data| (None, data)))
    }

    /// Notes that everything up to `time` has been told, where points of `active` tell what came since the last collection.
    /// Series that had nothing to tell go: they begin anew with the next measurement.
    pub fn settle(&mut self, active: &Active, time: UnixNs) {
        let observed = active.instrument.source.is_usage();
        let keep = |data: &mut Data| {
            // What is observed counts on from what it was.
            let kept = observed || data.is_changed();
            data.settle(&active.aggregation, time);
            kept
        };
        self.series.retain(|_, data| keep(data));
        if !self.overflow.as_mut().is_none_or(keep) {
            self.overflow = None;
        }
    }

    /// Every series, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Data> {
        self.series.values_mut().chain(&mut self.overflow)
    }

    /// Takes a measurement; returns whether it went to the overflow.
    fn take(
        &mut self,
        active: &Active,
        series: &SeriesRef<'_>,
        sample: Sample,
        start: UnixNs,
        exemplar: Option<Exemplar>,
    ) -> bool {
        let new = || Data::new(active.instrument.kind, &active.aggregation, start);
        let room = self.series.len() < SERIES_LIMIT;
        let (data, over) = match self.series.get_mut(series) {
            Some(known) => (known, false),
            None if room => (self.series.entry(series.to_key()).or_insert_with(new), false),
            None => (self.overflow.get_or_insert_with(new), true),
        };
        data.take(sample, &active.aggregation, start, exemplar);
        over
    }
}

/// Series of one process.
#[derive(Debug)]
pub struct ProcessSeries {
    /// Who it is.
    pub resource: Arc<Resource>,
    /// By the place of the instrument in the plan.
    pub metrics: Box<[MetricSeries]>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Every measurement has been handed to the export.
    pub exported: bool,
    /// What it used when it was read last.
    usage: Option<Usage>,
}

impl ProcessSeries {
    /// Its metrics that have series, with their instruments. `plan` is that of the registry.
    pub fn metrics<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (&'a Active, &'a MetricSeries)> {
        plan.active.iter().zip(&self.metrics).filter(|(_, metric)| !metric.is_empty())
    }
}

impl ProcessSeries {
    /// Notes that everything up to `time` has been told: metrics that tell differences begin anew.
    pub fn settle(&mut self, plan: &Plan, time: UnixNs) {
        for (active, metric) in plan.active.iter().zip(&mut self.metrics) {
            if plan.is_delta(active.instrument) {
                metric.settle(active, time);
            } else if active.instrument.kind == Kind::Histogram {
                metric.iter_mut().for_each(Data::tell_exemplars);
            }
        }
    }
}

/// Series of all processes, for one plan.
#[derive(Debug)]
pub struct Registry {
    plan: Arc<Plan>,
    ttl: Duration,
    processes: HashMap<ProcessKey, ProcessSeries>,
    /// Ended processes, the first to end first.
    ended: VecDeque<ProcessKey>,
    telemetry: Arc<Telemetry>,
    limit: usize,
}

impl Registry {
    /// An empty registry. Series of an ended process stay for `ttl`.
    pub fn new(plan: Arc<Plan>, ttl: Duration, telemetry: Arc<Telemetry>) -> Self {
        let limit = PROCESS_LIMIT;
        Self { plan, ttl, processes: HashMap::new(), ended: VecDeque::new(), telemetry, limit }
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
        let Self { processes, ended, telemetry, limit, .. } = self;
        let of = process_series((processes, ended, telemetry, *limit), process, resource, &plan, seen.start);
        let exemplar = Exemplar::of(plan.exemplars, span, seen.end);
        for group in groups {
            let series = SeriesRef::of(seen, group.mask);
            for place in &group.members {
                if let (Some(active), Some(metric)) = (plan.active.get(*place), of.metrics.get_mut(*place))
                    && let Some(sample) = sample(active.instrument, seen)
                    && metric.take(active, &series, sample, seen.start, exemplar)
                {
                    telemetry.metric_overflow.add(1);
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
        let Self { processes, ended, telemetry, limit, .. } = self;
        let of = process_series((processes, ended, telemetry, *limit), process, resource, &plan, time);
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

    /// Says that `process` has ended; its series stay for the time to live.
    pub fn end(&mut self, process: ProcessKey, now: Instant) {
        if let Some(of) = self.processes.get_mut(&process)
            && of.ended.is_none()
        {
            of.ended = Some(now);
            self.ended.push_back(process);
            // What a process holds ends with it.
            for (active, metric) in self.plan.active.iter().zip(&mut of.metrics) {
                if active.instrument.kind == Kind::UpDownCounter {
                    metric.iter_mut().for_each(|data| {
                        data.take(Sample::Set(Amount::Int(0)), &active.aggregation, UnixNs(u64::MAX), None)
                    });
                    of.exported = false;
                }
            }
        }
    }

    /// Keys of all processes, in no order.
    pub fn keys(&self) -> Vec<ProcessKey> {
        self.processes.keys().copied().collect()
    }

    /// Series of one process.
    pub fn get(&self, process: ProcessKey) -> Option<&ProcessSeries> {
        self.processes.get(&process)
    }

    /// All processes, in no order.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut ProcessSeries> {
        self.processes.values_mut()
    }

    /// All processes, in no order.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessSeries> {
        self.processes.values()
    }

    /// Takes out the processes whose time is over at `now`.
    pub fn take_expired(&mut self, now: Instant) -> Vec<ProcessSeries> {
        let mut out = Vec::new();
        while let Some(key) = self.ended.front() {
            let of = self.processes.get(key);
            if of.and_then(|p| p.ended).is_some_and(|ended| now.duration_since(ended) < self.ttl) {
                break;
            }
            out.extend(self.processes.remove(key));
            self.ended.pop_front();
        }
        out
    }

    /// Whether there are so many processes that those that ended should be exported before their series must go.
    pub fn is_crowded(&self) -> bool {
        self.processes.len() > self.limit / 2 && !self.ended.is_empty()
    }

    /// Number of processes.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Drops ended processes that are exported, the first to end first, until a quarter of the room is in use.
    pub fn make_room(&mut self) {
        while self.processes.len() > self.limit / 4 {
            let Some(key) = self.ended.front().copied() else { return };
            if self.processes.get(&key).is_some_and(|p| !p.exported) {
                return;
            }
            self.ended.pop_front();
            if self.processes.remove(&key).is_some() {
                self.telemetry.metric_evicted.add(1);
            }
        }
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

/// Parts of a registry: its processes, those that ended, where evictions are counted, how many there may be.
type Room<'a> = (&'a mut HashMap<ProcessKey, ProcessSeries>, &'a mut VecDeque<ProcessKey>, &'a Telemetry, usize);

/// The series of `process`, new if there are none; another makes room if need be.
fn process_series<'a>(
    (processes, ended, telemetry, limit): Room<'a>,
    process: ProcessKey,
    resource: &Arc<Resource>,
    plan: &Plan,
    start: UnixNs,
) -> &'a mut ProcessSeries {
    if processes.len() >= limit && !processes.contains_key(&process) {
        let key = ended.pop_front().or_else(|| processes.keys().next().copied());
        if key.and_then(|key| processes.remove(&key)).is_some() {
            telemetry.metric_evicted.add(1);
        }
    }
    let of = processes.entry(process).or_insert_with(|| {
        let mut metrics: Box<[MetricSeries]> = plan.active.iter().map(|_| MetricSeries::default()).collect();
        for (place, active) in plan.of(|source| source == Source::Presence) {
            if let Some(metric) = metrics.get_mut(place) {
                metric.take(active, &SeriesRef::of_process(None), Sample::Set(Amount::Int(1)), start, None);
            }
        }
        ProcessSeries { resource: resource.clone(), metrics, ended: None, exported: false, usage: None }
    });
    of.exported = false;
    of
}

#[cfg(test)]
mod tests;
