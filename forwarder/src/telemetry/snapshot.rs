//! Self-metrics as data: names, units and values at one time.
//!
//! In: [`Telemetry`]. Out: [`Measure`]s, which the OTLP export and the admin endpoint write in their own forms.
//! Names are documented in docs/telemetry.md and stay.

use super::Telemetry;
use crate::{loss::Reason, value::Value};

/// Attributes of a point.
pub type Attributes = Vec<(&'static str, Value<'static>)>;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Values.
    pub points: Vec<(Attributes, u64)>,
}

fn text(value: &'static str) -> Value<'static> {
    Value::Str(value.into())
}

/// All self-metrics now.
pub fn measures(t: &Telemetry) -> Vec<Measure> {
    let counter = |name, description, unit, points| Measure { name, description, unit, kind: Kind::Counter, points };
    let gauge = |name, description, unit, points| Measure { name, description, unit, kind: Kind::Gauge, points };
    let one = |value: u64| vec![(vec![], value)];
    let side =
        |server, client| vec![(vec![("side", text("server"))], server), (vec![("side", text("client"))], client)];
    let each = |value: fn(&super::destination::Destination) -> u64| -> Vec<_> {
        [&t.traces, &t.metrics].iter().map(|d| (vec![("signal", text(d.name()))], value(d))).collect()
    };
    let losses =
        Reason::ALL.iter().map(|r| (vec![("reason", text(r.name())), ("unit", text(r.unit()))], t.losses.get(*r)));
    let requests = [&t.traces, &t.metrics].into_iter().flat_map(|d| {
        let point = |result, n: u64| (vec![("signal", text(d.name())), ("result", text(result))], n);
        [point("ok", d.requests_ok.get()), point("failed", d.requests_failed.get())]
    });
    let lost = [&t.traces, &t.metrics].into_iter().flat_map(|d| {
        d.losses().map(|(r, n)| (vec![("signal", text(d.name())), ("reason", text(r.name()))], n)).collect::<Vec<_>>()
    });
    let mut all = vec![
        counter(
            "spantap.exchanges",
            "HTTP exchanges reported.",
            "{exchange}",
            side(t.server_exchanges.get(), t.client_exchanges.get()),
        ),
        counter("spantap.losses", "What was lost, by reason.", "{item}", losses.collect()),
        counter(
            "spantap.spans.unsampled",
            "Exchanges that the sampler made no span of.",
            "{span}",
            one(t.spans_unsampled.get()),
        ),
        counter(
            "spantap.spans.unwanted",
            "Exchanges whose span nobody asked for.",
            "{span}",
            one(t.spans_unwanted.get()),
        ),
        counter(
            "spantap.ignored_by_route",
            "Exchanges left out because their path is ignored.",
            "{exchange}",
            vec![
                (vec![("signal", text("traces"))], t.spans_ignored.get()),
                (vec![("signal", text("metrics"))], t.measurements_ignored.get()),
            ],
        ),
        counter(
            "spantap.excluded_instrumented",
            "Exchanges left out because their program exports the signal itself.",
            "{exchange}",
            vec![
                (vec![("signal", text("traces"))], t.spans_instrumented.get()),
                (vec![("signal", text("metrics"))], t.measurements_instrumented.get()),
            ],
        ),
        counter(
            "spantap.links",
            "Spans whose parent was found, by how.",
            "{span}",
            t.links.made().map(|(method, n)| (vec![("method", text(method))], n)).collect(),
        ),
        counter(
            "spantap.links.none",
            "Spans whose parent was not found, by why.",
            "{span}",
            t.links.none().map(|(reason, n)| (vec![("reason", text(reason))], n)).collect(),
        ),
        counter(
            "spantap.config.reloads",
            "Configurations read again, by result.",
            "{reload}",
            vec![
                (vec![("result", text("ok"))], t.reloads.get()),
                (vec![("result", text("refused"))], t.reloads_refused.get()),
            ],
        ),
        counter(
            "spantap.export.accepted",
            "Spans and data points handed over for export.",
            "{item}",
            each(|d| d.accepted.get()),
        ),
        counter(
            "spantap.export.exported",
            "Spans and data points that the destination took.",
            "{item}",
            each(|d| d.exported.get()),
        ),
        counter(
            "spantap.export.superseded",
            "Data points replaced by later ones before they were sent.",
            "{item}",
            each(|d| d.superseded.get()),
        ),
        counter("spantap.export.lost", "Spans and data points lost on export, by reason.", "{item}", lost.collect()),
        counter(
            "spantap.export.requests",
            "Export requests by result, retries included.",
            "{request}",
            requests.collect(),
        ),
        gauge(
            "spantap.export.queue.size",
            "Spans and data points waiting or on their way.",
            "{item}",
            each(|d| d.waiting()),
        ),
        gauge(
            "spantap.export.queue.bytes",
            "Encoded bytes waiting or on their way.",
            "By",
            each(|d| d.queued_bytes.get()),
        ),
        gauge(
            "spantap.export.queue.capacity",
            "Spans and data points that may wait.",
            "{item}",
            each(|d| d.capacity.get()),
        ),
        counter(
            "spantap.export.spooled",
            "Spans and data points written to the spool.",
            "{item}",
            each(|d| d.spooled.get()),
        ),
        counter(
            "spantap.export.recovered",
            "Spans and data points of an earlier run, found in the spool at start.",
            "{item}",
            each(|d| d.recovered.get()),
        ),
        gauge(
            "spantap.export.spool.size",
            "Spans and data points in the spool.",
            "{item}",
            each(|d| d.spool_items.get()),
        ),
        gauge("spantap.export.spool.bytes", "Bytes of the spool's files.", "By", each(|d| d.spool_bytes.get())),
        counter(
            "spantap.export.spool.errors",
            "Writes to the spool that failed.",
            "{error}",
            each(|d| d.spool_errors.get()),
        ),
        counter(
            "spantap.metric.overflow",
            "Measurements that went to an overflow series.",
            "{measurement}",
            one(t.metric_overflow.get()),
        ),
        counter(
            "spantap.metric.evicted",
            "Processes whose series went early because there were too many.",
            "{process}",
            one(t.metric_evicted.get()),
        ),
        counter(
            "spantap.console.printed",
            "Exchanges printed on standard output.",
            "{exchange}",
            one(t.console.printed.get()),
        ),
        counter(
            "spantap.console.dropped",
            "Exchanges not printed: standard output was slow or closed.",
            "{exchange}",
            one(t.console.dropped.get()),
        ),
        counter("spantap.prometheus.scrapes", "Scrapes answered.", "{scrape}", one(t.scrapes.get())),
        gauge("spantap.agent.connected", "Whether an agent's stream is up.", "1", one(t.agent.is_connected().into())),
        counter("spantap.agent.streams", "Streams that agents have opened.", "{stream}", one(t.agent.streams.get())),
        counter(
            "spantap.agent.events.received",
            "Socket events received from the agent.",
            "{event}",
            one(t.agent.events_received.get()),
        ),
        gauge(
            "spantap.agent.events.seen",
            "Socket events that the agent has taken from the kernel in this run.",
            "{event}",
            one(t.agent.events_seen.get()),
        ),
        gauge(
            "spantap.agent.processes",
            "Processes that the agent observes.",
            "{process}",
            one(t.agent.processes.get()),
        ),
        gauge("spantap.agent.ring.bytes", "Bytes in the agent's ring buffer.", "By", one(t.agent.ring_bytes.get())),
        gauge("spantap.agent.queue.bytes", "Bytes in the agent's queue.", "By", one(t.agent.queue_bytes.get())),
    ];
    if let Some(propagation) = t.agent.propagation() {
        all.push(gauge(
            "spantap.agent.propagation.on",
            "Whether requests of observed processes are given a traceparent.",
            "1",
            one(propagation.on.into()),
        ));
        all.push(gauge(
            "spantap.agent.propagation",
            "Requests with a traceparent from here, and connections that are left alone, by outcome, in this run of the agent.",
            "1",
            propagation.counts.into_iter().map(|(outcome, n)| (vec![("outcome", text(outcome))], n)).collect(),
        ));
    }
    let owned = |value: String| Value::Str(value.into());
    let programs = t.agent.tls();
    if !programs.is_empty() {
        let points = programs.into_iter().map(|program| {
            let state = if program.reason.is_empty() { "read" } else { "not_read" };
            let attributes = vec![
                ("state", text(state)),
                ("executable", owned(program.executable)),
                ("library", owned(program.library)),
                ("reason", owned(program.reason)),
            ];
            (attributes, program.connections)
        });
        all.push(gauge(
            "spantap.agent.tls.connections",
            "TLS connections that were not read, by program, library and reason; state read: its library is read.",
            "{connection}",
            points.collect(),
        ));
    }
    let programs = t.agent.linked();
    if !programs.is_empty() {
        let points = programs.into_iter().map(|program| {
            let attributes = vec![
                ("state", text(program.state)),
                ("executable", owned(program.executable)),
                ("runtime", owned(program.runtime)),
                ("reason", owned(program.reason)),
            ];
            (attributes, 1)
        });
        all.push(gauge(
            "spantap.agent.links.programs",
            "1 for each program with a runtime whose requests may be linked: whether they are, and why not.",
            "{program}",
            points.collect(),
        ));
    }
    all
}

/// Leaves of counters what came since `told`, and no point where nothing did.
pub fn subtract(now: &mut [Measure], told: &[Measure]) {
    for measure in now.iter_mut().filter(|measure| measure.kind == Kind::Counter) {
        let before = told.iter().find(|before| before.name == measure.name);
        for (attributes, value) in &mut measure.points {
            let known = before.and_then(|before| before.points.iter().find(|(of, _)| of == attributes));
            *value = value.saturating_sub(known.map_or(0, |(_, value)| *value));
        }
        measure.points.retain(|(_, value)| *value > 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use super::*;

    #[test]
    fn differences_add_up() {
        let t = Telemetry::new(Arc::default());
        let exchanges = |measures: &[Measure]| -> u64 {
            let of = measures.iter().find(|m| m.name == "spantap.exchanges").map(|m| &m.points);
            of.into_iter().flatten().map(|(_, value)| value).sum()
        };
        let (mut told, mut sum) = (Vec::new(), 0);
        for round in 0..3 {
            (0..round).for_each(|_| t.exchange(crate::exchange::Side::Server));
            let now = measures(&t);
            let mut since = now.clone();
            subtract(&mut since, &told);
            sum += exchanges(&since);
            assert_eq!(sum, exchanges(&now));
            assert!(since.iter().any(|m| m.kind == Kind::Gauge && !m.points.is_empty()), "gauges stay");
            told = now;
        }
    }

    #[test]
    fn names_are_unique_and_of_spantap() {
        let all = measures(&Telemetry::new(Arc::default()));
        let names: HashSet<_> = all.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|n| n.starts_with("spantap.")));
        assert!(all.iter().all(|m| !m.points.is_empty() && !m.description.is_empty()));
    }
}
