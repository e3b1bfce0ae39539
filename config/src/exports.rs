//! In: `trace_printer`, `prometheus_export`, redaction. Out: what is shown, and how.

use crate::{
    aggregation::scrape,
    error::ConfigError,
    otlp::{Buckets, features, sends_http, ttl},
    redaction::DEFAULT_PARAMETERS,
    settings::Settings,
    types::{Console, Prometheus, Redaction},
};

/// Reads what is printed: `spantap.console`, else Beyla's `trace_printer`; `None` if neither says anything.
pub(crate) fn console(settings: &Settings<'_>) -> Result<Option<Console>, ConfigError> {
    #[rustfmt::skip]
    const WORDS: [(&str, Console); 7] = [
        ("off", Console::Off), ("disabled", Console::Off), ("text", Console::Text), ("json", Console::Json),
        ("json_indent", Console::JsonIndent), ("counter", Console::Counter), ("false", Console::Off),
    ];
    let given = settings.get("spantap.console").or_else(|| settings.get("trace_printer"));
    given.map(|given| given.word(&WORDS)).transpose()
}

/// Reads the scrape endpoint. Second value: whether one was configured, even if nothing would be on it.
pub(crate) fn prometheus(settings: &mut Settings<'_>) -> Result<(Option<Prometheus>, bool), ConfigError> {
    let port = settings.get("prometheus_export.port").map(|given| given.number(0, u16::MAX)).transpose()?.unwrap_or(0);
    let path = match settings.get("prometheus_export.path") {
        None => "/metrics".to_owned(),
        Some(given) => {
            let path = given.text()?;
            let valid =
                path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
            if !valid {
                return Err(given.invalid("a path that begins with a slash, such as /metrics"));
            }
            path.to_owned()
        }
    };
    let buckets = Buckets::read(
        settings,
        [
            "prometheus_export.buckets.duration_histogram",
            "prometheus_export.buckets.request_size_histogram",
            "prometheus_export.buckets.response_size_histogram",
        ],
    )?;
    let ttl = ttl(settings, "prometheus_export.ttl")?;
    let given = settings
        .get("prometheus_export.features")
        .or_else(|| settings.variable("metrics.features"))
        .or_else(|| settings.file("metrics.features"));
    let features = features(settings, given)?;
    let http = sends_http(settings, "prometheus_export.instrumentations")?;
    let scrape = scrape(settings)?;
    let on = port != 0 && !features.is_empty() && http;
    let prometheus = Prometheus {
        port,
        path,
        features,
        duration_buckets: buckets.duration,
        request_size_buckets: buckets.request_size,
        response_size_buckets: buckets.response_size,
        ttl,
        scrape,
    };
    Ok((on.then_some(prometheus), port != 0))
}

/// Reads the names of query parameters whose values are redacted: the defaults, more, fewer.
pub(crate) fn redaction(settings: &Settings<'_>) -> Result<Redaction, ConfigError> {
    let mut names: Vec<String> = DEFAULT_PARAMETERS.iter().map(|name| (*name).to_owned()).collect();
    if let Some(given) = settings.get("attributes.sensitive_query_params.remove") {
        for item in given.items()? {
            let removed = item.text()?;
            names.retain(|name| !name.eq_ignore_ascii_case(removed));
        }
    }
    if let Some(given) = settings.get("attributes.sensitive_query_params.add") {
        for item in given.items()? {
            let added = item.some_text()?;
            if !names.iter().any(|name| name.eq_ignore_ascii_case(added)) {
                names.push(added.to_owned());
            }
        }
    }
    Ok(Redaction { query_parameters: names })
}
