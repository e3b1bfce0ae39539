//! Which instruments one exporter has, with which attributes and bounds.
//!
//! In: the configuration. Out: a [`Plan`]; instruments that are off are not in it and cost nothing.

use std::sync::Arc;

use spantap_config::{Attributes, ExemplarFilter, Features, Glob, Histograms, Temporality};

use super::{
    attribute::{Attribute, Mask},
    histogram::Aggregation,
    instrument::{INSTRUMENTS, Instrument, Kind, Source, Style},
    series::SeriesKey,
};
use crate::{exchange::Side, observation::Rules, resource::Resource, semconv::key, value::Value};

/// An instrument that is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// The instrument.
    pub instrument: &'static Instrument,
    /// How its histograms are made; without bounds for the others.
    pub aggregation: Aggregation,
    /// What tells its series apart.
    pub(super) mask: Mask,
    /// Attributes of the resource that its points repeat: by name,
    named: Vec<String>,
    /// and by pattern, both with underscores.
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

/// Instruments that share a key, and with it the work of making it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) mask: Mask,
    /// Places in [`Plan::active`].
    pub(super) members: Vec<usize>,
}

/// All instruments that are on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In the order in which they are written.
    pub active: Vec<Active>,
    /// Which measurements become exemplars.
    pub exemplars: ExemplarFilter,
    /// Since when points count.
    pub temporality: Temporality,
    pub(super) server: Vec<Group>,
    pub(super) client: Vec<Group>,
}

/// Bounds of histograms by what they measure.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Seconds.
    pub duration: &'a [f64],
    /// Bytes.
    pub request_size: &'a [f64],
    /// Bytes.
    pub response_size: &'a [f64],
}

impl Plan {
    /// The instruments of `features`.
    pub fn new(features: Features, attributes: &Attributes, bounds: Bounds<'_>) -> Self {
        let mut plan = Self::default();
        let shared = |bounds: &[f64]| -> Arc<[f64]> { bounds.into() };
        let none: Arc<[f64]> = Arc::new([]);
        let (duration, request, response) =
            (shared(bounds.duration), shared(bounds.request_size), shared(bounds.response_size));
        for instrument in INSTRUMENTS.iter().filter(|instrument| features.has(instrument.feature)) {
            let bounds = match (instrument.kind, instrument.source) {
                (Kind::Histogram, Source::RequestSize) => &request,
                (Kind::Histogram, Source::ResponseSize) => &response,
                (Kind::Histogram, _) => &duration,
                _ => &none,
            };
            plan.add(Active::new(instrument, attributes, bounds.clone()));
        }
        plan
    }

    /// The same, aggregated in this way.
    pub fn aggregated(mut self, how: spantap_config::Aggregation) -> Self {
        (self.exemplars, self.temporality) = (how.exemplars, how.temporality);
        if let Histograms::Exponential { max_scale, max_size } = how.histograms {
            for active in self.active.iter_mut().filter(|active| active.instrument.kind == Kind::Histogram) {
                active.aggregation = Aggregation::Exponential { max_scale, max_size };
            }
        }
        self
    }

    /// Whether points of `instrument` count since the last collection (OTLP metrics exporter specification, temporality
    /// preference). What is read of processes are counters that are observed.
    pub fn is_delta(&self, instrument: &Instrument) -> bool {
        let counts = matches!(instrument.kind, Kind::Histogram | Kind::Counter);
        match self.temporality {
            Temporality::Cumulative => false,
            Temporality::Delta => counts,
            Temporality::LowMemory => counts && !instrument.source.is_usage(),
        }
    }

    fn add(&mut self, active: Active) {
        let place = self.active.len();
        let of_exchanges = active.instrument.source.is_of_exchanges();
        for (side, groups) in [(Side::Server, &mut self.server), (Side::Client, &mut self.client)] {
            if of_exchanges && active.instrument.side.is_none_or(|of| of == side) {
                match groups.iter_mut().find(|group| group.mask == active.mask) {
                    Some(group) => group.members.push(place),
                    None => groups.push(Group { mask: active.mask, members: vec![place] }),
                }
            }
        }
        self.active.push(active);
    }

    /// Instruments that are on and read `wanted`, with their places.
    pub(super) fn of(&self, wanted: impl Fn(Source) -> bool) -> impl Iterator<Item = (usize, &Active)> {
        self.active.iter().enumerate().filter(move |(_, active)| wanted(active.instrument.source))
    }

    /// What tells numbers of open requests apart, if they are on.
    pub(crate) fn open_requests(&self) -> Option<Mask> {
        self.of(|source| source == Source::OpenRequests).next().map(|(_, active)| active.mask)
    }

    /// Whether anything is read of processes.
    pub fn wants_usage(&self) -> bool {
        self.of(Source::is_usage).next().is_some()
    }
}

impl Active {
    fn new(instrument: &'static Instrument, attributes: &Attributes, bounds: Arc<[f64]>) -> Self {
        let mut active = Self {
            instrument,
            aggregation: Aggregation::Explicit(bounds),
            mask: instrument.shown,
            named: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
        };
        match instrument.style {
            Style::Chosen => active.choose(attributes),
            Style::Span => {
                active.named =
                    [key::SERVICE_NAME, key::SERVICE_NAMESPACE, key::TELEMETRY_SDK_LANGUAGE].map(underscores).into()
            }
            Style::Graph | Style::Resource | Style::Host => {}
        }
        active
    }

    /// Beyla's rule: what the patterns that match include, the broadest first, each without what it excludes; the default where
    /// the first of them includes nothing.
    fn choose(&mut self, attributes: &Attributes) {
        let name = underscores(self.instrument.name);
        self.named = attributes.extra.iter().map(|name| underscores(name)).collect();
        let matching = attributes.select.iter().filter(|selection| selection.metric.matches(&name));
        for (at, selection) in matching.enumerate() {
            let matches = |globs: &[Glob], attribute: Attribute| {
                globs.iter().any(|glob| glob.matches(&underscores(attribute.key())))
            };
            let mut included = Mask::of(&[]);
            for attribute in Attribute::KEYED {
                if self.instrument.allowed.has(attribute) && matches(&selection.include, attribute) {
                    included = included.with(&[attribute]);
                }
            }
            // What only names attributes of the resource chooses none of the metric's own.
            if at > 0 {
                self.mask = union(self.mask, included);
            } else if !selection.include.is_empty() {
                self.mask = included;
                self.named.clear();
            }
            for attribute in Attribute::KEYED {
                if matches(&selection.exclude, attribute) {
                    self.mask = self.mask.without(attribute);
                }
            }
            self.named.retain(|name| !selection.exclude.iter().any(|glob| glob.matches(name)));
            // A bare `*` is every attribute of the metric; the whole resource on each point is never meant.
            self.include.extend(selection.include.iter().filter(|glob| glob.pattern != "*").cloned());
            if selection.include.iter().any(|glob| glob.pattern == "*") {
                self.named = attributes.extra.iter().map(|name| underscores(name)).collect();
            }
            self.exclude.extend(selection.exclude.iter().cloned());
        }
    }

    /// Attributes of a point of the series `key`; `None` stands for the overflow series.
    pub fn attributes<'a>(
        &'a self,
        series: Option<&'a SeriesKey>,
        rules: &'a Rules,
        resource: &'a Resource,
    ) -> Vec<(&'a str, Value<'a>)> {
        let Some(series) = series else { return vec![(key::OTEL_METRIC_OVERFLOW, Value::Bool(true))] };
        let mut out = Vec::with_capacity(12);
        match self.instrument.style {
            Style::Chosen => series.chosen(self.instrument.side, rules, &mut out),
            Style::Span => series.span(rules, &mut out),
            Style::Graph => series.edge(resource, &mut out),
            Style::Resource => {}
            Style::Host => out.push((key::GRAFANA_HOST_ID, Value::Str(resource.text(key::HOST_ID).into()))),
        }
        if !self.named.is_empty() || !self.include.is_empty() {
            let wanted = |name: &str| {
                let name = underscores(name);
                let excluded = self.exclude.iter().any(|glob| glob.matches(&name));
                self.named.contains(&name) || (!excluded && self.include.iter().any(|glob| glob.matches(&name)))
            };
            let own = out.len();
            for (name, value) in &resource.attributes {
                if wanted(name) && !out.iter().take(own).any(|(known, _)| known == name) {
                    out.push((name, value.clone()));
                }
            }
        }
        out
    }
}

fn union(one: Mask, other: Mask) -> Mask {
    Attribute::KEYED.into_iter().filter(|attribute| other.has(*attribute)).fold(one, |mask, a| mask.with(&[a]))
}

fn underscores(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests;
