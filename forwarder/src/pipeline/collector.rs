//! When and what metrics are collected: soon after the first measurement, then at each interval, and at stop.
//!
//! In: the registry, the counters of the program, the time. Out: requests of one collection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use spantap_config::{OtlpMetrics, Temporality};
use tokio::time::Instant;

use super::lock;
use crate::{
    metric::registry::{ProcessSeries, Registry},
    model::UnixNs,
    observation::Rules,
    otlp::metric::{MetricsEncoder, Window},
    resource::ResourceBuilder,
    telemetry::{
        Telemetry,
        snapshot::{self, Measure},
    },
};

/// The first collection follows the first measurement after this.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// However often is asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Time between collections that only make room.
const PRESSED_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Collector {
    interval: Duration,
    due: Instant,
    measured: bool,
    last: Instant,
    start: UnixNs,
    last_time: UnixNs,
    /// Whether exemplars are sent.
    exemplars: bool,
    /// Ended processes whose last values have gone out: next it is said that they have ended.
    farewell: Vec<ProcessSeries>,
    /// Counters of the program at the last collection, where they are told by differences.
    told: Option<Vec<Measure>>,
    registry: Arc<Mutex<Registry>>,
    telemetry: Arc<Telemetry>,
    rules: Arc<Rules>,
}

impl Collector {
    pub(super) fn new(
        of: &OtlpMetrics,
        registry: Arc<Mutex<Registry>>,
        telemetry: Arc<Telemetry>,
        rules: Arc<Rules>,
        start: UnixNs,
    ) -> Self {
        let now = Instant::now();
        let interval = of.interval.max(MIN_INTERVAL);
        Self {
            interval,
            due: now + interval,
            measured: false,
            last: now,
            start,
            last_time: start,
            exemplars: of.aggregation.exemplars.takes_any(),
            farewell: Vec::new(),
            told: None,
            registry,
            telemetry,
            rules,
        }
    }

    /// Goes on as `of` says, with the same series.
    pub(super) fn reconfigure(&mut self, of: &OtlpMetrics) {
        self.interval = of.interval.max(MIN_INTERVAL);
        self.due = self.due.min(Instant::now() + self.interval);
        self.exemplars = of.aggregation.exemplars.takes_any();
    }

    pub(super) fn registry(&self) -> &Arc<Mutex<Registry>> {
        &self.registry
    }

    /// Notes that something was measured.
    pub(super) fn measured(&mut self) {
        if !self.measured {
            self.measured = true;
            self.due = self.due.min(Instant::now() + FIRST_DELAY);
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether ended processes crowd the registry and should be exported before the interval is over.
    pub(super) fn is_pressed(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= PRESSED_INTERVAL && lock(&self.registry).is_crowded()
    }

    /// Collects everything at `time`.
    pub(super) fn collect(&mut self, now: Instant, time: UnixNs, resources: &ResourceBuilder) -> Vec<(Bytes, u64)> {
        // The wall clock may be stepped back; points of a series must not.
        let time = UnixNs(time.0.max(self.last_time.0 + 1));
        let window = Window { since: self.last_time, time, exemplars: self.exemplars };
        (self.last, self.last_time) = (now, time);
        // Interval between starts; a collection that was early or late does not make the next one early.
        let next = self.due + self.interval;
        self.due = if next <= now { now + self.interval } else { next.min(now + self.interval) };
        let mut registry = lock(&self.registry);
        let plan = registry.plan().clone();
        let mut encoder = MetricsEncoder::new(&self.rules, &plan, window);
        for gone in std::mem::take(&mut self.farewell) {
            encoder.process(&gone, true);
        }
        for gone in registry.take_expired(now) {
            encoder.process(&gone, gone.exported);
            if !gone.exported {
                self.farewell.push(gone);
            }
        }
        for process in registry.processes_mut() {
            encoder.process(process, false);
            process.exported = true;
            process.settle(&plan, time);
        }
        if registry.is_crowded() {
            registry.make_room();
        }
        let delta = plan.temporality == Temporality::Delta;
        let mut own = snapshot::measures(&self.telemetry);
        let mut start = self.start;
        if delta {
            let told = self.told.replace(own.clone());
            snapshot::subtract(&mut own, &told.unwrap_or_default());
            start = window.since;
        }
        encoder.own(&resources.own(), &own, start, delta);
        let requests = encoder.finish();
        self.telemetry.metrics.accepted.add(requests.iter().map(|(_, points)| points).sum());
        requests
    }
}
