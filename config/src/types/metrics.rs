//! Which metrics are exported, and with which attributes.

use super::Glob;

/// A group of metrics that Beyla calls a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// Durations and sizes of HTTP requests, by the semantic conventions.
    Application,
    /// Calls and latencies of spans under Beyla's names (`traces_spanmetrics_*`).
    Span,
    /// The same under the names of the Collector's span metrics connector (`traces.span.metrics.*`).
    SpanOtel,
    /// Bytes of requests and responses of spans (`traces_spanmetrics_size_total` …).
    SpanSizes,
    /// Edges between services (`traces_service_graph_*`).
    ServiceGraph,
    /// The host that services run on (`traces_host_info`).
    Host,
    /// CPU, memory and disk of the observed processes (`process.*`).
    Process,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Application, Self::Span, Self::SpanOtel, Self::SpanSizes, Self::ServiceGraph, Self::Host, Self::Process];

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Span => "application_span",
            Self::SpanOtel => "application_span_otel",
            Self::SpanSizes => "application_span_sizes",
            Self::ServiceGraph => "application_service_graph",
            Self::Host => "application_host",
            Self::Process => "application_process",
        }
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u8);

impl Features {
    /// A set of those given.
    pub fn of(features: &[Feature]) -> Self {
        features.iter().copied().fold(Self::default(), Self::with)
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// Whether `feature` is in it.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u8 != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in it.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Attributes of metrics and spans, as far as they can be chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    /// What `attributes.select` says of metrics, the broadest pattern first.
    pub select: Vec<Selection>,
    /// Resource attributes that every metric carries (`attributes.extra_group_attributes`).
    pub extra: Vec<String>,
    /// Spans, and lines of the console, carry no query (`attributes.select.traces.exclude`).
    pub drop_query: bool,
}

/// Attributes of the metrics whose name matches. All patterns and names are compared with dots written as underscores.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Names of metrics, without suffix of unit or type.
    pub metric: Glob,
    /// If not empty: only these.
    pub include: Vec<Glob>,
    /// Not these.
    pub exclude: Vec<Glob>,
}
