//! What a scrape shows, in pieces.
//!
//! In: a registry, of which the series are copied process by process, so that nobody waits for its lock longer than one
//! process takes. Out: text, a piece at a time, so that a page of any size holds little memory and can wait for its reader.

use std::sync::{Arc, Mutex};

use super::{
    format::Format,
    names::{label, label_name, labels, target},
    text::{Family, Writer},
};
use crate::{
    metric::{
        instrument::{Kind, Style},
        plan::{Active, Plan},
        point::Data,
        registry::{ProcessKey, ProcessSeries, Registry},
        series::SeriesKey,
    },
    observation::Rules,
    pipeline::lock,
    resource::Resource,
    semconv::{SCOPE_NAME, SCOPE_VERSION, key},
    serve::body::PIECE,
};

/// Names of the labels that every series has.
const COMMON: [&str; 4] = ["job", "instance", "otel_scope_name", "otel_scope_version"];

/// What is shown beside the series.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Exemplars, where the format has a place for them.
    pub exemplars: bool,
    /// `spantap_build_info`.
    pub build_info: bool,
}

/// The series of one process, as they were.
#[derive(Debug)]
struct Process {
    target: (String, String),
    key: ProcessKey,
    resource: Arc<Resource>,
    /// Labels that all its series have.
    common: String,
    metrics: Vec<Vec<(Option<SeriesKey>, Data)>>,
}

/// A page and how far it has been written.
#[derive(Debug)]
pub struct Page {
    format: Format,
    shown: Shown,
    plan: Arc<Plan>,
    rules: Arc<Rules>,
    processes: Vec<Process>,
    /// Family, process, series that come next; the head comes before the first.
    next: (usize, usize, usize),
    begun: bool,
    over: bool,
}

impl Page {
    /// Copies what is to be shown.
    pub fn new(format: Format, registry: &Mutex<Registry>, rules: Arc<Rules>, shown: Shown) -> Self {
        let (plan, keys) = {
            let registry = lock(registry);
            (registry.plan().clone(), registry.keys())
        };
        let mut processes: Vec<Process> = Vec::with_capacity(keys.len());
        for key in keys {
            let copy = lock(registry).get(key).map(|of| Process::copy(key, of));
            processes.extend(copy);
            // Who waits for the lock comes first.
            std::thread::yield_now();
        }
        for process in &mut processes {
            process.describe();
        }
        processes.sort_by(|a, b| (&a.target, b.key.0).cmp(&(&b.target, a.key.0)));
        once(&mut processes);
        Self { format, shown, plan, rules, processes, next: (0, 0, 0), begun: false, over: false }
    }

    /// The next piece; `None` at the end.
    pub fn piece(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let mut out = Writer::new(self.format);
        if self.next == (0, 0, 0) && !self.begun {
            self.head(&mut out);
        }
        while out.text.len() < PIECE {
            if !self.series(&mut out) {
                out.end();
                self.over = true;
                break;
            }
        }
        Some(out.text)
    }

    fn head(&self, out: &mut Writer) {
        if self.shown.build_info {
            let (name, help) = ("spantap_build_info", "Version of Spantap.");
            out.family(Family { name: "spantap_build", sample: name, help, kind: "info" });
            let mut labels = String::new();
            label(&mut labels, "version", SCOPE_VERSION);
            out.line(name, &labels, 1);
        }
        let help = "Resource of the observed process.";
        out.family(Family { name: "target", sample: "target_info", help, kind: "info" });
        let mut last = None;
        for process in &self.processes {
            if last != Some(&process.target) {
                out.line("target_info", &target_labels(&process.resource, &process.target), 1);
            }
            last = Some(&process.target);
        }
    }

    /// Writes the next series, with the head of its family if it is the first; false if there is none left.
    fn series(&mut self, out: &mut Writer) -> bool {
        loop {
            let (family, at, series) = self.next;
            let Some(active) = self.plan.active.get(family) else { return false };
            let Some(process) = self.processes.get(at) else {
                (self.next, self.begun) = ((family + 1, 0, 0), false);
                continue;
            };
            let Some((key, data)) = process.metrics.get(family).and_then(|metric| metric.get(series)) else {
                self.next = (family, at + 1, 0);
                continue;
            };
            let first = !std::mem::replace(&mut self.begun, true);
            self.next.2 += 1;
            write(out, active, first, (process, key.as_ref(), data), &self.rules, self.shown);
            return true;
        }
    }
}

fn write(
    out: &mut Writer,
    active: &Active,
    first: bool,
    (process, key, data): (&Process, Option<&SeriesKey>, &Data),
    rules: &Rules,
    shown: Shown,
) {
    let instrument = active.instrument;
    let (name, sample) = (instrument.prometheus, instrument.sample_name());
    if first {
        let kind = match instrument.kind {
            Kind::Histogram => "histogram",
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
        };
        out.family(Family { name, sample: &sample, help: instrument.description, kind });
    }
    let mut line = match instrument.style {
        Style::Resource => target_labels(&process.resource, &process.target),
        _ => process.common.clone(),
    };
    if instrument.style != Style::Resource {
        let attributes = active.attributes(key, rules, &process.resource);
        labels(&mut line, &COMMON, attributes.iter().map(|(key, value)| (label_name(key), value.to_string())));
    }
    match data {
        Data::Histogram(histogram) => {
            out.histogram(name, &line, active.aggregation.bounds(), histogram, shown.exemplars);
        }
        Data::Number(number) => {
            out.line(&sample, &line, number.amount);
            if instrument.kind == Kind::Counter {
                out.created(name, &line, number.start);
            }
        }
    }
}

impl Process {
    /// Under the lock: no more than a copy.
    fn copy(key: ProcessKey, of: &ProcessSeries) -> Self {
        let metrics = of.metrics.iter().map(|m| m.iter().map(|(key, data)| (key.cloned(), data.clone())).collect());
        Self {
            target: Default::default(),
            key,
            resource: of.resource.clone(),
            common: String::new(),
            metrics: metrics.collect(),
        }
    }

    fn describe(&mut self) {
        self.target = target(&self.resource);
        let values = [&*self.target.0, &*self.target.1, SCOPE_NAME, SCOPE_VERSION];
        for (name, value) in COMMON.into_iter().zip(values) {
            label(&mut self.common, name, value);
        }
    }
}

/// A process that was told again with other facts stands under two keys for a while: each series is shown once, by the later.
fn once(processes: &mut [Process]) {
    for at in 1..processes.len() {
        let (before, rest) = processes.split_at_mut(at);
        let (Some(later), Some(earlier)) = (before.last(), rest.first_mut()) else { continue };
        if later.target != earlier.target {
            continue;
        }
        for (theirs, own) in later.metrics.iter().zip(&mut earlier.metrics) {
            let known: std::collections::HashSet<&Option<SeriesKey>> = theirs.iter().map(|(key, _)| key).collect();
            own.retain(|(key, _)| !known.contains(key));
        }
    }
}

/// Labels of a target: `job`, `instance`, and the resource but for what these two are made of.
fn target_labels(resource: &Resource, (job, instance): &(String, String)) -> String {
    let mut out = String::new();
    label(&mut out, "job", job);
    label(&mut out, "instance", instance);
    let made_of = [key::SERVICE_NAME, key::SERVICE_NAMESPACE, key::SERVICE_INSTANCE_ID];
    let others = resource.attributes.iter().filter(|(key, _)| !made_of.contains(&key.as_str()));
    labels(&mut out, &["job", "instance"], others.map(|(key, value)| (label_name(key), value.to_string())));
    out
}
