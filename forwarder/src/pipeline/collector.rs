//! When and what metrics are collected: soon after the first measurement, then at each interval, and at stop.
//!
//! In: the registry, the counters of the program, the time. Out: requests of one collection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::lock;
use crate::{
    metric::registry::Registry,
    model::UnixNs,
    observation::Rules,
    otlp::metric::MetricsEncoder,
    resource::ResourceBuilder,
    telemetry::{Telemetry, snapshot},
};

/// The first collection follows the first measurement after this.
const FIRST_DELAY: Duration = Duration::from_secs(1);
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
    registry: Arc<Mutex<Registry>>,
    telemetry: Arc<Telemetry>,
    rules: Arc<Rules>,
}

impl Collector {
    pub(super) fn new(
        interval: Duration,
        registry: Arc<Mutex<Registry>>,
        telemetry: Arc<Telemetry>,
        rules: Arc<Rules>,
        start: UnixNs,
    ) -> Self {
        let now = Instant::now();
        let interval = interval.max(Duration::from_millis(10));
        Self {
            interval,
            due: now + interval,
            measured: false,
            last: now,
            start,
            last_time: start,
            registry,
            telemetry,
            rules,
        }
    }

    /// Another interval from now on.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval.max(Duration::from_millis(10));
        self.due = self.due.min(Instant::now() + self.interval);
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
        (self.last, self.last_time) = (now, time);
        // Interval between starts; a collection that was early or late does not make the next one early.
        let next = self.due + self.interval;
        self.due = if next <= now { now + self.interval } else { next.min(now + self.interval) };
        let mut registry = lock(&self.registry);
        let plan = registry.plan().clone();
        let mut encoder = MetricsEncoder::new(&self.rules, &plan, time);
        for gone in registry.take_expired(now) {
            encoder.process(&gone, gone.exported);
        }
        for process in registry.processes_mut() {
            encoder.process(process, false);
            process.exported = true;
        }
        if registry.is_crowded() {
            registry.make_room();
        }
        encoder.own(&resources.own(), &snapshot::measures(&self.telemetry), self.start);
        let requests = encoder.finish();
        self.telemetry.metrics.accepted.add(requests.iter().map(|(_, points)| points).sum());
        requests
    }
}
