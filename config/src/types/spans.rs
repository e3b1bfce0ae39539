//! How spans are named, which of them are kept, and what of the head is in them.

use std::time::Duration;

/// Beyla's `routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// Path patterns such as `/user/{id}` or `/user/:id` or `/static/*`; the first that matches is `http.route`.
    pub patterns: Vec<String>,
    /// Patterns of what is not reported.
    pub ignored: Vec<String>,
    /// What of it is not reported.
    pub ignore_mode: IgnoreMode,
    /// The route where no pattern matches.
    pub unmatched: Unmatched,
    /// What stands for a segment that varies.
    pub wildcard: char,
    /// Different segments in one position, beyond which they are one (`low-cardinality`).
    pub max_segments: usize,
}

impl Default for Routes {
    /// No pattern and no route. A file without the section asks for [`Unmatched::Heuristic`], as Beyla's does.
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            ignored: Vec::new(),
            ignore_mode: IgnoreMode::All,
            unmatched: Unmatched::Unset,
            wildcard: '*',
            max_segments: 10,
        }
    }
}

/// What is left out of what an ignored pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreMode {
    /// Spans and metrics.
    All,
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

/// The route of a path that no pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// None.
    Unset,
    /// The path itself.
    Path,
    /// `/**`
    Wildcard,
    /// The path, with a wildcard for each segment that looks like an id.
    Heuristic,
    /// The same, and a wildcard for positions with more than so many different segments.
    LowCardinality,
}

/// `routes` of a discovery entry. An empty list leaves the general ones in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoutes {
    /// Patterns of requests that it serves: `http.route`.
    pub incoming: Vec<String>,
    /// Patterns of requests that it makes: `url.template`.
    pub outgoing: Vec<String>,
}

/// Head sampler of traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Every span.
    AlwaysOn,
    /// No span.
    AlwaysOff,
    /// This share of traces, 0..=1, decided from the trace id.
    TraceIdRatio(f64),
    /// The parent's decision where there is one, else every span.
    ParentBasedAlwaysOn,
    /// The parent's decision where there is one, else none.
    ParentBasedAlwaysOff,
    /// The parent's decision where there is one, else this share.
    ParentBasedTraceIdRatio(f64),
}

/// Spans that are kept whatever the sampler says (`spantap.sampler`). The default keeps none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepSpans {
    /// Those that failed: status `Error` in the span.
    pub errors: bool,
    /// Those that took this long or longer.
    pub slower_than: Option<Duration>,
    /// So many of the slowest of each service and second, 0..=1000.
    pub slowest: u32,
}

/// Header fields that become attributes of spans, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// Of requests.
    pub request: Vec<String>,
    /// Of responses.
    pub response: Vec<String>,
}
