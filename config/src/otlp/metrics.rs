//! In: `otel_metrics_export` without its destination. Out: interval, buckets, how long a series outlives its process.

use std::time::Duration;

use super::features;
use crate::{
    aggregation::aggregation,
    error::ConfigError,
    otel,
    settings::Settings,
    types::{Aggregation, Features, Otlp, OtlpMetrics},
};

/// Default of the specification's periodic reader.
const INTERVAL: Duration = Duration::from_secs(60);
/// Shorter than this an export would be all that happens.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
const TTL: Duration = Duration::from_secs(300);
/// Advised bounds for `http.server.request.duration` and its sisters (semantic conventions, HTTP metrics).
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Beyla's bounds for sizes of bodies, bytes; the conventions advise none.
const SIZE_BUCKETS: [f64; 10] = [0.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
/// Most bounds of a histogram: each is eight bytes in each series.
const MOST_BUCKETS: usize = 200;

/// Everything but the destination.
#[derive(Debug, Clone)]
pub(super) struct MetricsSettings {
    interval: Duration,
    buckets: Buckets,
    ttl: Duration,
    aggregation: Aggregation,
    /// Which metrics are asked for.
    pub(super) features: Features,
}

impl MetricsSettings {
    pub(super) fn with(&self, otlp: Otlp) -> OtlpMetrics {
        let Self { interval, buckets, ttl, aggregation, features } = self.clone();
        OtlpMetrics {
            otlp,
            interval,
            features,
            duration_buckets: buckets.duration,
            request_size_buckets: buckets.request_size,
            response_size_buckets: buckets.response_size,
            ttl,
            aggregation,
        }
    }
}

/// Bounds of the histograms of one exporter.
#[derive(Debug, Clone)]
pub(crate) struct Buckets {
    /// Seconds.
    pub(crate) duration: Vec<f64>,
    /// Bytes.
    pub(crate) request_size: Vec<f64>,
    /// Bytes.
    pub(crate) response_size: Vec<f64>,
}

impl Buckets {
    /// Reads the keys for durations, sizes of requests and sizes of responses.
    pub(crate) fn read(settings: &Settings<'_>, keys: [&'static str; 3]) -> Result<Self, ConfigError> {
        let [duration, request_size, response_size] = keys;
        Ok(Self {
            duration: bounds(settings, duration, "seconds", &DURATION_BUCKETS)?,
            request_size: bounds(settings, request_size, "bytes", &SIZE_BUCKETS)?,
            response_size: bounds(settings, response_size, "bytes", &SIZE_BUCKETS)?,
        })
    }
}

/// Reads the section.
pub(super) fn metrics(settings: &mut Settings<'_>) -> Result<MetricsSettings, ConfigError> {
    let given = settings
        .variable("metrics.features")
        .or_else(|| settings.file("otel_metrics_export.features"))
        .or_else(|| settings.file("metrics.features"));
    let buckets = Buckets::read(
        settings,
        [
            "otel_metrics_export.buckets.duration_histogram",
            "otel_metrics_export.buckets.request_size_histogram",
            "otel_metrics_export.buckets.response_size_histogram",
        ],
    )?;
    Ok(MetricsSettings {
        interval: interval(settings)?,
        buckets,
        ttl: ttl(settings, "otel_metrics_export.ttl")?,
        aggregation: aggregation(settings)?,
        features: features(settings, given)?,
    })
}

/// `interval` of Beyla's, where zero is unset; then `OTEL_METRIC_EXPORT_INTERVAL`, in this order as in Beyla.
fn interval(settings: &mut Settings<'_>) -> Result<Duration, ConfigError> {
    if let Some(given) = settings.get("otel_metrics_export.interval") {
        let interval = given.duration()?;
        if interval >= LEAST_INTERVAL {
            return Ok(interval);
        }
        if !interval.is_zero() {
            return Err(given.invalid("at least 10ms"));
        }
    }
    let Some(given) = settings.named("OTEL_METRIC_EXPORT_INTERVAL", "otel_metrics_export.interval") else {
        return Ok(INTERVAL);
    };
    let interval = otel::milliseconds(settings, &given)?.filter(|interval| *interval >= LEAST_INTERVAL);
    Ok(interval.unwrap_or(INTERVAL))
}

/// Bounds of histograms.
fn bounds(settings: &Settings<'_>, key: &'static str, unit: &str, default: &[f64]) -> Result<Vec<f64>, ConfigError> {
    let expected = format!("numbers of {unit}, each larger than the one before, none negative");
    let Some(given) = settings.get(key) else { return Ok(default.to_vec()) };
    let Some(items) = given.nodes() else { return Err(given.invalid(&expected)) };
    if items.is_empty() || items.len() > MOST_BUCKETS {
        return Err(given.invalid(&format!("1 to {MOST_BUCKETS} {expected}")));
    }
    let mut bounds: Vec<f64> = Vec::with_capacity(items.len());
    for item in &items {
        let bound = item.text()?.trim().parse::<f64>().ok().filter(|bound| bound.is_finite() && *bound >= 0.0);
        let bound = bound.filter(|bound| bounds.last().is_none_or(|last| last < bound));
        bounds.push(bound.ok_or_else(|| item.invalid(&expected))?);
    }
    Ok(bounds)
}

/// How long a series outlives its process. Zero would keep every series for ever, which no memory bears.
pub(crate) fn ttl(settings: &Settings<'_>, key: &'static str) -> Result<Duration, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(TTL) };
    match given.duration()? {
        Duration::ZERO => Err(given.invalid("longer than 0: series that never end would fill the memory")),
        ttl => Ok(ttl),
    }
}
