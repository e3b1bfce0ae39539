//! Series of all processes, bounded.
//!
//! In: measurements under a process's key, ends of processes. Out: series to export or to show. At most
//! [`SERIES_LIMIT`] series for each process and metric, the rest in one overflow series, so that nothing is lost; at most
//! [`PROCESS_LIMIT`] processes, of which ended ones that were exported go first.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{
    histogram::Histogram,
    series::{SeriesKey, SeriesRef},
};
use crate::{exchange::Side, model::UnixNs, resource::Resource, telemetry::Telemetry};

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
    pub series: HashMap<SeriesKey, Histogram>,
    /// What found no room.
    pub overflow: Option<Histogram>,
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
}

/// Series of one process.
#[derive(Debug)]
pub struct ProcessSeries {
    /// Who it is.
    pub resource: Arc<Resource>,
    /// `http.server.request.duration`.
    pub server: MetricSeries,
    /// `http.client.request.duration`.
    pub client: MetricSeries,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Every measurement has been handed to the export.
    pub exported: bool,
}

/// Series of all processes, for one set of bounds.
#[derive(Debug)]
pub struct Registry {
    bounds: Arc<[f64]>,
    ttl: Duration,
    processes: HashMap<ProcessKey, ProcessSeries>,
    /// Ended processes, the first to end first.
    ended: VecDeque<ProcessKey>,
    telemetry: Arc<Telemetry>,
    limit: usize,
}

impl Registry {
    /// An empty registry. `bounds` are strictly increasing; series of an ended process stay for `ttl`.
    pub fn new(bounds: &[f64], ttl: Duration, telemetry: Arc<Telemetry>) -> Self {
        let limit = PROCESS_LIMIT;
        Self { bounds: bounds.into(), ttl, processes: HashMap::new(), ended: VecDeque::new(), telemetry, limit }
    }

    /// Bounds of the histograms, seconds.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// How long series of an ended process stay.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether this registry serves `bounds` and `ttl`.
    pub fn serves(&self, bounds: &[f64], ttl: Duration) -> bool {
        *self.bounds == *bounds && self.ttl == ttl
    }

    /// Measures an exchange of `seconds` that began at `start`.
    pub fn record(
        &mut self,
        process: ProcessKey,
        resource: &Arc<Resource>,
        series: SeriesRef<'_>,
        start: UnixNs,
        seconds: f64,
    ) {
        if self.processes.len() >= self.limit && !self.processes.contains_key(&process) {
            self.evict_one();
        }
        let of = self.processes.entry(process).or_insert_with(|| ProcessSeries {
            resource: resource.clone(),
            server: MetricSeries::default(),
            client: MetricSeries::default(),
            ended: None,
            exported: false,
        });
        of.exported = false;
        let metric = if series.labels.side == Side::Server { &mut of.server } else { &mut of.client };
        let new = || Histogram::new(self.bounds.len(), start);
        let room = metric.series.len() < SERIES_LIMIT;
        let histogram = match metric.series.get_mut(&series) {
            Some(known) => known,
            None if room => metric.series.entry(series.to_key()).or_insert_with(new),
            None => {
                self.telemetry.metric_overflow.add(1);
                metric.overflow.get_or_insert_with(new)
            }
        };
        histogram.start = histogram.start.min(start);
        histogram.record(&self.bounds, seconds);
    }

    /// Says that `process` has ended; its series stay for the time to live.
    pub fn end(&mut self, process: ProcessKey, now: Instant) {
        if let Some(of) = self.processes.get_mut(&process)
            && of.ended.is_none()
        {
            of.ended = Some(now);
            self.ended.push_back(process);
        }
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

    fn evict_one(&mut self) {
        let key = self.ended.pop_front().or_else(|| self.processes.keys().next().copied());
        if key.and_then(|key| self.processes.remove(&key)).is_some() {
            self.telemetry.metric_evicted.add(1);
        }
    }
}

#[cfg(test)]
mod tests;
