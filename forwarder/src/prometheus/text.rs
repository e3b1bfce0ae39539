//! Prometheus text 0.0.4 and OpenMetrics 1.0, line by line.
//!
//! In: families, labels that are written already, values. Out: text. Pure functions.

use std::fmt::Write;

use super::{
    format::Format,
    names::{label, label_name, metric_name},
};
use crate::{
    metric::{
        exemplar::Exemplar,
        histogram::{Counts, Histogram},
    },
    model::UnixNs,
    telemetry::snapshot::{Kind, Measure},
};

/// What stands at the head of a family.
#[derive(Debug, Clone, Copy)]
pub struct Family<'a> {
    /// Name, without the suffix of a counter or an info.
    pub name: &'a str,
    /// Name of its samples, where they have one name only.
    pub sample: &'a str,
    /// For people, on one line.
    pub help: &'a str,
    /// `counter`, `gauge`, `histogram`, `info`.
    pub kind: &'a str,
}

/// The self-metrics.
pub fn render_own(format: Format, measures: &[Measure]) -> String {
    let mut out = Writer::new(format);
    for measure in measures {
        let name = metric_name(measure.name, measure.unit);
        let (kind, sample) = match measure.kind {
            Kind::Counter => ("counter", format!("{name}_total")),
            Kind::Gauge => ("gauge", name.clone()),
        };
        out.family(Family { name: &name, sample: &sample, help: measure.description, kind });
        for (attributes, value) in &measure.points {
            let mut labels = String::new();
            attributes.iter().for_each(|(key, value)| label(&mut labels, &label_name(key), &value.to_string()));
            out.line(&sample, &labels, value);
        }
    }
    out.end();
    out.text
}

/// Writes one of the formats.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    /// What has been written.
    pub text: String,
}

// Writing to a `String` does not fail.
impl Writer {
    /// Nothing yet.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// The head of a family.
    pub fn family(&mut self, family: Family<'_>) {
        let open = self.format == Format::OpenMetrics;
        let (name, kind) = match family.kind {
            kind if open => (family.name, kind),
            // Text 0.0.4 names the sample and knows no infos.
            "info" => (family.sample, "gauge"),
            kind => (family.sample, kind),
        };
        let _ = writeln!(self.text, "# HELP {name} {}", family.help);
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        let unit = ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| family.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
        if let (true, Some(unit)) = (open, unit) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    /// One sample.
    pub fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            _ => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    /// Since when a series counts; text 0.0.4 has no place for it.
    pub fn created(&mut self, name: &str, labels: &str, start: UnixNs) {
        if self.format == Format::OpenMetrics {
            let braces = if labels.is_empty() { ("", "") } else { ("{", "}") };
            let _ = writeln!(self.text, "{name}_created{}{labels}{} {}", braces.0, braces.1, Seconds(start));
        }
    }

    /// A histogram with cumulative buckets; `exemplars` says whether those that it has are shown, where the format can.
    pub fn histogram(&mut self, name: &str, labels: &str, bounds: &[f64], histogram: &Histogram, exemplars: bool) {
        let comma = if labels.is_empty() { "" } else { "," };
        let open = self.format == Format::OpenMetrics;
        let mut total = 0;
        // Native histograms are not for text: of exponential ones the sum and the count are left.
        let all = [histogram.count()];
        let (bounds, counts) = match &histogram.counts {
            Counts::Explicit(counts) => (bounds, &**counts),
            Counts::Exponential(_) => (&[][..], &all[..]),
        };
        for (at, count) in counts.iter().enumerate() {
            total += count;
            let _ = write!(self.text, "{name}_bucket{{{labels}{comma}le=\"");
            let _ = match bounds.get(at) {
                None => write!(self.text, "+Inf"),
                Some(bound) if open => write!(self.text, "{bound:?}"), // canonical: 1.0, not 1
                Some(bound) => write!(self.text, "{bound}"),
            };
            let _ = write!(self.text, "\"}} {total}");
            let exemplar = i32::try_from(at).ok().and_then(|at| histogram.exemplars.of_bucket(at));
            if let (true, true, Some(exemplar)) = (open, exemplars, exemplar) {
                self.exemplar(exemplar);
            }
            self.text.push('\n');
        }
        self.line_of(name, "_sum", labels, histogram.sum);
        self.line_of(name, "_count", labels, total);
        self.created(name, labels, histogram.start);
    }

    fn line_of(&mut self, name: &str, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let braces = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(self.text, "{name}{suffix}{}{labels}{} {value}", braces.0, braces.1);
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        self.text.push_str(" # {");
        if let Some((trace, span)) = exemplar.span {
            self.text.push_str("trace_id=\"");
            self.hex(&trace);
            self.text.push_str("\",span_id=\"");
            self.hex(&span);
            self.text.push('"');
        }
        let _ = write!(self.text, "}} {} {}", exemplar.value, Seconds(exemplar.time));
    }

    fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let _ = write!(self.text, "{byte:02x}");
        }
    }

    /// The last line of OpenMetrics: nothing may follow it.
    pub fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
    }
}

/// A time in seconds.
struct Seconds(UnixNs);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let UnixNs(ns) = self.0;
        write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    }
}
