//! What must come of an exchange: spans, metrics that agree with them, nothing else.
//!
//! In: expectations of one service and kind, telemetry. Out: `Ok`, or the first thing that is wrong.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use anyhow::{Result, bail, ensure};

use crate::telemetry::{Kind, Span, Telemetry};

/// How the exchange ended, as the attribute `spantap.outcome` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The response was seen to its last byte.
    Complete,
    /// It began, and its connection ended before its last byte.
    Aborted,
    /// The connection ended without any byte of a response.
    NoResponse,
}

/// Spans that are due.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Method as sent.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Status, if there was a response.
    pub status: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
    /// How many of them.
    pub times: usize,
    /// Least and most seconds from start to end.
    pub seconds: (f64, f64),
    /// Size of the response's body, where the attribute is there.
    pub response_size: Option<i64>,
    /// Size of the request's body, where the attribute is there.
    pub request_size: Option<i64>,
    /// Trace id and parent span id that must have been adopted; `Some` of empty texts: none that a header names.
    pub parent: Option<(String, String)>,
}

/// A complete exchange.
pub fn span(method: &str, path: impl Into<String>, status: i64) -> Expected {
    Expected {
        method: method.to_owned(),
        path: path.into(),
        status: Some(status),
        outcome: Outcome::Complete,
        times: 1,
        seconds: (0.0, 60.0),
        response_size: None,
        request_size: None,
        parent: None,
    }
}

impl Expected {
    /// This often.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Took at least and at most this long.
    #[must_use]
    pub fn took(mut self, least: f64, most: f64) -> Self {
        self.seconds = (least, most);
        self
    }

    /// The response began and did not end.
    #[must_use]
    pub fn aborted(mut self) -> Self {
        self.outcome = Outcome::Aborted;
        self
    }

    /// There was no response.
    #[must_use]
    pub fn without_response(mut self) -> Self {
        (self.outcome, self.status) = (Outcome::NoResponse, None);
        self
    }

    /// Sizes of the bodies.
    #[must_use]
    pub fn sizes(mut self, request: i64, response: i64) -> Self {
        (self.request_size, self.response_size) = (Some(request), Some(response));
        self
    }

    /// Adopted this context; two empty texts: none.
    #[must_use]
    pub fn parent(mut self, trace_id: &str, span_id: &str) -> Self {
        self.parent = Some((trace_id.to_owned(), span_id.to_owned()));
        self
    }
}

type Key = (String, String, Option<i64>, Outcome);

fn outcome(span: &Span) -> Outcome {
    match span.attributes.text("spantap.outcome") {
        Some("aborted") => Outcome::Aborted,
        Some("no_response") => Outcome::NoResponse,
        _ => Outcome::Complete,
    }
}

fn sent_method(span: &Span) -> &str {
    let original = span.attributes.text("http.request.method_original");
    original.or_else(|| span.attributes.text("http.request.method")).unwrap_or_default()
}

fn key(span: &Span) -> Key {
    (sent_method(span).to_owned(), span.path().to_owned(), span.status_code(), outcome(span))
}

/// Exactly these spans of `service` and `kind`, each well-formed.
///
/// # Errors
/// With what is missing, too many or wrong.
pub fn spans(telemetry: &Telemetry, service: &str, kind: Kind, expected: &[Expected]) -> Result<()> {
    spans_over(telemetry, service, kind, expected, "http")
}

/// The same for spans of this scheme.
///
/// # Errors
/// With what is missing, too many or wrong.
pub fn spans_over(telemetry: &Telemetry, service: &str, kind: Kind, expected: &[Expected], scheme: &str) -> Result<()> {
    let found: Vec<Arc<Span>> = telemetry.spans_of(service).into_iter().filter(|s| s.kind == kind).collect();
    let mut have: BTreeMap<Key, usize> = BTreeMap::new();
    for span in &found {
        *have.entry(key(span)).or_default() += 1;
    }
    let mut due: BTreeMap<Key, usize> = BTreeMap::new();
    let mut wanted: BTreeMap<Key, &Expected> = BTreeMap::new();
    for e in expected {
        let key = (e.method.clone(), e.path.clone(), e.status, e.outcome);
        *due.entry(key.clone()).or_default() += e.times;
        wanted.insert(key, e);
    }
    if have != due {
        let only = |a: &BTreeMap<Key, usize>, b: &BTreeMap<Key, usize>| -> Vec<String> {
            let differing = a.iter().filter(|(k, n)| b.get(*k) != Some(n));
            differing.take(8).map(|(k, n)| format!("{n} x {} {} {:?} {:?}", k.0, k.1, k.2, k.3)).collect()
        };
        bail!("{service} {kind:?} spans: due {:#?}, found {:#?}", only(&due, &have), only(&have, &due));
    }
    for span in &found {
        well_formed_over(span, scheme)?;
        if let Some(wanted) = wanted.get(&key(span)) {
            details(span, wanted)?;
        }
    }
    Ok(())
}

fn details(span: &Span, wanted: &Expected) -> Result<()> {
    let what = format!("{} {} {:?}", wanted.method, wanted.path, span.kind);
    let (least, most) = wanted.seconds;
    ensure!((least..=most).contains(&span.seconds()), "{what}: took {} s, not {least} to {most}", span.seconds());
    for (key, size) in
        [("http.request.body.size", wanted.request_size), ("http.response.body.size", wanted.response_size)]
    {
        let found = span.attributes.number(key);
        ensure!(size.is_none() || found == size, "{what}: {key} is {found:?}, not {size:?}");
    }
    match &wanted.parent {
        Some((trace, parent)) if trace.is_empty() => {
            // That of the other end of its connection is not one that a header named.
            let linked = span.attributes.text("spantap.link.method") == Some("connection");
            ensure!(
                parent.is_empty() && (linked || span.parent_span_id.is_empty()),
                "{what}: has the parent {}",
                span.parent_span_id
            );
        }
        Some((trace, parent)) => ensure!(
            (&span.trace_id, &span.parent_span_id) == (trace, parent),
            "{what}: trace {} parent {}, not {trace} {parent}",
            span.trace_id,
            span.parent_span_id
        ),
        None => {}
    }
    Ok(())
}

/// Rules that hold for every span of an HTTP exchange.
///
/// # Errors
/// With the rule that is broken.
pub fn well_formed(span: &Span) -> Result<()> {
    well_formed_over(span, "http")
}

/// The same for a span of this scheme.
///
/// # Errors
/// With the rule that is broken.
pub fn well_formed_over(span: &Span, scheme: &str) -> Result<()> {
    let a = &span.attributes;
    let what = format!("{:?} span {:?} {}", span.kind, span.name, span.path());
    let is_id = |id: &str, digits: usize| {
        id.len() == digits && id.bytes().any(|b| b != b'0') && id.bytes().all(|b| b"0123456789abcdef".contains(&b))
    };
    ensure!(is_id(&span.trace_id, 32) && is_id(&span.span_id, 16), "{what}: ids {} {}", span.trace_id, span.span_id);
    ensure!(
        span.parent_span_id.is_empty() || is_id(&span.parent_span_id, 16),
        "{what}: parent {}",
        span.parent_span_id
    );
    ensure!(span.end >= span.start && span.start > 0, "{what}: from {} to {}", span.start, span.end);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let hour = 3_600_000_000_000;
    ensure!((now - hour..=now + 1_000_000_000).contains(&span.end), "{what}: ended at {}, now is {now}", span.end);
    ensure!(span.scope == "spantap", "{what}: scope {}", span.scope);

    let method = a.text("http.request.method").unwrap_or_default();
    ensure!(!method.is_empty(), "{what}: no http.request.method");
    let placeholder = if method == "_OTHER" { "HTTP" } else { method };
    ensure!(
        span.name == placeholder || span.name.starts_with(&format!("{placeholder} ")),
        "{what}: is the name right?"
    );
    match span.kind {
        Kind::Server => {
            ensure!(a.text("url.scheme") == Some(scheme) && a.has("url.path"), "{what}: url.scheme or url.path")
        }
        Kind::Client => ensure!(a.has("url.full") && a.has("server.address"), "{what}: no url.full or server.address"),
        Kind::Other => bail!("{what}: neither server nor client"),
    }

    let error = a.text("error.type");
    let (status, server) = (span.status_code(), span.kind == Kind::Server);
    let code_is_error = status.is_some_and(|s| s >= 500 || (s >= 400 && !server));
    match outcome(span) {
        // The code itself is the error's type, and says it all.
        Outcome::Complete if code_is_error => {
            ensure!(error == status.map(|s| s.to_string()).as_deref(), "{what}: error.type {error:?} for {status:?}");
        }
        Outcome::Complete => ensure!(error.is_none(), "{what}: error.type {error:?} of a success {status:?}"),
        Outcome::Aborted => ensure!(status.is_some(), "{what}: aborted without a status"),
        Outcome::NoResponse => ensure!(status.is_none(), "{what}: no response, but the status {status:?}"),
    }
    // A client that left is no fault of the server.
    let fault = error.is_some_and(|error| error != "client_disconnected");
    ensure!(span.status == if fault { 2 } else { 0 }, "{what}: status {} with error.type {error:?}", span.status);

    for key in ["service.name", "service.instance.id", "host.name", "process.executable.name"] {
        ensure!(span.resource.has(key), "{what}: the resource has no {key}");
    }
    ensure!(span.resource.number("process.pid").is_some_and(|pid| pid > 0), "{what}: no process.pid");
    ensure!(span.resource.text("telemetry.sdk.name") == Some("spantap"), "{what}: telemetry.sdk.name");
    Ok(())
}

/// Bounds of the conventions.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

type Class = (String, Option<i64>, Option<String>);

/// The duration histogram of `service` counts exactly its spans, by method, status and error type.
///
/// # Errors
/// With both sides where they differ.
pub fn metrics_agree(telemetry: &Telemetry, service: &str, kind: Kind) -> Result<()> {
    let missing = spans_missing(telemetry, service, kind)?;
    ensure!(missing == 0, "{service}: the histogram counts {missing} more {kind:?} exchanges than there are spans");
    Ok(())
}

/// How many more exchanges the duration histogram of `service` counts than there are spans: those that were lost on their
/// way out, for metrics count before. Where there are none, the sums of seconds are equal too.
///
/// # Errors
/// Where there are spans that the histogram does not count, by method, status and error type, and where buckets or sums are wrong.
pub fn spans_missing(telemetry: &Telemetry, service: &str, kind: Kind) -> Result<u64> {
    let class = |a: &crate::telemetry::Attributes| -> Class {
        let text = |key| a.text(key).map(str::to_owned);
        (text("http.request.method").unwrap_or_default(), a.number("http.response.status_code"), text("error.type"))
    };
    let mut traced: BTreeMap<Class, u64> = BTreeMap::new();
    let mut seconds = 0.0;
    for span in telemetry.spans.iter().filter(|s| s.service() == service && s.kind == kind) {
        *traced.entry(class(&span.attributes)).or_default() += 1;
        seconds += span.seconds();
    }
    let metric = match kind {
        Kind::Server => "http.server.request.duration",
        _ => "http.client.request.duration",
    };
    let mut measured: BTreeMap<Class, u64> = BTreeMap::new();
    let mut sum = 0.0;
    for point in telemetry.points(metric).filter(|p| p.service() == service) {
        *measured.entry(class(&point.attributes)).or_default() += point.count;
        sum += point.sum;
        ensure!(
            point.buckets.iter().sum::<u64>() == point.count,
            "{metric}: buckets {:?} of {}",
            point.buckets,
            point.count
        );
        ensure!(point.bounds == BOUNDS && point.unit == "s", "{metric}: bounds {:?} {}", point.bounds, point.unit);
    }
    let uncounted = traced.iter().find(|&(class, n)| measured.get(class).is_none_or(|counted| counted < n));
    ensure!(uncounted.is_none(), "{service} {metric}: spans {traced:?}, histogram {measured:?}");
    let missing = measured.values().sum::<u64>() - traced.values().sum::<u64>();
    let slack = 1e-3 + seconds * 1e-6;
    ensure!(
        if missing == 0 { (seconds - sum).abs() <= slack } else { seconds <= sum + slack },
        "{service} {metric}: spans took {seconds} s, the histogram's sum is {sum} s, {missing} spans are missing"
    );
    Ok(missing)
}
