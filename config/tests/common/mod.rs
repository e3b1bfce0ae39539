//! Loading from a text and some variables.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;

use spantap_config::{Config, ConfigError, Environment, Loaded};

pub(crate) fn try_load(yaml: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Config::parse(Path::new("config.yml"), yaml, &Environment::of(variables.iter().copied()))
}

pub(crate) fn load(yaml: &str, variables: &[(&str, &str)]) -> Loaded {
    try_load(yaml, variables).unwrap_or_else(|error| panic!("{error}\nin\n{yaml}\nwith {variables:?}"))
}

/// Without a single warning.
pub(crate) fn clean(yaml: &str, variables: &[(&str, &str)]) -> Config {
    let loaded = load(yaml, variables);
    assert_eq!(loaded.warnings, [], "in\n{yaml}\nwith {variables:?}");
    loaded.config
}

/// Text of the error.
pub(crate) fn error(yaml: &str, variables: &[(&str, &str)]) -> String {
    match try_load(yaml, variables) {
        Ok(loaded) => panic!("loaded {:?}\nfrom\n{yaml}\nwith {variables:?}", loaded.warnings),
        Err(error) => error.to_string(),
    }
}

/// Texts of the warnings.
pub(crate) fn warnings(yaml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load(yaml, variables).warnings.iter().map(ToString::to_string).collect()
}
