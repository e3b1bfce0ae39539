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
pub struct Exemplars(Vec<Kept>);

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    bucket: i32,
    exemplar: Exemplar,
    /// A collection has told it.
    told: bool,
}

impl Exemplars {
    /// Keeps `exemplar` as the latest of `bucket`.
    pub fn keep(&mut self, bucket: i32, exemplar: Exemplar) {
        let new = Kept { bucket, exemplar, told: false };
        if let Some(known) = self.0.iter_mut().find(|known| known.bucket == bucket) {
            *known = new;
        } else if self.0.len() < MOST {
            self.0.push(new);
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|known| known.exemplar.time) {
            *oldest = new;
        }
    }

    /// That of `bucket`.
    pub fn of_bucket(&self, bucket: i32) -> Option<&Exemplar> {
        self.0.iter().find(|known| known.bucket == bucket).map(|known| &known.exemplar)
    }

    /// Those that no collection has told yet, in no order.
    pub fn fresh(&self) -> impl Iterator<Item = &Exemplar> {
        self.0.iter().filter(|known| !known.told).map(|known| &known.exemplar)
    }

    /// Notes that all have been told.
    pub fn tell(&mut self) {
        self.0.iter_mut().for_each(|known| known.told = true);
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
        assert_eq!(exemplars.fresh().count(), 1);
        exemplars.tell();
        assert_eq!(
            (exemplars.fresh().count(), exemplars.of_bucket(1)),
            (0, Some(&at(2, 0.2))),
            "shown, not told again"
        );
        for bucket in 0..100 {
            exemplars.keep(bucket, at(10 + bucket as u64, 0.3));
        }
        assert_eq!(exemplars.fresh().count(), MOST);
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
            link: None,
        };
        let kept = |filter, span| Exemplar::of(filter, span, UnixNs(1)).map(|e| e.span.is_some());
        assert_eq!(kept(ExemplarFilter::AlwaysOff, Some(&span)), None);
        assert_eq!(kept(ExemplarFilter::TraceBased, None), None);
        assert_eq!(kept(ExemplarFilter::TraceBased, Some(&span)), Some(true));
        assert_eq!(kept(ExemplarFilter::AlwaysOn, None), Some(false));
    }
}
