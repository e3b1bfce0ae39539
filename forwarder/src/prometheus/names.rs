//! Names and labels by the rules of "Prometheus and OpenMetrics compatibility" (OpenTelemetry specification).
//!
//! In: names, units and values of OpenTelemetry. Out: what both text formats allow.

use crate::{resource::Resource, semconv::key};

/// Name with the unit as suffix, without `_total`.
pub fn metric_name(name: &str, unit: &str) -> String {
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

/// `[a-zA-Z_][a-zA-Z0-9_]*`: everything else becomes `_`, runs of it one.
pub fn label_name(key: &str) -> String {
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

/// Appends a label.
pub fn label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        labels.push_str(plain);
        let mut special = special.chars();
        match special.next() {
            Some('\n') => labels.push_str("\\n"),
            Some(c) => labels.extend(['\\', c]),
            None => {}
        }
        rest = special.as_str();
    }
    labels.push_str(rest);
    labels.push('"');
}

/// Appends labels, each name once: values of keys that become one name are joined by `;`, in the order of the keys.
/// `taken` are names that stand there already and win.
pub fn labels(out: &mut String, taken: &[&str], attributes: impl Iterator<Item = (String, String)>) {
    let mut named: Vec<(String, String)> = Vec::new();
    for (name, value) in attributes {
        match named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(&value);
            }
            None if taken.contains(&name.as_str()) => {}
            None => named.push((name, value)),
        }
    }
    named.iter().for_each(|(name, value)| label(out, name, value));
}

/// `job` and `instance` of a resource.
pub fn target(resource: &Resource) -> (String, String) {
    let (namespace, name) = (resource.text(key::SERVICE_NAMESPACE), resource.text(key::SERVICE_NAME));
    let job = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    (job, resource.text(key::SERVICE_INSTANCE_ID).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, unit, want) in [
            ("http.server.request.duration", "s", "http_server_request_duration_seconds"),
            ("a.b-c..d", "{x}", "a_b_c_d"),
            ("queue.bytes", "By", "queue_bytes"),
            ("1x", "", "key_1x"),
        ] {
            assert_eq!(metric_name(name, unit), want);
        }
    }

    #[test]
    fn values_are_escaped() {
        let mut labels = String::new();
        label(&mut labels, "a", "x\"y\\\nz\u{e9}");
        label(&mut labels, "b", "");
        assert_eq!(labels, "a=\"x\\\"y\\\\\\nz\u{e9}\",b=\"\"");
    }

    #[test]
    fn a_name_stands_once() {
        let mut out = String::new();
        let given = [("a_b", "1"), ("job", "mine"), ("a_b", "2")];
        labels(&mut out, &["job"], given.into_iter().map(|(k, v)| (k.into(), v.into())));
        assert_eq!(out, "a_b=\"1;2\"");
    }
}
