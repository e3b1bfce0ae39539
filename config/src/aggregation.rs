//! In: keys and variables of aggregation, exemplars and of the scrape endpoint's protection. Out: their typed values.

use std::path::PathBuf;

use crate::{
    FileState,
    error::{ConfigError, Place},
    otel,
    settings::Settings,
    types::{Aggregation, ExemplarFilter, Histograms, Scrape, Secret, Temporality},
};

/// Beyla's and the specification's defaults of exponential histograms.
const MAX_SCALE: i8 = 20;
const MAX_SIZE: u16 = 160;
/// Each bucket is eight bytes in each series.
const MOST_SIZE: u16 = 1024;

const FILTERS: [(&str, ExemplarFilter); 3] = [
    ("trace_based", ExemplarFilter::TraceBased),
    ("always_on", ExemplarFilter::AlwaysOn),
    ("always_off", ExemplarFilter::AlwaysOff),
];

const FILTER_KEY: &str = "spantap.metrics.exemplar_filter";
const FILTER_VARIABLE: &str = "OTEL_METRICS_EXEMPLAR_FILTER";

/// Reads how metrics by OTLP are aggregated.
pub(crate) fn aggregation(settings: &mut Settings<'_>) -> Result<Aggregation, ConfigError> {
    const TEMPORALITIES: [(&str, Temporality); 3] =
        [("cumulative", Temporality::Cumulative), ("delta", Temporality::Delta), ("lowmemory", Temporality::LowMemory)];
    const KINDS: [(&str, bool); 2] =
        [("explicit_bucket_histogram", false), ("base2_exponential_bucket_histogram", true)];
    let temporality = choice(
        settings,
        "spantap.metrics.temporality",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        &TEMPORALITIES,
    )?;
    let exponential = choice(
        settings,
        "otel_metrics_export.histogram_aggregation",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        &KINDS,
    )?;
    // Read in any case: nonsense is an error even where it has no effect.
    let max_scale = settings
        .get("otel_metrics_export.exponential_histogram.max_scale")
        .map_or(Ok(MAX_SCALE), |given| given.number(-10, 20))?;
    let max_size = settings
        .get("otel_metrics_export.exponential_histogram.max_size")
        .map_or(Ok(MAX_SIZE), |given| given.number(2, MOST_SIZE))?;
    Ok(Aggregation {
        temporality: temporality.unwrap_or_default(),
        histograms: if exponential == Some(true) {
            Histograms::Exponential { max_scale, max_size }
        } else {
            Histograms::Explicit
        },
        exemplars: choice(settings, FILTER_KEY, FILTER_VARIABLE, &FILTERS)?.unwrap_or_default(),
    })
}

/// Reads what the scrape endpoint shows and to whom.
pub(crate) fn scrape(settings: &mut Settings<'_>) -> Result<Scrape, ConfigError> {
    let exemplars = match settings.get("prometheus_export.exemplar_filter") {
        Some(given) => Some(given.word(&FILTERS)?),
        None => match settings.named(FILTER_VARIABLE, FILTER_KEY) {
            Some(given) => otel::word(settings, &given, &FILTERS)?,
            None => None,
        },
    };
    let disabled = settings.get("prometheus_export.disable_build_info").map_or(Ok(false), |given| given.boolean())?;
    // The whole resource is on `target_info`: there is nothing to add, but nonsense is still told.
    if let Some(given) = settings.get("prometheus_export.extra_resource_attributes") {
        given.items()?.iter().try_for_each(|item| item.some_text().map(drop))?;
    }
    let (basic_auth, tls) = (basic_auth(settings)?, tls(settings)?);
    if let (Some(_), None, Some(given)) = (&basic_auth, &tls, settings.get("spantap.prometheus.basic_auth.password")) {
        let message =
            "the password crosses the network in clear without spantap.prometheus.tls_certificate and tls_key";
        settings.warn(given.place(), message);
    }
    let tls_files =
        tls.iter().flat_map(|(certificate, key)| [certificate, key]).map(|path| FileState::of(path)).collect();
    let exemplars = exemplars.unwrap_or(ExemplarFilter::AlwaysOff);
    Ok(Scrape { exemplars, build_info: !disabled, basic_auth, tls, tls_files })
}

/// One of some words: by the variable of the specification, where what is not known is reported and ignored; by one of
/// Spantap's own or by the file, where it is an error.
fn choice<T: Copy>(
    settings: &mut Settings<'_>,
    key: &'static str,
    standard: &str,
    words: &[(&'static str, T)],
) -> Result<Option<T>, ConfigError> {
    if let Some(given) = settings.variable(key) {
        if given.place() != Place::Variable(standard.to_owned()) {
            return given.word(words).map(Some);
        }
        if let Some(value) = otel::word(settings, &given, words)? {
            return Ok(Some(value));
        }
    }
    settings.file(key).map(|given| given.word(words)).transpose()
}

fn basic_auth(settings: &mut Settings<'_>) -> Result<Option<(String, Secret)>, ConfigError> {
    let username = settings.get("spantap.prometheus.basic_auth.username");
    let password = settings.get("spantap.prometheus.basic_auth.password");
    let (username, password) = match (username, password) {
        (None, None) => {
            // Both from variables that are not set: that must not open the endpoint.
            return match settings.file("spantap.prometheus.basic_auth") {
                Some(section) if section.entries()?.len() > 1 => {
                    Err(section.invalid("username and password; are the variables set that they come from?"))
                }
                _ => Ok(None),
            };
        }
        (Some(username), Some(password)) => (username, password),
        (Some(one), None) | (None, Some(one)) => {
            return Err(one.unsupported("basic_auth needs both username and password, or neither"));
        }
    };
    let name = username.text()?;
    if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
        return Err(username.invalid("a user name without a colon (RFC 7617)"));
    }
    let secret = password.text()?;
    if secret.is_empty() || secret.chars().any(char::is_control) {
        // An empty one is most likely a variable that is not set: it must not open the endpoint.
        let found = if secret.is_empty() { "nothing" } else { "a password with control characters" };
        return Err(password.invalid_as(found, "a password; is the variable set that it comes from?"));
    }
    Ok(Some((name.to_owned(), Secret(secret.to_owned()))))
}

fn tls(settings: &mut Settings<'_>) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let certificate = settings.get("spantap.prometheus.tls_certificate");
    let key = settings.get("spantap.prometheus.tls_key");
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate.some_text()?.into(), key.some_text()?.into()))),
        (Some(one), None) | (None, Some(one)) => {
            Err(one.unsupported("TLS needs both spantap.prometheus.tls_certificate and tls_key, or neither"))
        }
    }
}
