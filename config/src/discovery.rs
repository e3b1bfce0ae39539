//! In: `discovery`, and the shortcuts at the top level. Out: selectors and exclusions.
//!
//! A criterion that is not understood is an error, never skipped: the criteria of an entry are ANDed, so leaving one out would
//! observe more than was asked for.

mod selector;

use std::time::Duration;

use crate::{
    error::{ConfigError, Place},
    given::Given,
    settings::Settings,
    types::{Discovery, Glob, Selector},
    values,
};
use selector::{Syntax, languages, pattern, selectors};

/// How often `/proc` is looked through unless somebody says otherwise; what Beyla makes of zero, too.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Executables that are not observed unless `default_exclude_instrument` says otherwise: Beyla's defaults, and Spantap itself.
const DEFAULT_EXCLUDED: [&str; 2] = [
    "{*beyla,*alloy,*prometheus-config-reloader,*ebpf-instrument,*obi,*otelcol,*otelcol-contrib,*otelcol-contrib[!/]*}",
    "*/{spantap,spantap-agent}",
];

/// Reads what is to be observed.
pub(crate) fn discovery(settings: &mut Settings<'_>) -> Result<Discovery, ConfigError> {
    let poll_interval = match settings.get("discovery.poll_interval") {
        Some(given) => Some(given.duration()?).filter(|interval| !interval.is_zero()),
        None => None,
    };
    let instrument = list(settings, "discovery.instrument", Syntax::Glob)?;
    let exclude = list(settings, "discovery.exclude_instrument", Syntax::Glob)?;
    let services = list(settings, "discovery.services", Syntax::Regex)?;
    let exclude_services = list(settings, "discovery.exclude_services", Syntax::Regex)?;
    let default_exclude = list(settings, "discovery.default_exclude_instrument", Syntax::Glob)?;
    let default_exclude_services = list(settings, "discovery.default_exclude_services", Syntax::Regex)?;

    let given = |entries: &Option<Entries>| entries.as_ref().is_some_and(|entries| !entries.selectors.is_empty());
    let legacy = (given(&services) || given(&exclude_services)) && !given(&instrument) && !given(&exclude);
    if !legacy {
        for (name, entries) in [("discovery.services", &services), ("discovery.exclude_services", &exclude_services)] {
            if let Some(entries) = entries.as_ref().filter(|entries| !entries.selectors.is_empty()) {
                settings.warn(
                    entries.place.clone(),
                    format!("{name}: no effect beside discovery.instrument or exclude_instrument"),
                );
            }
        }
    }

    let (instrument, exclude, defaults) = if legacy {
        (services, exclude_services, default_exclude_services.or(default_exclude))
    } else {
        (instrument, exclude, default_exclude)
    };
    if let Some(entries) = instrument.as_ref().filter(|entries| entries.selectors.is_empty()) {
        settings.warn(entries.place.clone(), "discovery.instrument: no entry: every process is observed");
    }
    let instrument = shortcuts(settings, instrument.map(|entries| entries.selectors).unwrap_or_default())?;
    survey(settings, instrument.is_empty())?;

    let mut exclude = exclude.map(|entries| entries.selectors).unwrap_or_default();
    match defaults {
        Some(entries) => exclude.extend(entries.selectors),
        None => exclude.extend(default_excluded()?),
    }
    Ok(Discovery { instrument, exclude, poll_interval: poll_interval.unwrap_or(POLL_INTERVAL) })
}

/// A list of entries, and where it stands.
struct Entries {
    place: Place,
    selectors: Vec<Selector>,
}

fn list(settings: &mut Settings<'_>, key: &'static str, syntax: Syntax) -> Result<Option<Entries>, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(None) };
    let selectors = selectors(&given, syntax, settings)?;
    Ok(Some(Entries { place: given.place(), selectors }))
}

fn default_excluded() -> Result<Vec<Selector>, ConfigError> {
    DEFAULT_EXCLUDED
        .iter()
        .map(|glob| {
            let exe_path = Glob::new(glob).map_err(|error| ConfigError::Unsupported {
                place: Place::Effective,
                key: "discovery.default_exclude_instrument".to_owned(),
                message: error.to_string(),
            })?;
            Ok(Selector { exe_path: Some(exe_path), ..Selector::default() })
        })
        .collect()
}

/// Adds what the shortcuts select to the entries. As in Beyla: `target_pids` alone decides where it is given; the others
/// make one entry, all of whose criteria must hold.
fn shortcuts(settings: &mut Settings<'_>, mut entries: Vec<Selector>) -> Result<Vec<Selector>, ConfigError> {
    if let Some(given) = settings.get("target_pids") {
        if !entries.is_empty() {
            settings.warn(
                given.place(),
                "target_pids: the only criterion: the entries of discovery have no effect beside it",
            );
        }
        let target_pids = listed(&given, values::pids, selector::PIDS)?;
        return Ok(vec![Selector { target_pids, ..Selector::default() }]);
    }
    let mut shortcut = Selector::default();
    let exe_glob = settings.get("AutoTargetExe");
    let exe_regex = settings.get("executable_name").or_else(|| settings.get("executable_path"));
    if let Some(given) = settings.get("open_port") {
        shortcut.open_ports = listed(&given, values::ports, selector::PORTS)?;
    }
    if let Some(given) = settings.get("AutoTargetLanguage") {
        shortcut.languages = languages(&given)?;
    }
    match (exe_glob, exe_regex) {
        (Some(given), regex) => {
            shortcut.exe_path = Some(pattern(&given, Syntax::Glob)?);
            if let Some(regex) = regex {
                settings.warn(regex.place(), format!("{}: no effect beside {}", regex.key, given.place()));
            }
        }
        (None, Some(given)) => shortcut.exe_path = Some(pattern(&given, Syntax::Regex)?),
        (None, None) => {}
    }
    if shortcut != Selector::default() {
        entries.push(shortcut);
    }
    Ok(entries)
}

/// Ranges of a shortcut or an entry: `80`, `"80,8000-8999"`, `[80, 443]`.
fn listed<T>(given: &Given<'_>, parse: fn(&str) -> Option<Vec<T>>, expected: &str) -> Result<Vec<T>, ConfigError> {
    let Some(items) = given.nodes() else {
        return parse(given.text()?).ok_or_else(|| given.invalid(expected));
    };
    if items.is_empty() {
        return Err(given.invalid(expected));
    }
    let mut ranges = Vec::new();
    for item in items {
        ranges.extend(parse(item.text()?).ok_or_else(|| item.invalid(expected))?);
    }
    Ok(ranges)
}

/// `survey` asks for services to be found without being observed. Without an entry that selects for observation,
/// leaving it out would observe everything.
fn survey(settings: &mut Settings<'_>, nothing_selected: bool) -> Result<(), ConfigError> {
    let Some(given) = settings.get("discovery.survey") else { return Ok(()) };
    if given.nodes().is_some_and(|entries| entries.is_empty()) {
        return Ok(());
    }
    if nothing_selected {
        return Err(given.unsupported(
            "survey mode is not served yet; without an entry in discovery.instrument every process would be observed",
        ));
    }
    settings.warn(given.place(), "discovery.survey: not served yet, no effect");
    Ok(())
}
