//! Series of one process.
//!
//! In: measurements with the key of their series. Out: series by metric; at most [`SERIES_LIMIT`] of each, the rest in one
//! overflow series.

use std::sync::Arc;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::SERIES_LIMIT;
use crate::{
    metric::{
        exemplar::Exemplar,
        instrument::Kind,
        plan::{Active, Plan},
        point::{Amount, Data, Sample},
        series::{BuildHashed, SeriesKey, SeriesRef},
    },
    model::{UnixNs, Usage},
    resource::Resource,
};

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

    /// Sets every sum to 0.
    pub(super) fn clear_numbers(&mut self, active: &Active) {
        for data in self.iter_mut() {
            data.take(Sample::Set(Amount::Int(0)), &active.aggregation, UnixNs(u64::MAX), None);
        }
    }

    /// Takes a measurement; returns whether it went to the overflow.
    pub(super) fn take(
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
    pub(super) usage: Option<Usage>,
}

impl ProcessSeries {
    pub(super) fn new(resource: Arc<Resource>, metrics: Box<[MetricSeries]>) -> Self {
        Self { resource, metrics, ended: None, exported: false, usage: None }
    }

    /// Its metrics that have series, with their instruments. `plan` is that of the registry.
    pub fn metrics<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (&'a Active, &'a MetricSeries)> {
        plan.active.iter().zip(&self.metrics).filter(|(_, metric)| !metric.is_empty())
    }

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
