//! In: a configuration. Out: YAML-like text of all that counts, for people who check what a start would do. No secret is in it.

mod aggregation;

use std::{fmt::Write, time::Duration};

use crate::types::{
    Attributes, Compression, Config, Console, Exports, Fallback, Feature, Features, Glob, IgnoreMode, LogFormat,
    LogLevel, Otlp, OtlpMetrics, OtlpTraces, Routes, Sampler, Selector, Unmatched,
};

impl Config {
    /// The effective configuration, in the order of the file's keys. Values of headers are `[redacted]`, URLs are without query.
    pub fn render(&self) -> String {
        let mut out = Lines(String::new());
        discovery(&mut out, self);
        match &self.traces {
            Some(traces) => traces_section(&mut out, 0, "otel_traces_export", traces),
            None => out.line(0, "otel_traces_export: off"),
        }
        out.line(0, &format!("sampler: {}", sampler(self.sampler)));
        match &self.metrics {
            Some(metrics) => metrics_section(&mut out, 0, "otel_metrics_export", metrics),
            None => out.line(0, "otel_metrics_export: off"),
        }
        if let Some(fallback) = &self.fallback {
            fallback_section(&mut out, fallback);
        }
        match &self.prometheus {
            Some(prometheus) => {
                out.line(0, "prometheus_export:");
                out.line(1, &format!("port: {}", prometheus.port));
                out.line(1, &format!("path: {}", quoted(&prometheus.path)));
                out.line(1, &format!("ttl: {}", duration(prometheus.ttl)));
                let of = prometheus;
                histograms(
                    &mut out,
                    1,
                    of.features,
                    &of.duration_buckets,
                    [&of.request_size_buckets, &of.response_size_buckets],
                );
                aggregation::scrape(&mut out, &of.scrape);
            }
            None => out.line(0, "prometheus_export: off"),
        }
        routes(&mut out, &self.routes);
        list(&mut out, 0, "redacted query parameters", self.redaction.query_parameters.iter().map(|name| quoted(name)));
        attributes(&mut out, &self.attributes);
        for (name, value) in [
            ("service_name", &self.service_name),
            ("service_namespace", &self.service_namespace),
            ("host.name", &self.host_name),
            ("host.id", &self.host_id),
        ] {
            if let Some(value) = value {
                out.line(0, &format!("{name}: {}", quoted(value)));
            }
        }
        if !self.resource_attributes.is_empty() {
            out.line(0, "resource attributes:");
            for (name, value) in &self.resource_attributes {
                out.line(1, &format!("{}: {}", quoted(name), quoted(value)));
            }
        }
        program(&mut out, self);
        out.0
    }
}

struct Lines(String);

impl Lines {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:indent$}{text}", "", indent = depth * 2);
    }
}

fn discovery(out: &mut Lines, config: &Config) {
    out.line(0, "discovery:");
    if config.discovery.instrument.is_empty() {
        out.line(1, "instrument: every process that serves or makes requests");
    } else {
        out.line(1, "instrument:");
        config.discovery.instrument.iter().for_each(|selector| entry(out, selector, true));
    }
    if !config.discovery.exclude.is_empty() {
        out.line(1, "exclude_instrument:");
        config.discovery.exclude.iter().for_each(|selector| entry(out, selector, false));
    }
    out.line(1, &format!("poll_interval: {}", duration(config.discovery.poll_interval)));
    out.line(1, &format!("exclude_otel_instrumented_services: {}", config.exclude_instrumented.spans));
}

fn entry(out: &mut Lines, selector: &Selector, exports: bool) {
    let mut parts = Vec::new();
    if !selector.open_ports.is_empty() {
        let ports = selector.open_ports.iter().map(|ports| range(ports.first.into(), ports.last.into()));
        parts.push(format!("open_ports: {}", quoted(&ports.collect::<Vec<_>>().join(","))));
    }
    if !selector.target_pids.is_empty() {
        let pids = selector.target_pids.iter().map(|pids| range(pids.first, pids.last));
        parts.push(format!("target_pids: {}", quoted(&pids.collect::<Vec<_>>().join(","))));
    }
    for (name, pattern) in [("exe_path", &selector.exe_path), ("cmd_args", &selector.cmd_args)] {
        if let Some(pattern) = pattern {
            let syntax = if pattern.is_regex() { " (regular expression)" } else { "" };
            parts.push(format!("{name}: {}{syntax}", quoted(&pattern.pattern)));
        }
    }
    if !selector.languages.is_empty() {
        parts.push(format!("languages: [{}]", selector.languages.join(", ")));
    }
    if selector.containers_only {
        parts.push("containers_only: true".to_owned());
    }
    for (name, value) in [("name", &selector.name), ("namespace", &selector.namespace)] {
        if let Some(value) = value {
            parts.push(format!("{name}: {}", quoted(value)));
        }
    }
    if exports && selector.exports != Exports::default() {
        let Exports { traces, metrics } = selector.exports;
        let signals =
            [(traces, "traces"), (metrics, "metrics")].into_iter().filter(|(on, _)| *on).map(|(_, name)| name);
        parts.push(format!("exports: [{}]", signals.collect::<Vec<_>>().join(", ")));
    }
    if let Some(of) = selector.sampler.filter(|_| exports) {
        parts.push(format!("sampler: {}", sampler(of)));
    }
    for (name, patterns) in [("incoming", &selector.routes.incoming), ("outgoing", &selector.routes.outgoing)] {
        if exports && !patterns.is_empty() {
            let patterns: Vec<_> = patterns.iter().map(|pattern| quoted(pattern)).collect();
            parts.push(format!("routes.{name}: [{}]", patterns.join(", ")));
        }
    }
    for (index, part) in parts.iter().enumerate() {
        out.line(2, &format!("{} {part}", if index == 0 { "-" } else { " " }));
    }
}

fn range(first: u32, last: u32) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn traces_section(out: &mut Lines, depth: usize, name: &str, traces: &OtlpTraces) {
    out.line(depth, &format!("{name}:"));
    otlp(out, depth + 1, &traces.otlp);
    out.line(depth + 1, &format!("batch_max_size: {}", traces.batch_max_size));
    out.line(depth + 1, &format!("batch_timeout: {}", duration(traces.batch_timeout)));
    out.line(depth + 1, &format!("queue_size: {}", traces.queue_size));
    out.line(depth + 1, &format!("backoff_initial_interval: {}", duration(traces.backoff.initial)));
    out.line(depth + 1, &format!("backoff_max_interval: {}", duration(traces.backoff.max)));
    out.line(depth + 1, &format!("backoff_max_elapsed_time: {}", duration(traces.backoff.max_elapsed)));
}

fn metrics_section(out: &mut Lines, depth: usize, name: &str, metrics: &OtlpMetrics) {
    out.line(depth, &format!("{name}:"));
    otlp(out, depth + 1, &metrics.otlp);
    out.line(depth + 1, &format!("interval: {}", duration(metrics.interval)));
    out.line(depth + 1, &format!("ttl: {}", duration(metrics.ttl)));
    let sizes = [&metrics.request_size_buckets[..], &metrics.response_size_buckets];
    histograms(out, depth + 1, metrics.features, &metrics.duration_buckets, sizes);
    aggregation::aggregation(out, depth + 1, metrics.aggregation);
}

fn fallback_section(out: &mut Lines, fallback: &Fallback) {
    out.line(0, "if a Collector listens on this host at start:");
    if let Some(traces) = &fallback.traces {
        traces_section(out, 1, "otel_traces_export", traces);
    }
    if let Some(metrics) = &fallback.metrics {
        metrics_section(out, 1, "otel_metrics_export", metrics);
    }
}

fn otlp(out: &mut Lines, depth: usize, otlp: &Otlp) {
    out.line(depth, &format!("endpoint: {}", quoted(&otlp.shown_endpoint())));
    out.line(depth, &format!("protocol: {}", otlp.protocol.name()));
    if !otlp.headers.is_empty() {
        out.line(depth, "headers:");
        for (name, _) in &otlp.headers {
            out.line(depth + 1, &format!("{name}: [redacted]"));
        }
    }
    if let Some(source) = &otlp.header_source {
        list(out, depth, "read again when refused", source.files().iter().map(|path| quoted(&path.to_string_lossy())));
    }
    let timeout = if otlp.timeout.is_zero() { "none".to_owned() } else { duration(otlp.timeout) };
    out.line(depth, &format!("timeout: {timeout}"));
    let compression = match otlp.compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
    };
    out.line(depth, &format!("compression: {compression}"));
    if let Some(path) = &otlp.certificate {
        out.line(depth, &format!("certificate: {}", quoted(&path.to_string_lossy())));
    }
    if let Some((key, certificate)) = &otlp.client_identity {
        out.line(depth, &format!("client_key: {}", quoted(&key.to_string_lossy())));
        out.line(depth, &format!("client_certificate: {}", quoted(&certificate.to_string_lossy())));
    }
    out.line(depth, &format!("insecure_skip_verify: {}", otlp.insecure_skip_verify));
}

fn program(out: &mut Lines, config: &Config) {
    let console = match config.console {
        Console::Off => "off",
        Console::Text => "text",
        Console::Json => "json",
        Console::JsonIndent => "json_indent",
        Console::Counter => "counter",
    };
    let level = match config.log.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    out.line(0, "ebpf:");
    let propagation = if config.agent.propagation.headers { "headers" } else { "disabled" };
    out.line(1, &format!("context_propagation: {propagation}"));
    out.line(0, "spantap:");
    out.line(1, &format!("socket: {}", quoted(&config.socket.to_string_lossy())));
    out.line(1, &format!("admin: {}", config.admin.map_or("off".to_owned(), |address| address.to_string())));
    out.line(1, &format!("console: {console}"));
    out.line(1, &format!("ring_buffer_size: {}", config.agent.ring_buffer_bytes));
    out.line(1, &format!("agent_queue_size: {}", config.agent.queue_bytes));
    out.line(1, &format!("head_size: {}", config.agent.head_bytes));
    out.line(1, &format!("hooks: {}", config.agent.hooks.word()));
    if let Some(btf) = &config.agent.btf {
        out.line(1, &format!("btf: {}", quoted(&btf.to_string_lossy())));
    }
    out.line(1, &format!("tls: {}", if config.agent.tls { "auto" } else { "off" }));
    out.line(1, &format!("accept_wrong_fionread: {}", config.agent.propagation.accept_wrong_fionread));
    out.line(1, &format!("links: {}", if config.links { "auto" } else { "off" }));
    list(out, 1, "links_experimental", config.links_experimental.iter().map(|runtime| runtime.word().to_owned()));
    out.line(1, &format!("exclude_instrumented_metrics: {}", config.exclude_instrumented.metrics));
    list(out, 1, "forwarder_uids", config.agent.forwarder_uids.iter().map(u32::to_string));
    list(out, 1, "agent_uids", config.forwarder.agent_uids.iter().map(u32::to_string));
    spans(out, config);
    if let Some(user) = &config.forwarder.user {
        out.line(1, &format!("user: {}", quoted(user)));
    }
    match &config.spool {
        Some(spool) => {
            out.line(1, "spool:");
            out.line(2, &format!("path: {}", quoted(&spool.path.to_string_lossy())));
            out.line(2, &format!("max_size: {}", spool.max_bytes));
            out.line(2, &format!("max_age: {}", duration(spool.max_age)));
        }
        None => out.line(1, "spool: off"),
    }
    if let Some(interval) = config.agent.usage_interval {
        out.line(0, &format!("processes.interval: {}", duration(interval)));
    }
    out.line(0, &format!("shutdown_timeout: {}", duration(config.shutdown_timeout)));
    out.line(0, &format!("log_level: {level}"));
    out.line(0, &format!("log_format: {format}"));
}

fn list(out: &mut Lines, depth: usize, name: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    if !items.is_empty() {
        out.line(depth, &format!("{name}: [{}]", items.join(", ")));
    }
}

fn histograms(out: &mut Lines, depth: usize, features: Features, durations: &[f64], sizes: [&[f64]; 2]) {
    let [requests, responses] = sizes;
    list(out, depth, "features", features.iter().map(|feature| feature.name().to_owned()));
    list(out, depth, "buckets.duration_histogram", durations.iter().map(f64::to_string));
    if features.has(Feature::Application) {
        list(out, depth, "buckets.request_size_histogram", requests.iter().map(f64::to_string));
        list(out, depth, "buckets.response_size_histogram", responses.iter().map(f64::to_string));
    }
}

fn attributes(out: &mut Lines, attributes: &Attributes) {
    let globs = |globs: &[Glob]| globs.iter().map(|glob| quoted(&glob.pattern)).collect::<Vec<_>>().into_iter();
    if !attributes.select.is_empty() || attributes.drop_query {
        out.line(0, "attributes.select:");
        for selection in &attributes.select {
            out.line(1, &format!("{}:", quoted(&selection.metric.pattern)));
            list(out, 2, "include", globs(&selection.include));
            list(out, 2, "exclude", globs(&selection.exclude));
        }
        if attributes.drop_query {
            out.line(1, "traces:");
            out.line(2, "exclude: [url_query]");
        }
    }
    list(out, 0, "attributes.extra_group_attributes", attributes.extra.iter().map(|name| quoted(name)));
}

fn sampler(sampler: Sampler) -> String {
    match sampler.ratio() {
        Some(ratio) => format!("{} {ratio}", sampler.name()),
        None => sampler.name().to_owned(),
    }
}

fn routes(out: &mut Lines, routes: &Routes) {
    let unmatched = match routes.unmatched {
        Unmatched::Unset => "unset",
        Unmatched::Path => "path",
        Unmatched::Wildcard => "wildcard",
        Unmatched::Heuristic => "heuristic",
        Unmatched::LowCardinality => "low-cardinality",
    };
    let mode = match routes.ignore_mode {
        IgnoreMode::All => "all",
        IgnoreMode::Traces => "traces",
        IgnoreMode::Metrics => "metrics",
    };
    out.line(0, "routes:");
    list(out, 1, "patterns", routes.patterns.iter().map(|pattern| quoted(pattern)));
    list(out, 1, "ignored_patterns", routes.ignored.iter().map(|pattern| quoted(pattern)));
    out.line(1, &format!("ignore_mode: {mode}"));
    out.line(1, &format!("unmatched: {unmatched}"));
    out.line(1, &format!("wildcard_char: {}", quoted(&routes.wildcard.to_string())));
    out.line(1, &format!("max_path_segment_cardinality: {}", routes.max_segments));
}

fn spans(out: &mut Lines, config: &Config) {
    out.line(1, "sampler:");
    out.line(2, &format!("keep_errors: {}", config.keep.errors));
    out.line(2, &format!("keep_slower_than: {}", config.keep.slower_than.map_or("off".to_owned(), duration)));
    out.line(2, &format!("keep_slowest: {}", config.keep.slowest));
    for (name, headers) in [("request", &config.headers.request), ("response", &config.headers.response)] {
        list(out, 1, &format!("headers.{name}"), headers.iter().cloned());
    }
}

/// In the largest unit that has no fraction.
fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, name) in
        [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")]
    {
        if nanos > 0 && nanos.is_multiple_of(unit) {
            return format!("{}{name}", nanos / unit);
        }
    }
    if nanos == 0 { "0s".to_owned() } else { format!("{nanos}ns") }
}

/// As it is, or in quotes if it would read as something else; control characters escaped.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:".contains(c))
        && !text.ends_with(':');
    if plain { text.to_owned() } else { format!("{text:?}") }
}
