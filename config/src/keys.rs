//! The table of every key that Beyla has and that Spantap adds. In: a path of names. Out: whether it is known, whether it
//! is served, which variables stand for it. What is not in here is unknown to everybody.

mod check;
mod ebpf;
mod export;
mod general;
mod network;
mod otlp;

pub(crate) use check::{check, check_variables, places};

/// A key that holds a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Names from the top, joined by dots.
    pub(crate) path: &'static str,
    /// Environment variables, the strongest first, separated by spaces; those that begin with `OTEL_EBPF_` stand for their family.
    pub(crate) variables: &'static str,
    /// Whether a value has an effect.
    pub(crate) served: bool,
    /// For a key that is not served: the values that ask for nothing that Spantap does not do, separated by spaces. Beyla's default
    /// is among them.
    harmless: &'static str,
}

const fn served(path: &'static str, variables: &'static str) -> Key {
    Key { path, variables, served: true, harmless: "" }
}

const fn later(path: &'static str, variables: &'static str, harmless: &'static str) -> Key {
    Key { path, variables, served: false, harmless }
}

/// Spantap's own.
const OWN: &[Key] = &[
    served("spantap.socket", "SPANTAP_SOCKET"),
    served("spantap.admin", "SPANTAP_ADMIN"),
    served("spantap.console", "SPANTAP_CONSOLE"),
    served("spantap.ring_buffer_size", "SPANTAP_RING_BUFFER_SIZE"),
    served("spantap.agent_queue_size", "SPANTAP_AGENT_QUEUE_SIZE"),
    served("spantap.head_size", "SPANTAP_HEAD_SIZE"),
    served("spantap.hooks", "SPANTAP_HOOKS"),
    served("spantap.btf", "SPANTAP_BTF"),
    served("spantap.tls", "SPANTAP_TLS"),
    served("spantap.links", "SPANTAP_LINKS"),
    served("spantap.links_experimental", "SPANTAP_LINKS_EXPERIMENTAL"),
    served("spantap.accept_wrong_fionread", "SPANTAP_ACCEPT_WRONG_FIONREAD"),
    served("spantap.exclude_instrumented_metrics", "SPANTAP_EXCLUDE_INSTRUMENTED_METRICS"),
    served("spantap.forwarder_uids", "SPANTAP_FORWARDER_UIDS"),
    served("spantap.agent_uids", "SPANTAP_AGENT_UIDS"),
    served("spantap.user", "SPANTAP_USER"),
    served("spantap.headers.allow_sensitive", "SPANTAP_HEADERS_ALLOW_SENSITIVE"),
    served("spantap.headers.request", "SPANTAP_HEADERS_REQUEST"),
    served("spantap.headers.response", "SPANTAP_HEADERS_RESPONSE"),
    served("spantap.sampler.keep_errors", "SPANTAP_SAMPLER_KEEP_ERRORS"),
    served("spantap.sampler.keep_slower_than", "SPANTAP_SAMPLER_KEEP_SLOWER_THAN"),
    served("spantap.sampler.keep_slowest", "SPANTAP_SAMPLER_KEEP_SLOWEST"),
    served("spantap.spool.path", "SPANTAP_SPOOL_PATH"),
    served("spantap.spool.max_size", "SPANTAP_SPOOL_MAX_SIZE"),
    served("spantap.spool.max_age", "SPANTAP_SPOOL_MAX_AGE"),
    served(
        "spantap.metrics.temporality",
        "SPANTAP_METRICS_TEMPORALITY OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    ),
    served("spantap.metrics.exemplar_filter", "SPANTAP_METRICS_EXEMPLAR_FILTER OTEL_METRICS_EXEMPLAR_FILTER"),
    served("spantap.prometheus.tls_certificate", "SPANTAP_PROMETHEUS_TLS_CERTIFICATE"),
    served("spantap.prometheus.tls_key", "SPANTAP_PROMETHEUS_TLS_KEY"),
    served("spantap.prometheus.basic_auth.username", "SPANTAP_PROMETHEUS_USERNAME"),
    served("spantap.prometheus.basic_auth.password", "SPANTAP_PROMETHEUS_PASSWORD"),
];

/// All keys.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    [OWN, otlp::GENERAL, otlp::OPTIONS, general::KEYS, export::KEYS, ebpf::KEYS, network::KEYS].into_iter().flatten()
}

/// The key with this path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

/// Keys below a path.
fn below(path: &str) -> impl Iterator<Item = &'static Key> {
    all().filter(move |key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

impl Key {
    /// Whether `text` asks for nothing.
    fn is_harmless(&self, text: &str) -> bool {
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        matches!(plain.as_str(), "" | "0" | "false")
            || self.harmless.split(' ').any(|value| {
                value == plain
                    || matches!((duration(value), duration(&plain)), (Some(one), Some(other)) if one == other)
            })
    }
}

/// Only for comparing: `60s` is `1m`.
fn duration(text: &str) -> Option<std::time::Duration> {
    crate::values::duration(text).ok()
}
