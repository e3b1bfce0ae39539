//! In: `attributes.select`, `attributes.extra_group_attributes`. Out: which attributes metrics and spans carry.
//!
//! As in Beyla: names of metrics and attributes may be written with dots or underscores, both may be globs; a metric's name may
//! have the suffixes of Prometheus. Where several patterns match a metric the broader counts first.

use crate::{
    error::ConfigError,
    given::Given,
    settings::Settings,
    suggest::{nearest, one_of},
    types::{Attributes, Glob, Selection},
};

/// Metrics whose attributes can be chosen.
#[rustfmt::skip]
const METRICS: [&str; 12] = [
    "http.server.request.duration", "http.server.request.body.size", "http.server.response.body.size", "http.server.active_requests",
    "http.client.request.duration", "http.client.request.body.size", "http.client.response.body.size",
    "process.cpu.time", "process.cpu.utilization", "process.memory.usage", "process.memory.virtual", "process.disk.io",
];

/// Metrics of Beyla's that are not served.
#[rustfmt::skip]
const METRICS_LATER: [&str; 34] = [
    "process.network.io", "rpc.client.duration", "rpc.server.duration", "rpc.client.call.duration", "rpc.server.call.duration",
    "db.client.operation.duration", "db.server.operation.duration", "messaging.publish.duration", "messaging.process.duration",
    "messaging.client.operation.duration", "dns.lookup.duration", "gen_ai.client.token.usage", "gen_ai.client.operation.duration",
    "gpu.kernel.launch.calls", "gpu.kernel.grid.size", "gpu.kernel.block.size", "gpu.memory.allocations",
    "gpu.cuda.kernel.launch.calls", "gpu.cuda.graph.launch.calls", "gpu.cuda.kernel.grid.size", "gpu.cuda.kernel.block.size",
    "gpu.cuda.memory.allocations", "gpu.cuda.memory.copies", "beyla.network.flow.bytes", "beyla.network.flow.packets",
    "beyla.network.inter.zone.bytes", "obi.network.flow.bytes", "obi.network.inter.zone.bytes", "beyla.stat.tcp.rtt",
    "beyla.stat.tcp.failed.connections", "beyla.stat.tcp.retransmits", "beyla.stat.tcp.io", "resource", "survey.info",
];

/// Metrics whose attributes are fixed, here as in Beyla.
const FIXED: [&str; 4] = ["traces.spanmetrics.", "traces.span.metrics.", "traces.service.graph.", "traces.host."];

/// The only group that attributes can be added to.
const GROUP: &str = "k8s_app_meta";

/// Most patterns, and most attributes of the group: each costs time for each point.
const MOST: usize = 64;

/// Reads both keys.
pub(crate) fn attributes(settings: &mut Settings<'_>) -> Result<Attributes, ConfigError> {
    let mut attributes = Attributes { extra: extra(settings)?, ..Default::default() };
    let Some(given) = settings.get("attributes.select") else { return Ok(attributes) };
    for (entry, value) in given.entries()? {
        let lists = lists(&value)?;
        if entry.key == "traces" {
            attributes.drop_query = traces(settings, &value, &lists);
            continue;
        }
        let normal = normalized(&entry.key);
        let metric = Glob::new(&underscores(&normal)).map_err(|flaw| value.invalid_as(&entry.key, &flaw.reason))?;
        if !METRICS.iter().any(|name| metric.matches(&underscores(name))) {
            not_served(settings, &value, &entry.key, &normal)?;
            continue;
        }
        if attributes.select.len() == MOST {
            return Err(value.unsupported(format!("more than {MOST} patterns of metrics")));
        }
        attributes.select.push(Selection { metric, include: lists.include, exclude: lists.exclude });
    }
    attributes.select.sort_by(|one, other| one.metric.pattern.cmp(&other.metric.pattern));
    Ok(attributes)
}

/// `include` and `exclude` of one entry.
#[derive(Debug, Default)]
struct Lists {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

fn lists(given: &Given<'_>) -> Result<Lists, ConfigError> {
    let mut lists = Lists::default();
    if given.is_null() {
        return Ok(lists);
    }
    for (entry, value) in given.entries()? {
        let list = match entry.key.as_str() {
            "include" => &mut lists.include,
            "exclude" => &mut lists.exclude,
            other => {
                let hint = nearest(other, ["include", "exclude"].into_iter()).map_or_else(
                    || "known here: include or exclude".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(ConfigError::UnknownKey {
                    place: given.at(entry.key_at),
                    key: value.key,
                    hint: Some(hint),
                });
            }
        };
        if value.is_null() {
            continue;
        }
        for item in value.items()? {
            let pattern = underscores(item.some_text()?);
            list.push(Glob::new(&pattern).map_err(|flaw| item.invalid(&format!("a pattern ({})", flaw.reason)))?);
        }
        if list.len() > MOST {
            return Err(value.unsupported(format!("more than {MOST} patterns")));
        }
    }
    Ok(lists)
}

/// Of a span only the query can be left out; all else is there or not by what was observed. Whether it is.
fn traces(settings: &mut Settings<'_>, given: &Given<'_>, lists: &Lists) -> bool {
    const QUERY: &str = "url_query";
    let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(QUERY));
    let others = lists.include.iter().chain(&lists.exclude).filter(|glob| !glob.matches(QUERY));
    let others: Vec<&str> = others.map(|glob| glob.pattern.as_str()).collect();
    if !others.is_empty() {
        let message = format!(
            "{}: {} has no effect: of the attributes of spans only url.query can be chosen",
            given.key,
            others.join(", ")
        );
        settings.warn(given.place(), message);
    }
    matches(&lists.exclude) || (!lists.include.is_empty() && !matches(&lists.include))
}

/// A warning for what Beyla has and Spantap has not, an error for what nobody knows.
fn not_served(settings: &mut Settings<'_>, given: &Given<'_>, key: &str, normal: &str) -> Result<(), ConfigError> {
    if FIXED.iter().any(|prefix| normal.starts_with(prefix)) {
        settings.warn(given.place(), format!("{}: the attributes of this metric are fixed, no effect", given.key));
        return Ok(());
    }
    let plain = underscores(normal);
    let later = Glob::new(&plain).is_ok_and(|glob| METRICS_LATER.iter().any(|name| glob.matches(&underscores(name))));
    if later {
        settings.warn(given.place(), format!("{}: not served yet, no effect", given.key));
        return Ok(());
    }
    let names = || METRICS.into_iter().chain(METRICS_LATER).chain(["traces"]);
    let hint = match nearest(normal, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("metrics are called {}", one_of(METRICS)),
    };
    Err(ConfigError::UnknownKey { place: given.place(), key: format!("attributes.select.{key}"), hint: Some(hint) })
}

/// Attributes of resources that every metric is to carry.
fn extra(settings: &mut Settings<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(given) = settings.get("attributes.extra_group_attributes") else { return Ok(Vec::new()) };
    let mut extra: Vec<String> = Vec::new();
    for (entry, value) in given.entries()? {
        if entry.key != GROUP {
            return Err(ConfigError::UnknownKey {
                place: given.at(entry.key_at),
                key: value.key,
                hint: Some(format!("the only group is `{GROUP}`")),
            });
        }
        if value.is_null() {
            continue;
        }
        for item in value.items()? {
            let name = item.some_text()?.to_owned();
            if !extra.contains(&name) {
                extra.push(name);
            }
        }
        if extra.len() > MOST {
            return Err(value.unsupported(format!("more than {MOST} attributes")));
        }
    }
    Ok(extra)
}

/// A metric's name with dots, without the suffixes of Prometheus.
fn normalized(name: &str) -> String {
    let mut name = name.replace('_', ".");
    for suffixes in [&[".sum", ".count", ".bucket", ".total"][..], &[".seconds", ".bytes", ".ratio"][..]] {
        // `*_total` is a pattern of its own and nothing would be left of it.
        if let Some(rest) = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|rest| *rest != "*") {
            name = rest.to_owned();
        }
    }
    name
}

fn underscores(name: &str) -> String {
    name.replace('.', "_")
}
