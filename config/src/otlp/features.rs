//! In: lists of features. Out: which groups of metrics an exporter sends, and whether the agent reads the processes' usage.

use std::time::Duration;

use crate::{
    error::ConfigError,
    given::Given,
    settings::Settings,
    types::{Feature, Features},
};

/// Beyla's default.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// Each reading opens three files of each observed process.
const LEAST_USAGE_INTERVAL: Duration = Duration::from_secs(1);
const MOST_USAGE_INTERVAL: Duration = Duration::from_secs(3600);

/// Beyla's groups that are not served.
#[rustfmt::skip]
const LATER: [&str; 10] = [
    "application_runtime", "network", "network_inter_zone", "network_flow_packets", "stats", "stats_tcp_rtt",
    "stats_tcp_failed_connections", "stats_tcp_retransmits", "stats_tcp_io", "ebpf",
];

/// Beyla's words for all groups.
const EVERYTHING: [&str; 2] = ["*", "all"];

/// What `all` stands for. The two names of the span metrics exclude each other; those of the Collector's connector are the
/// ones that are here to stay.
const ALL: [Feature; 6] = [
    Feature::Application,
    Feature::SpanOtel,
    Feature::SpanSizes,
    Feature::ServiceGraph,
    Feature::Host,
    Feature::Process,
];

/// The groups of a list; those of applications if none was given.
pub(crate) fn features(settings: &mut Settings<'_>, given: Option<Given<'_>>) -> Result<Features, ConfigError> {
    let Some(given) = given else { return Ok(Features::of(&[Feature::Application])) };
    let names = names(&given)?;
    let features = of(&names);
    let later: Vec<&str> = names.iter().copied().filter(|name| LATER.contains(name)).collect();
    if !later.is_empty() {
        settings.warn(given.place(), format!("{}: {} not served yet, no effect", given.key, later.join(", ")));
    } else if let Some(word) = names.iter().find(|name| EVERYTHING.contains(name)) {
        let served: Vec<&str> = features.iter().map(Feature::name).collect();
        settings.warn(given.place(), format!("{}: of {word} these are served: {}", given.key, served.join(", ")));
    }
    if features.has(Feature::Span) && features.has(Feature::SpanOtel) {
        return Err(given.unsupported(
            "application_span and application_span_otel are two names for the same metrics; keep one of them",
        ));
    }
    if features.is_empty() {
        settings.warn(
            given.place(),
            format!("{}: none of the features in the list is served, so no metrics are exported here", given.key),
        );
    }
    Ok(features)
}

/// How often the agent reads the processes' usage; `None` if no list asks for it. Exporters do not count: an agent with a
/// configuration of its own has none.
pub(crate) fn usage_interval(settings: &Settings<'_>) -> Result<Option<Duration>, ConfigError> {
    let interval = match settings.get("processes.interval") {
        None => USAGE_INTERVAL,
        Some(given) => {
            let interval = given.duration()?;
            if !(LEAST_USAGE_INTERVAL..=MOST_USAGE_INTERVAL).contains(&interval) {
                return Err(given.invalid("a duration from 1s to 1h"));
            }
            interval
        }
    };
    for key in ["metrics.features", "otel_metrics_export.features", "prometheus_export.features"] {
        for given in [settings.variable(key), settings.file(key)].into_iter().flatten() {
            if of(&names(&given)?).has(Feature::Process) {
                return Ok(Some(interval));
            }
        }
    }
    Ok(None)
}

fn names(given: &Given<'_>) -> Result<Vec<&'static str>, ConfigError> {
    let known: Vec<&'static str> = Feature::ALL.into_iter().map(Feature::name).chain(LATER).chain(EVERYTHING).collect();
    given.items()?.iter().map(|item| item.name(&known)).collect()
}

fn of(names: &[&str]) -> Features {
    let named = Feature::ALL.into_iter().filter(|feature| names.contains(&feature.name()));
    let all = ALL.into_iter().filter(|_| names.iter().any(|name| EVERYTHING.contains(name)));
    named.chain(all).fold(Features::default(), Features::with)
}
