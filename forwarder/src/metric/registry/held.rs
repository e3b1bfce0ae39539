//! Which processes have series, within bounds.
//!
//! In: processes as they are measured and as they end. Out: room for each; those that ended go first, then any.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{MetricSeries, PROCESS_LIMIT, ProcessKey, ProcessSeries, RESOURCE_BYTES};
use crate::{
    metric::{
        instrument::{Kind, Source},
        plan::Plan,
        point::{Amount, Sample},
        series::SeriesRef,
    },
    model::UnixNs,
    resource::Resource,
    telemetry::Telemetry,
};

/// Processes and their series.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) processes: HashMap<ProcessKey, ProcessSeries>,
    /// Ended processes, the first to end first.
    ended: VecDeque<ProcessKey>,
    /// Of their resources.
    bytes: usize,
    /// Most processes, most bytes.
    pub(super) limits: (usize, usize),
    /// Where evictions are counted.
    telemetry: Arc<Telemetry>,
}

impl Held {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        let limits = (PROCESS_LIMIT, RESOURCE_BYTES);
        Self { processes: HashMap::new(), ended: VecDeque::new(), bytes: 0, limits, telemetry }
    }

    /// The series of `process`, new if there are none; others make room if need be.
    pub(super) fn series(
        &mut self,
        process: ProcessKey,
        resource: &Arc<Resource>,
        plan: &Plan,
        start: UnixNs,
    ) -> &mut ProcessSeries {
        if !self.processes.contains_key(&process) {
            while self.is_above(self.limits.0, self.limits.1) {
                let Some(key) = self.ended.pop_front().or_else(|| self.processes.keys().next().copied()) else { break };
                self.evict(key);
            }
            self.bytes += resource.bytes();
        }
        let of = self.processes.entry(process).or_insert_with(|| {
            let mut metrics: Box<[MetricSeries]> = plan.active.iter().map(|_| MetricSeries::default()).collect();
            for (place, active) in plan.of(|source| source == Source::Presence) {
                if let Some(metric) = metrics.get_mut(place) {
                    metric.take(active, &SeriesRef::of_process(None), Sample::Set(Amount::Int(1)), start, None);
                }
            }
            ProcessSeries::new(resource.clone(), metrics)
        });
        of.exported = false;
        of
    }

    /// It has ended. What it held ends with it.
    pub(super) fn end(&mut self, process: ProcessKey, now: Instant, plan: &Plan) {
        if let Some(of) = self.processes.get_mut(&process)
            && of.ended.is_none()
        {
            of.ended = Some(now);
            self.ended.push_back(process);
            for (active, metric) in plan.active.iter().zip(&mut of.metrics) {
                if active.instrument.kind == Kind::UpDownCounter {
                    metric.clear_numbers(active);
                    of.exported = false;
                }
            }
        }
    }

    /// Takes out the processes that had ended `ttl` before `now`.
    pub(super) fn take_expired(&mut self, now: Instant, ttl: Duration) -> Vec<ProcessSeries> {
        let mut out = Vec::new();
        while let Some(key) = self.ended.front().copied() {
            let of = self.processes.get(&key);
            if of.and_then(|p| p.ended).is_some_and(|ended| now.duration_since(ended) < ttl) {
                break;
            }
            out.extend(self.remove(key));
            self.ended.pop_front();
        }
        out
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.is_above(self.limits.0 / 2 + 1, self.limits.1 / 2 + 1) && !self.ended.is_empty()
    }

    pub(super) fn make_room(&mut self) {
        while self.is_above(self.limits.0 / 4 + 1, self.limits.1 / 4 + 1) {
            let Some(key) = self.ended.front().copied() else { return };
            if self.processes.get(&key).is_some_and(|p| !p.exported) {
                return;
            }
            self.ended.pop_front();
            self.evict(key);
        }
    }

    /// Whether there are so many processes or bytes.
    fn is_above(&self, processes: usize, bytes: usize) -> bool {
        self.processes.len() >= processes || self.bytes >= bytes
    }

    fn remove(&mut self, key: ProcessKey) -> Option<ProcessSeries> {
        let of = self.processes.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(of.resource.bytes());
        Some(of)
    }

    fn evict(&mut self, key: ProcessKey) {
        if self.remove(key).is_some() {
            self.telemetry.metric_evicted.add(1);
        }
    }
}
