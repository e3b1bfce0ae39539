//! How metrics are aggregated, and who may scrape them.

use std::path::PathBuf;

use super::Secret;
use crate::FileState;

/// How the metrics that go by OTLP are aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregation {
    /// Since when points count (`spantap.metrics.temporality`, `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
    pub temporality: Temporality,
    /// Kind of the histograms (`otel_metrics_export.histogram_aggregation`).
    pub histograms: Histograms,
    /// Which measurements become exemplars (`spantap.metrics.exemplar_filter`, `OTEL_METRICS_EXEMPLAR_FILTER`).
    pub exemplars: ExemplarFilter,
}

/// Since when the points of a metric count (OTLP metrics exporter specification, temporality preference).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporality {
    /// Since the start of the series.
    #[default]
    Cumulative,
    /// Since the last collection: histograms and all counters.
    Delta,
    /// As delta, but for counters that are observed rather than counted: these stay cumulative.
    LowMemory,
}

/// Kind of histograms by OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Histograms {
    /// With the configured bounds.
    #[default]
    Explicit,
    /// Base-2 exponential.
    Exponential {
        /// Finest scale, -10..=20 (`exponential_histogram.max_scale`; 20).
        max_scale: i8,
        /// Buckets at most, 2..=1024 (`exponential_histogram.max_size`; 160).
        max_size: u16,
    },
}

/// Which measurements become exemplars (metrics SDK specification, "ExemplarFilter").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExemplarFilter {
    /// Those of exchanges whose span is kept.
    #[default]
    TraceBased,
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
}

impl ExemplarFilter {
    /// Whether any measurement becomes one.
    pub fn takes_any(self) -> bool {
        self != Self::AlwaysOff
    }
}

/// What the scrape endpoint shows beside the series, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrape {
    /// Which measurements become exemplars (`prometheus_export.exemplar_filter`, else `OTEL_METRICS_EXEMPLAR_FILTER`; Beyla's
    /// default is `always_off`).
    pub exemplars: ExemplarFilter,
    /// Whether `spantap_build_info` is shown (`prometheus_export.disable_build_info` turns it off).
    pub build_info: bool,
    /// User name, without a colon, and password that scrapers must give (`spantap.prometheus.basic_auth`).
    pub basic_auth: Option<(String, Secret)>,
    /// PEM files of the server's certificate chain and key (`spantap.prometheus.tls_certificate`, `tls_key`).
    pub tls: Option<(PathBuf, PathBuf)>,
    /// How those files were when this was read.
    pub tls_files: Vec<Option<FileState>>,
}
