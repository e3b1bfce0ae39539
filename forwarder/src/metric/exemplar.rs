//! Exemplars: single measurements with the span that they belong to, the latest for each bucket of a series.
//!
//! In: measurements that the filter lets through. Out: at most [`MOST`] of them for each series, none of which costs memory
//! before there is one.

use spantap_config::ExemplarFilter;

use crate::{model::UnixNs, trace::SpanIdentity};

/// Exemplars of a series at most, whatever the number of its buckets; beyond it the oldest goes.
pub const MOST: usize = 32;

/// A measurement with its span.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// As it was measured.
    pub value: f64,
    /// End of the exchange.
    pub time: UnixNs,
    /// Trace and span; none with `always_on` where the exchange has no span.
    pub span: Option<([u8; 16], [u8; 8])>,
}

impl Exemplar {
    /// The exemplar of an exchange that ended at `time` with a span or without, if `filter` wants it. Its value is set by who
    /// measures.
    pub fn of(filter: ExemplarFilter, span: Option<&SpanIdentity>, time: UnixNs) -> Option<Self> {
        let wanted = match filter {
            ExemplarFilter::AlwaysOff => false,
            ExemplarFilter::AlwaysOn => true,
            // Only spans that are kept have an identity.
            ExemplarFilter::TraceBased => span.is_some(),
        };
        wanted.then(|| Self { value: 0.0, time, span: span.map(|span| (span.trace_id, span.span_id)) })
    }

    /// The same for another measurement of the exchange.
    pub fn with(self, value: f64) -> Self {
        Self { value, ..self }
    }
}

/// Those of one series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exemplars(Vec<(i32, Exemplar)>);

impl Exemplars {
    /// Keeps `exemplar` as the latest of `bucket`.
    pub fn keep(&mut self, bucket: i32, exemplar: Exemplar) {
        if let Some((_, known)) = self.0.iter_mut().find(|(at, _)| *at == bucket) {
            *known = exemplar;
        } else if self.0.len() < MOST {
            self.0.push((bucket, exemplar));
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|(_, e)| e.time) {
            *oldest = (bucket, exemplar);
        }
    }

    /// That of `bucket`.
    pub fn of_bucket(&self, bucket: i32) -> Option<&Exemplar> {
        self.0.iter().find(|(at, _)| *at == bucket).map(|(_, exemplar)| exemplar)
    }

    /// Those that were measured after `time`, in no order.
    pub fn since(&self, time: UnixNs) -> impl Iterator<Item = &Exemplar> {
        self.0.iter().map(|(_, exemplar)| exemplar).filter(move |exemplar| exemplar.time > time)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(time: u64, value: f64) -> Exemplar {
        Exemplar { value, time: UnixNs(time), span: None }
    }

    #[test]
    fn the_latest_of_each_bucket_stays_and_there_is_a_bound() {
        let mut exemplars = Exemplars::default();
        exemplars.keep(1, at(1, 0.1));
        exemplars.keep(1, at(2, 0.2));
        assert_eq!(exemplars.of_bucket(1), Some(&at(2, 0.2)));
        assert_eq!(exemplars.since(UnixNs(2)).count(), 0);
        for bucket in 0..100 {
            exemplars.keep(bucket, at(10 + bucket as u64, 0.3));
        }
        assert_eq!(exemplars.since(UnixNs(0)).count(), MOST);
        assert!(exemplars.of_bucket(99).is_some() && exemplars.of_bucket(1).is_none());
    }

    #[test]
    fn filters() {
        let span = SpanIdentity {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: None,
            remote_parent: false,
            flags: 1,
            trace_state: String::new(),
        };
        let kept = |filter, span| Exemplar::of(filter, span, UnixNs(1)).map(|e| e.span.is_some());
        assert_eq!(kept(ExemplarFilter::AlwaysOff, Some(&span)), None);
        assert_eq!(kept(ExemplarFilter::TraceBased, None), None);
        assert_eq!(kept(ExemplarFilter::TraceBased, Some(&span)), Some(true));
        assert_eq!(kept(ExemplarFilter::AlwaysOn, None), Some(false));
    }
}
