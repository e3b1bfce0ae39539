//! Prometheus text 0.0.4 and OpenMetrics 1.0 (OpenTelemetry specification, "Prometheus and OpenMetrics compatibility").
//!
//! In: series and self-metrics. Out: text. Pure functions.

use std::fmt::Write;

use crate::{
    metric::{
        histogram::Histogram,
        instrument::{Kind as InstrumentKind, Style},
        point::Data,
        registry::Registry,
    },
    observation::Rules,
    resource::Resource,
    semconv::{SCOPE_NAME, SCOPE_VERSION, key},
    telemetry::snapshot::{Kind, Measure},
};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that `accept` prefers; text if it says nothing.
    pub fn negotiate(accept: &str) -> Self {
        let quality = |wanted: &str| {
            accept
                .split(',')
                .take(32)
                .map(str::trim)
                .filter(|range| range.split(';').next().unwrap_or_default().trim() == wanted)
                .map(q)
                .fold(0.0, f32::max)
        };
        let text = quality("text/plain").max(quality("text/*")).max(quality("*/*"));
        if quality("application/openmetrics-text") > text { Self::OpenMetrics } else { Self::Text }
    }

    /// `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Weight of a media range (RFC 9110 section 12.4.2).
fn q(range: &str) -> f32 {
    let weight = range.split(';').skip(1).find_map(|p| p.trim().strip_prefix("q="));
    weight.map_or(1.0, |w| w.trim().parse().unwrap_or(0.0))
}

/// All series of `registry`, with one `target_info` for each process.
pub fn render(format: Format, registry: &Registry, rules: &Rules) -> String {
    let mut out = Writer { format, text: String::new() };
    let mut processes: Vec<_> = registry.processes().collect();
    // One process may stand under two keys for a while; the name of a target must not.
    processes.sort_by_cached_key(|p| target(&p.resource));
    out.family(
        "target",
        "target_info",
        "Resource of the observed process.",
        if format == Format::Text { "gauge" } else { "info" },
        "",
    );
    let mut last = None;
    for process in &processes {
        let target = target(&process.resource);
        if last.as_ref() != Some(&target) {
            out.line("target_info", &target_labels(&process.resource, &target), "1");
        }
        last = Some(target);
    }
    for (place, active) in registry.plan().active.iter().enumerate() {
        let instrument = active.instrument;
        let (family, sample) = (instrument.prometheus, instrument.sample_name());
        let kind = match instrument.kind {
            InstrumentKind::Histogram => "histogram",
            InstrumentKind::Counter => "counter",
            InstrumentKind::UpDownCounter | InstrumentKind::Gauge => "gauge",
        };
        let unit = ["seconds", "bytes", "ratio"].into_iter().find(|unit| family.ends_with(unit)).unwrap_or_default();
        let mut begun = false;
        for process in &processes {
            let Some(of) = process.metrics.get(place) else { continue };
            let base = base_labels(&process.resource);
            for (key, data) in of.iter() {
                let mut labels = match instrument.style {
                    Style::Resource => target_labels(&process.resource, &target(&process.resource)),
                    _ => base.clone(),
                };
                for (key, value) in active.attributes(key, rules, &process.resource) {
                    label(&mut labels, &label_name(key), &value.to_string());
                }
                if !begun {
                    out.family(family, &sample, instrument.description, kind, unit);
                    begun = true;
                }
                match data {
                    Data::Histogram(histogram) => out.histogram(family, &labels, &active.bounds, histogram),
                    Data::Number(number) => out.line(&sample, &labels, &number.amount.to_string()),
                }
            }
        }
    }
    out.finish()
}

/// The self-metrics.
pub fn render_own(format: Format, measures: &[Measure]) -> String {
    let mut out = Writer { format, text: String::new() };
    for measure in measures {
        let family = metric_name(measure.name, measure.unit);
        let (kind, sample) = match measure.kind {
            Kind::Counter => ("counter", format!("{family}_total")),
            Kind::Gauge => ("gauge", family.clone()),
        };
        let unit = if family.ends_with("_bytes") { "bytes" } else { "" };
        out.family(&family, &sample, measure.description, kind, unit);
        for (attributes, value) in &measure.points {
            let mut labels = String::new();
            attributes.iter().for_each(|(key, value)| label(&mut labels, &label_name(key), &value.to_string()));
            out.line(&sample, &labels, &value.to_string());
        }
    }
    out.finish()
}

struct Writer {
    format: Format,
    text: String,
}

// Writing to a `String` does not fail.
impl Writer {
    /// `family` is the name for OpenMetrics, `sample` the name for text.
    fn family(&mut self, family: &str, sample: &str, help: &str, kind: &str, unit: &str) {
        let name = if self.format == Format::OpenMetrics { family } else { sample };
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    fn line(&mut self, name: &str, labels: &str, value: &str) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            _ => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, name: &str, labels: &str, bounds: &[f64], histogram: &Histogram) {
        let mut total = 0;
        for (at, count) in histogram.counts.iter().enumerate() {
            total += count;
            let le = match (bounds.get(at), self.format) {
                (None, _) => "+Inf".to_owned(),
                (Some(bound), Format::Text) => format!("{bound}"),
                (Some(bound), Format::OpenMetrics) => format!("{bound:?}"), // canonical: 1.0, not 1
            };
            let _ = writeln!(self.text, "{name}_bucket{{{labels},le=\"{le}\"}} {total}");
        }
        let _ = writeln!(self.text, "{name}_sum{{{labels}}} {}", histogram.sum);
        let _ = writeln!(self.text, "{name}_count{{{labels}}} {total}");
    }

    fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// `job` and `instance`.
fn target(resource: &Resource) -> (String, String) {
    let (namespace, name) = (resource.text(key::SERVICE_NAMESPACE), resource.text(key::SERVICE_NAME));
    let job = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    (job, resource.text(key::SERVICE_INSTANCE_ID).to_owned())
}

fn base_labels(resource: &Resource) -> String {
    let (job, instance) = target(resource);
    let mut labels = String::new();
    label(&mut labels, "job", &job);
    label(&mut labels, "instance", &instance);
    label(&mut labels, "otel_scope_name", SCOPE_NAME);
    label(&mut labels, "otel_scope_version", SCOPE_VERSION);
    labels
}

fn target_labels(resource: &Resource, (job, instance): &(String, String)) -> String {
    let mut labels = String::new();
    label(&mut labels, "job", job);
    label(&mut labels, "instance", instance);
    // Keys that become one name share it: values joined by `;`, in the order of the keys.
    let mut named: Vec<(String, String)> = Vec::new();
    for (key, value) in &resource.attributes {
        if [key::SERVICE_NAME, key::SERVICE_NAMESPACE, key::SERVICE_INSTANCE_ID].contains(&key.as_str()) {
            continue;
        }
        let name = label_name(key);
        match named.iter_mut().find(|(n, _)| *n == name) {
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(&value.to_string());
            }
            None if name == "job" || name == "instance" => {}
            None => named.push((name, value.to_string())),
        }
    }
    named.iter().for_each(|(name, value)| label(&mut labels, name, value));
    labels
}

fn label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            _ => labels.push(c),
        }
    }
    labels.push('"');
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: everything else becomes `_`, runs of it one.
fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => name.push(c),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        name.insert_str(0, "key_");
    }
    name
}

/// Name with the unit as suffix, without `_total`.
fn metric_name(name: &str, unit: &str) -> String {
    let mut out = label_name(name);
    let suffix = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    if !out.ends_with(suffix) {
        out.push_str(suffix);
    }
    out
}

#[cfg(test)]
mod tests;
