//! In: values of the variables that the OpenTelemetry specification defines. Out: their types by the specification's rules: what
//! cannot be read is reported and counts as unset ("Environment Variable Specification", parsing).

use std::time::Duration;

use crate::{
    error::{ConfigError, shown},
    given::Given,
    settings::Settings,
};

/// A duration or a time limit in milliseconds.
pub(crate) fn milliseconds(settings: &mut Settings<'_>, given: &Given<'_>) -> Result<Option<Duration>, ConfigError> {
    // Ten years, as for other durations.
    const MOST: u64 = 10 * 365 * 24 * 3600 * 1000;
    let text = given.text()?;
    let number = text.trim().parse::<u64>().ok().filter(|number| *number <= MOST);
    Ok(read(settings, given, text, number, "milliseconds as a whole number").map(Duration::from_millis))
}

/// A number from `least` on.
pub(crate) fn count(
    settings: &mut Settings<'_>,
    given: &Given<'_>,
    least: usize,
    most: usize,
) -> Result<Option<usize>, ConfigError> {
    let text = given.text()?;
    let number = text.trim().parse::<usize>().ok().filter(|number| (least..=most).contains(number));
    Ok(read(settings, given, text, number, &format!("a whole number from {least} to {most}")))
}

/// One of some words, without regard to case.
pub(crate) fn word<T: Copy>(
    settings: &mut Settings<'_>,
    given: &Given<'_>,
    words: &[(&'static str, T)],
) -> Result<Option<T>, ConfigError> {
    let text = given.text()?;
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())).map(|(_, value)| *value);
    let expected = crate::suggest::one_of(words.iter().map(|(word, _)| *word));
    Ok(read(settings, given, text, found, &expected))
}

/// True only for `true`.
pub(crate) fn boolean(settings: &mut Settings<'_>, given: &Given<'_>) -> Result<bool, ConfigError> {
    Ok(word(settings, given, &[("true", true), ("false", false)])?.unwrap_or(false))
}

fn read<T>(settings: &mut Settings<'_>, given: &Given<'_>, text: &str, value: Option<T>, expected: &str) -> Option<T> {
    if value.is_none() {
        settings.warn(given.place(), format!("found {}, expected {expected}; ignored", shown(text)));
    }
    value
}
