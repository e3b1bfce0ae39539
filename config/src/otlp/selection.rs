//! In: `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_SDK_DISABLED`, lists of instrumentations. Out: which
//! signals are exported, and whether HTTP is among what is exported.

use super::Signal;
use crate::{error::ConfigError, given::Given, otel, settings::Settings};

/// What the variables of the specification say about exporters.
#[derive(Debug, Default)]
pub(crate) struct Exporters {
    traces: Choice,
    metrics: Choice,
    /// Spans are printed (`OTEL_TRACES_EXPORTER=console`).
    pub(crate) console: bool,
    /// Nothing is exported at all (`OTEL_SDK_DISABLED`).
    pub(crate) disabled: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Not set: other settings decide.
    #[default]
    Open,
    /// OTLP, to the default endpoint if no other is given.
    Otlp,
    /// Not by OTLP.
    Off,
}

impl Exporters {
    /// Whether OTLP was asked for by name.
    pub(super) fn otlp(&self, signal: Signal) -> bool {
        self.choice(signal) == Choice::Otlp
    }

    /// Whether the signal is not to be exported by OTLP.
    pub(super) fn is_off(&self, signal: Signal) -> bool {
        self.disabled || self.choice(signal) == Choice::Off
    }

    fn choice(&self, signal: Signal) -> Choice {
        match signal {
            Signal::Traces => self.traces,
            Signal::Metrics => self.metrics,
        }
    }
}

/// Reads what the variables say.
pub(crate) fn exporters(settings: &mut Settings<'_>) -> Result<Exporters, ConfigError> {
    let mut exporters = Exporters::default();
    if let Some(given) = settings.named("OTEL_SDK_DISABLED", "OTEL_SDK_DISABLED") {
        exporters.disabled = otel::boolean(settings, &given)?;
        if exporters.disabled {
            settings.warn(given.place(), "nothing is exported");
        }
    }
    if let Some(given) = settings.named("OTEL_TRACES_EXPORTER", "OTEL_TRACES_EXPORTER") {
        (exporters.traces, exporters.console) = choice(settings, &given)?;
    }
    if let Some(given) = settings.named("OTEL_METRICS_EXPORTER", "OTEL_METRICS_EXPORTER") {
        let (metrics, console) = choice(settings, &given)?;
        exporters.metrics = metrics;
        if console {
            settings.warn(given.place(), "metrics are not printed to a console yet, no effect");
        }
    }
    Ok(exporters)
}

/// A list of exporters: what it says about OTLP, and whether `console` is in it.
fn choice(settings: &mut Settings<'_>, given: &Given<'_>) -> Result<(Choice, bool), ConfigError> {
    let (mut otlp, mut console, mut known) = (false, false, false);
    for item in given.items()? {
        let word = otel::word(settings, &item, &[("otlp", 0), ("console", 1), ("none", 2)])?;
        known |= word.is_some();
        otlp |= word == Some(0);
        console |= word == Some(1);
    }
    let choice = match (known, otlp) {
        (false, _) => Choice::Open,
        (true, true) => Choice::Otlp,
        (true, false) => Choice::Off,
    };
    Ok((choice, console))
}

/// Beyla's instrumentations.
#[rustfmt::skip]
const INSTRUMENTATIONS: [&str; 17] = [
    "*", "http", "grpc", "sql", "redis", "kafka", "mqtt", "nats", "amqp", "mongo", "couchbase", "memcached", "sunrpc", "aerospike",
    "dns", "gpu", "genai",
];

/// Beyla's defaults for traces, of its documentation and of its code: written out, they ask for nothing in particular.
#[rustfmt::skip]
const DEFAULT_INSTRUMENTATIONS: [&[&str]; 2] = [
    &["http", "grpc", "sql", "redis", "kafka", "mongo"],
    &[
        "http", "grpc", "sql", "redis", "kafka", "mqtt", "nats", "amqp", "mongo", "couchbase", "memcached", "sunrpc", "aerospike",
    ],
];

/// Whether a list of instrumentations has HTTP in it; a list that was not given has.
pub(crate) fn sends_http(settings: &mut Settings<'_>, key: &'static str) -> Result<bool, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(true) };
    let mut names = given.items()?.iter().map(|item| item.name(&INSTRUMENTATIONS)).collect::<Result<Vec<_>, _>>()?;
    let http = names.iter().any(|name| matches!(*name, "http" | "*"));
    let is_default = DEFAULT_INSTRUMENTATIONS
        .iter()
        .any(|default| default.len() == names.len() && default.iter().all(|name| names.contains(name)));
    names.retain(|name| !matches!(*name, "http" | "*"));
    if !names.is_empty() && !is_default {
        settings.warn(given.place(), format!("{key}: {} not served yet, no effect", names.join(", ")));
    }
    if !http {
        settings.warn(given.place(), format!("{key}: http is not in the list, so nothing is exported here"));
    }
    Ok(http)
}
