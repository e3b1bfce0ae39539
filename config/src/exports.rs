//! In: `trace_printer`, `prometheus_export`, `routes`, redaction, the sampler. Out: what is shown, and how.

use crate::{
    aggregation::scrape,
    error::{ConfigError, shown},
    otel,
    otlp::{Buckets, features, sends_http, ttl},
    redaction::DEFAULT_PARAMETERS,
    settings::Settings,
    types::{Console, Prometheus, Redaction, Routes, Sampler},
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

/// Reads path patterns.
pub(crate) fn routes(settings: &mut Settings<'_>) -> Result<Routes, ConfigError> {
    const UNMATCHED: [(&str, bool); 5] =
        [("unset", true), ("path", false), ("wildcard", false), ("heuristic", false), ("low-cardinality", false)];
    if let Some(given) = settings.get("routes.unmatched")
        && !given.word(&UNMATCHED)?
    {
        let message = "routes.unmatched: only unset is served yet: http.route stays unset where no pattern matches";
        settings.warn(given.place(), message);
    }
    let Some(given) = settings.get("routes.patterns") else { return Ok(Routes::default()) };
    let Some(items) = given.nodes() else { return Err(given.invalid("a list of path patterns")) };
    let mut patterns = Vec::with_capacity(items.len());
    for item in items {
        let pattern = item.text()?;
        if !pattern.starts_with('/') {
            return Err(item.invalid("a path pattern such as /user/{id} or /static/*"));
        }
        patterns.push(pattern.to_owned());
    }
    Ok(Routes { patterns })
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

/// What a name of a sampler stands for.
#[derive(Clone, Copy)]
enum Kind {
    On,
    Off,
    Ratio,
    ParentOn,
    ParentOff,
    ParentRatio,
}

/// Reads the head sampler.
pub(crate) fn sampler(settings: &mut Settings<'_>) -> Result<Sampler, ConfigError> {
    #[rustfmt::skip]
    const KINDS: [(&str, Kind); 6] = [
        ("always_on", Kind::On), ("always_off", Kind::Off), ("traceidratio", Kind::Ratio), ("parentbased_always_on", Kind::ParentOn),
        ("parentbased_always_off", Kind::ParentOff), ("parentbased_traceidratio", Kind::ParentRatio),
    ];
    // A variable that says nothing known is reported and ignored; the file counts then.
    let mut kind = None;
    if let Some(given) = settings.variable("otel_traces_export.sampler.name") {
        kind = otel::word(settings, &given, &KINDS)?;
    }
    if let (None, Some(given)) = (kind, settings.file("otel_traces_export.sampler.name")) {
        kind = Some(given.word(&KINDS)?);
    }
    let ratio = ratio(settings)?;
    Ok(match kind.unwrap_or(Kind::ParentOn) {
        Kind::On => Sampler::AlwaysOn,
        Kind::Off => Sampler::AlwaysOff,
        Kind::Ratio => Sampler::TraceIdRatio(ratio),
        Kind::ParentOn => Sampler::ParentBasedAlwaysOn,
        Kind::ParentOff => Sampler::ParentBasedAlwaysOff,
        Kind::ParentRatio => Sampler::ParentBasedTraceIdRatio(ratio),
    })
}

/// The argument of the ratio samplers; 1 if there is none, as in the specification.
fn ratio(settings: &mut Settings<'_>) -> Result<f64, ConfigError> {
    const EXPECTED: &str = "a share from 0 to 1";
    let parse = |text: &str| text.trim().parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    if let Some(given) = settings.variable("otel_traces_export.sampler.arg") {
        match parse(given.text()?) {
            Some(ratio) => return Ok(ratio),
            None => {
                settings.warn(given.place(), format!("found {}, expected {EXPECTED}; ignored", shown(given.text()?)))
            }
        }
    }
    match settings.file("otel_traces_export.sampler.arg") {
        Some(given) => parse(given.text()?).ok_or_else(|| given.invalid(EXPECTED)),
        None => Ok(1.0),
    }
}
