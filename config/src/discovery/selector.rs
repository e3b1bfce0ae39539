//! In: a list of discovery entries. Out: selectors, each with at least one criterion.

use super::listed;
use crate::{
    error::ConfigError,
    given::Given,
    routes, sampling,
    settings::Settings,
    suggest::{nearest, one_of},
    types::{Exports, Glob, Selector},
    values,
    yaml::Entry,
};

/// How patterns of an entry are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// `instrument` and its exclusions.
    Glob,
    /// The legacy `services` and their exclusions.
    Regex,
}

pub(super) const PORTS: &str = "ports: 443, \"80,8000-8999\" or [80, 443]";
pub(super) const PIDS: &str = "process ids: 1234, \"1234,2000-2100\" or [1234, 5678]";

/// Languages that a process may be of.
const LANGUAGES: [&str; 9] = ["go", "java", "dotnet", "nodejs", "python", "ruby", "rust", "php", "generic"];

/// Criteria and overrides that are served.
#[rustfmt::skip]
const SERVED: [&str; 12] = [
    "open_ports", "exe_path", "cmd_args", "languages", "target_pids", "containers_only", "name", "namespace", "exports",
    "sampler", "routes", "exe_path_regexp",
];

/// Criteria of Beyla's that need metadata which Spantap does not have yet.
#[rustfmt::skip]
const CRITERIA_LATER: [&str; 14] = [
    "container_name", "k8s_namespace", "k8s_pod_name", "k8s_deployment_name", "k8s_replicaset_name", "k8s_statefulset_name",
    "k8s_daemonset_name", "k8s_job_name", "k8s_cronjob_name", "k8s_owner_name", "k8s_container_name", "k8s_pod_labels",
    "k8s_pod_annotations", "k8s_node_name",
];

/// Overrides of Beyla's whose absence changes how something is exported, not what is observed.
const OVERRIDES_LATER: [&str; 1] = ["metrics"];

/// Every name that may stand in an entry, for the test that none is forgotten and for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SERVED.into_iter().chain(CRITERIA_LATER).chain(OVERRIDES_LATER)
}

/// Reads all entries of a list.
pub(super) fn selectors(
    given: &Given<'_>,
    syntax: Syntax,
    settings: &mut Settings<'_>,
) -> Result<Vec<Selector>, ConfigError> {
    let Some(items) = given.nodes() else { return Err(given.invalid("a list of entries, each with its criteria")) };
    items.iter().map(|item| selector(item, syntax, settings)).collect()
}

fn selector(given: &Given<'_>, syntax: Syntax, settings: &mut Settings<'_>) -> Result<Selector, ConfigError> {
    let mut selector = Selector::default();
    let mut regexp = None;
    for (entry, value) in given.entries()? {
        let name = entry.key.as_str();
        // A criterion without a value (a variable that is not set, say) must not widen the selection in silence.
        if value.is_null()
            && !matches!(name, "name" | "namespace" | "exports" | "sampler" | "routes")
            && names().any(|known| known == name)
        {
            return Err(value.invalid("a value; without this criterion the entry would select more"));
        }
        match name {
            "open_ports" => selector.open_ports = listed(&value, values::ports, PORTS)?,
            "exe_path" => selector.exe_path = Some(pattern(&value, syntax)?),
            "exe_path_regexp" if syntax == Syntax::Regex => regexp = Some(pattern(&value, syntax)?),
            "cmd_args" => selector.cmd_args = Some(pattern(&value, syntax)?),
            "languages" => selector.languages = languages(&value)?,
            "target_pids" => selector.target_pids = listed(&value, values::pids, PIDS)?,
            "containers_only" => selector.containers_only = value.boolean()?,
            "name" => selector.name = optional(&value)?,
            "namespace" => selector.namespace = optional(&value)?,
            "exports" => selector.exports = exports(&value, settings)?,
            "sampler" | "routes" if value.is_null() => {}
            "sampler" => selector.sampler = sampling::of_service(&value)?,
            "routes" => selector.routes = routes::of_service(&value)?,
            _ if CRITERIA_LATER.contains(&name) => {
                return Err(
                    value.unsupported("this criterion is not supported yet; without it the entry would select more")
                );
            }
            _ if OVERRIDES_LATER.contains(&name) => {
                settings.warn(given.at(entry.key_at), format!("{}: not served yet, no effect", value.key));
            }
            _ => return Err(unknown(given, entry, syntax)),
        }
    }
    // As in Beyla, `exe_path` decides where both are given.
    selector.exe_path = selector.exe_path.or(regexp);
    if !has_criterion(&selector) {
        return Err(given.invalid_as(
            "an entry without a criterion",
            "at least one of open_ports, exe_path, cmd_args, languages, target_pids, containers_only",
        ));
    }
    Ok(selector)
}

fn has_criterion(selector: &Selector) -> bool {
    !selector.open_ports.is_empty()
        || selector.exe_path.is_some()
        || selector.cmd_args.is_some()
        || !selector.languages.is_empty()
        || !selector.target_pids.is_empty()
        || selector.containers_only
}

fn unknown(given: &Given<'_>, entry: &Entry, syntax: Syntax) -> ConfigError {
    let fits = |name: &&str| syntax == Syntax::Regex || *name != "exe_path_regexp";
    let hint = match nearest(&entry.key, names().filter(fits)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", one_of(SERVED.into_iter().filter(fits))),
    };
    ConfigError::UnknownKey {
        place: given.at(entry.key_at),
        key: format!("{}.{}", given.key, entry.key),
        hint: Some(hint),
    }
}

/// A text that may be missing.
fn optional(given: &Given<'_>) -> Result<Option<String>, ConfigError> {
    if given.is_null() {
        return Ok(None);
    }
    Ok(Some(given.text()?.to_owned()).filter(|text| !text.is_empty()))
}

/// A glob or a regular expression.
pub(super) fn pattern(given: &Given<'_>, syntax: Syntax) -> Result<Glob, ConfigError> {
    let text = given.some_text()?;
    match syntax {
        Syntax::Glob => Glob::new(text).map_err(|error| given.invalid(&format!("a glob ({error})"))),
        Syntax::Regex => {
            Glob::from_regex(text).map_err(|error| given.invalid(&format!("a regular expression ({error})")))
        }
    }
}

/// Languages: names, a list of names, or a glob on names such as `{go,java}`.
pub(super) fn languages(given: &Given<'_>) -> Result<Vec<String>, ConfigError> {
    let parts = match given.nodes() {
        Some(items) => items,
        // A comma inside of braces belongs to the glob.
        None if given.text()?.contains('{') => vec![given.clone()],
        None => given.items()?,
    };
    let mut found: Vec<String> = Vec::new();
    for part in &parts {
        let glob = pattern(part, Syntax::Glob)?;
        let matching: Vec<&str> = LANGUAGES.into_iter().filter(|language| glob.matches(language)).collect();
        if matching.is_empty() {
            return Err(part.invalid(&one_of(LANGUAGES)));
        }
        for language in matching {
            if !found.iter().any(|known| known == language) {
                found.push(language.to_owned());
            }
        }
    }
    if found.is_empty() { Err(given.invalid(&one_of(LANGUAGES))) } else { Ok(found) }
}

/// `[metrics, traces]`; `[]` exports nothing; nothing at all means everything.
fn exports(given: &Given<'_>, settings: &mut Settings<'_>) -> Result<Exports, ConfigError> {
    if given.is_null() {
        return Ok(Exports::default());
    }
    let mut exports = Exports { traces: false, metrics: false };
    for item in given.items()? {
        match item.word(&[("metrics", 0), ("traces", 1), ("logs", 2)])? {
            0 => exports.metrics = true,
            1 => exports.traces = true,
            _ => settings.warn(item.place(), format!("{}: logs are not served yet, no effect", item.key)),
        }
    }
    Ok(exports)
}
