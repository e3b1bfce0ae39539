//! In: the whole tree of a file, and the names of all variables. Out: an error for what nobody knows, a warning for
//! each key (one for each section) that Beyla has and Spantap does not serve yet.

use std::sync::Arc;

use super::{Key, all, below, find};
use crate::{
    environment::{Environment, family},
    error::{ConfigError, Place, Warning, shown},
    suggest::{nearest, one_of},
    yaml::{Entry, Node, Position, Value},
};

/// Checks every key of a file.
pub(crate) fn check(root: &Node, place: &dyn Fn(Position) -> Place) -> Result<Vec<Warning>, ConfigError> {
    let mut warnings = Vec::new();
    match &root.value {
        Value::Map(entries) => walk(entries, "", place, &mut warnings)?,
        Value::Null => {}
        other => return Err(not_a_mapping("the file", other, place(root.at))),
    }
    Ok(warnings)
}

fn walk(
    entries: &[Entry],
    parent: &str,
    place: &dyn Fn(Position) -> Place,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    for entry in entries {
        let path = join(parent, &entry.key);
        if let Some(key) = find(&path) {
            if !key.served && !asks_for_nothing(key, &entry.node) {
                warnings.push(Warning {
                    place: place(entry.key_at),
                    message: format!("{path}: not served yet, no effect"),
                });
            }
            continue;
        }
        let Some(serves) = below(&path).map(|key| key.served).reduce(|one, other| one || other) else {
            return Err(unknown(path, &entry.key, parent, place(entry.key_at)));
        };
        let children = match &entry.node.value {
            Value::Map(children) => children,
            Value::Null => continue,
            other => return Err(not_a_mapping(&path, other, place(entry.node.at))),
        };
        if serves {
            walk(children, &path, place, warnings)?;
            continue;
        }
        // Nothing of this section is served: its keys are checked all the same, one warning is enough.
        let mut inner = Vec::new();
        walk(children, &path, place, &mut inner)?;
        if !inner.is_empty() {
            warnings.push(Warning {
                place: place(entry.key_at),
                message: format!("{path}: section not served yet, no effect"),
            });
        }
    }
    Ok(())
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn asks_for_nothing(key: &Key, node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar { text, .. } => key.is_harmless(text),
        Value::Map(entries) => entries.is_empty(),
        Value::List(items) => {
            let texts: Option<Vec<&str>> = items
                .iter()
                .map(|item| match &item.value {
                    Value::Scalar { text, .. } => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            texts.is_some_and(|texts| key.is_harmless(&texts.join(",")))
        }
    }
}

fn not_a_mapping(key: &str, value: &Value, place: Place) -> ConfigError {
    let found = match value {
        Value::Scalar { secret: true, .. } => "the content of a file".to_owned(),
        Value::Scalar { text, .. } => shown(text),
        Value::List(_) => "a list".to_owned(),
        Value::Null | Value::Map(_) => "something else".to_owned(),
    };
    ConfigError::Invalid { place, key: key.to_owned(), found, expected: "a mapping of keys to values".to_owned() }
}

fn unknown(path: String, name: &str, parent: &str, place: Place) -> ConfigError {
    let siblings = children_of(parent);
    let hint = if let Some(near) = nearest(name, siblings.iter().copied()) {
        Some(format!("did you mean `{near}`?"))
    } else if let Some(elsewhere) = all().find(|key| is_misplaced(key.path, name, parent)) {
        Some(format!("did you mean `{}`?", elsewhere.path))
    } else if parent.is_empty() {
        nearest(&path, all().map(|key| key.path)).map(|near| format!("did you mean `{near}`?"))
    } else {
        Some(format!("known here: {}", one_of(siblings)))
    };
    ConfigError::UnknownKey { place, key: path, hint }
}

/// Whether a key with this name was indented wrongly: it is known in the same section, or one of the two stands at the
/// top. The same name in another section means something else.
fn is_misplaced(path: &str, name: &str, parent: &str) -> bool {
    let (section, of_parent) = (path.split('.').next(), parent.split('.').next());
    path.rsplit('.').next() == Some(name) && (parent.is_empty() || !path.contains('.') || section == of_parent)
}

/// Names that may stand below a path.
fn children_of(parent: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = all()
        .filter_map(|key| match parent {
            "" => Some(key.path),
            _ => key.path.strip_prefix(parent)?.strip_prefix('.'),
        })
        .filter_map(|rest| rest.split('.').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Variables that Spantap reads beside those of the table.
const OTHERS: &[&str] = &["SPANTAP_CONFIG_PATH", "OTEL_EBPF_CONFIG_PATH", "BEYLA_CONFIG_PATH"];

/// Variables of the OpenTelemetry specification that change what an SDK does and that Spantap does not serve.
const SPECIFICATION: &[(&str, &str)] = &[
    ("OTEL_CONFIG_FILE", ""),
    ("OTEL_BSP_EXPORT_TIMEOUT", "30000"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "30000"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", ""),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", ""),
];

/// Begins names that the specification gives to exporters of OTLP; the exceptions are for signals that Spantap does not have.
const EXPORTERS: (&str, [&str; 2]) =
    ("OTEL_EXPORTER_OTLP_", ["OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_PROFILES_"]);

/// Warnings for variables that are set without an effect: those of keys that are not served, and names in
/// Spantap's and Beyla's families and among those of OTLP exporters that nobody knows.
pub(crate) fn check_variables(env: &Environment) -> Vec<Warning> {
    let mut known: Vec<(String, &Key)> = Vec::new();
    for key in all() {
        for name in key.variables.split_whitespace() {
            known.extend(family(name).into_iter().map(|name| (name, key)));
        }
    }
    let mut warnings = Vec::new();
    let mut warn = |name: &str, message: String| {
        warnings.push(Warning { place: Place::Variable(name.to_owned()), message });
    };
    for name in env.names() {
        let value = env.get(name).unwrap_or_default();
        if let Some((_, harmless)) = SPECIFICATION.iter().find(|(known, _)| *known == name) {
            if !value.eq_ignore_ascii_case(harmless) {
                warn(name, "not served yet, no effect".to_owned());
            }
            continue;
        }
        if let Some((_, key)) = known.iter().find(|(known, _)| known == name) {
            if !key.served && !key.is_harmless(value) {
                warn(name, format!("{} is not served yet, no effect", key.path));
            }
            continue;
        }
        let (exporters, foreign) = EXPORTERS;
        let ours = ["SPANTAP_", "OTEL_EBPF_", "BEYLA_", exporters].iter().any(|prefix| name.starts_with(prefix))
            && !foreign.iter().any(|prefix| name.starts_with(prefix));
        if ours && !OTHERS.contains(&name) && !is_service_link(name) {
            let near = nearest(name, known.iter().map(|(known, _)| known.as_str()).chain(OTHERS.iter().copied()));
            warn(
                name,
                format!("unknown variable{}", near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()),
            );
        }
    }
    warnings
}

/// Kubernetes sets `BEYLA_SERVICE_HOST`, `BEYLA_PORT`, `BEYLA_PORT_4318_TCP_ADDR` … for a Service called `beyla`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
        || matches!(name, "SPANTAP_PORT" | "BEYLA_PORT" | "OTEL_EBPF_PORT")
}

/// A function from positions in a file to places.
pub(crate) fn places(path: &Arc<std::path::PathBuf>) -> impl Fn(Position) -> Place + use<> {
    let path = Arc::clone(path);
    move |at| Place::File { path: Arc::clone(&path), line: at.line, column: at.column }
}
