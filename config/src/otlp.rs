//! In: `otel_traces_export`, `otel_metrics_export`, `grafana.otlp`, the `OTEL_EXPORTER_OTLP_*` variables. Out: a destination for
//! each signal that has one, and the fallback for a user who said nothing at all.

mod destination;
mod endpoint;
mod features;
mod grafana;
mod headers;
mod metrics;
mod options;
mod protocol;
mod selection;
mod source;
mod traces;
mod transport;

pub(crate) use features::{features, usage_interval};
pub(crate) use headers::resource_attributes;
pub(crate) use metrics::{Buckets, ttl};
pub(crate) use selection::{Exporters, exporters, sends_http};

pub use source::HeaderSource;

use crate::{
    error::ConfigError,
    settings::Settings,
    types::{Fallback, Otlp, OtlpMetrics, OtlpTraces, Signal},
};

/// What the names of the signals are in the configuration.
impl Signal {
    /// Path below the base endpoint (OTLP specification, "OTLP/HTTP Request").
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// Path of the gRPC method that takes it.
    fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// What stands for the signal in the names of variables.
    fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    fn endpoint_key(self) -> &'static str {
        match self {
            Self::Traces => "otel_traces_export.endpoint",
            Self::Metrics => "otel_metrics_export.endpoint",
        }
    }

    fn protocol_key(self) -> &'static str {
        match self {
            Self::Traces => "otel_traces_export.protocol",
            Self::Metrics => "otel_metrics_export.protocol",
        }
    }

    fn skip_verify_key(self) -> &'static str {
        match self {
            Self::Traces => "otel_traces_export.insecure_skip_verify",
            Self::Metrics => "otel_metrics_export.insecure_skip_verify",
        }
    }

    fn instrumentations_key(self) -> &'static str {
        match self {
            Self::Traces => "otel_traces_export.instrumentations",
            Self::Metrics => "otel_metrics_export.instrumentations",
        }
    }
}

/// What goes where by OTLP.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    pub(crate) traces: Option<OtlpTraces>,
    pub(crate) metrics: Option<OtlpMetrics>,
    /// What to use if neither a destination nor anything else was configured.
    pub(crate) fallback: Option<Fallback>,
    /// Whether an OTLP destination was named at all, even one that is turned off again.
    pub(crate) named: bool,
}

/// Reads both signals.
pub(crate) fn destinations(settings: &mut Settings<'_>, exporters: &Exporters) -> Result<Destinations, ConfigError> {
    let grafana = grafana::grafana(settings)?;
    let mut named = false;
    let mut one = |signal: Signal, settings: &mut Settings<'_>| -> Result<Aim, ConfigError> {
        let destination = destination::destination(settings, signal, grafana.as_ref(), exporters.otlp(signal))?;
        named |= destination.is_some();
        let http = sends_http(settings, signal.instrumentations_key())?;
        Ok(match destination {
            _ if exporters.is_off(signal) => Aim::Off,
            Some(_) if !http => Aim::Off,
            Some(otlp) => Aim::At(Box::new(otlp)),
            None if !http => Aim::Off,
            None => Aim::Nowhere,
        })
    };
    let traces_aim = one(Signal::Traces, settings)?;
    let metrics_aim = one(Signal::Metrics, settings)?;
    // Read in any case: nonsense in a section is an error even if the section has no destination.
    let traces_settings = traces::traces(settings)?;
    let metrics_settings = metrics::metrics(settings)?;

    let mut local = |signal| destination::local(settings, signal);
    let mut fallback = Fallback { traces: None, metrics: None };
    if !named {
        if traces_aim == Aim::Nowhere {
            fallback.traces = Some(traces_settings.with(local(Signal::Traces)?));
        }
        if metrics_aim == Aim::Nowhere && !metrics_settings.features.is_empty() {
            fallback.metrics = Some(metrics_settings.with(local(Signal::Metrics)?));
        }
    }
    let metrics = match metrics_aim {
        Aim::At(otlp) if !metrics_settings.features.is_empty() => Some(metrics_settings.with(*otlp)),
        _ => None,
    };
    let traces = match traces_aim {
        Aim::At(otlp) => Some(traces_settings.with(*otlp)),
        _ => None,
    };
    let any = fallback.traces.is_some() || fallback.metrics.is_some();
    Ok(Destinations { traces, metrics, fallback: any.then_some(fallback), named })
}

/// What was decided about a signal.
#[derive(Debug, PartialEq)]
enum Aim {
    /// It is not exported, whatever else is said.
    Off,
    /// Nobody named a destination.
    Nowhere,
    /// There.
    At(Box<Otlp>),
}
