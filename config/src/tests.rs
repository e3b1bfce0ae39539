//! The table of keys against the code that reads it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod served;

use std::{collections::BTreeSet, path::Path};

use crate::{Config, Environment, keys};

/// YAML with `value` at a path.
fn at(path: &str, value: &str) -> String {
    let names: Vec<&str> = path.split('.').collect();
    let mut text = String::new();
    for (depth, name) in names.iter().enumerate() {
        text.push_str(&format!("{:indent$}{name}:", "", indent = depth * 2));
        if depth + 1 < names.len() {
            text.push('\n');
        }
    }
    format!("{text} {value}\n")
}

fn load(yaml: &str) -> Result<crate::Loaded, crate::ConfigError> {
    Config::parse(Path::new("c.yml"), yaml, &Environment::of([("HOME", "/root")]))
}

#[test]
fn no_path_is_in_the_table_twice_or_below_another() {
    let paths: Vec<&str> = keys::all().map(|key| key.path).collect();
    let set: BTreeSet<&str> = paths.iter().copied().collect();
    assert_eq!(set.len(), paths.len());
    for path in &paths {
        let inside = paths.iter().find(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
        assert_eq!(inside, None, "{path} holds a value and keys");
    }
    // Beyla's schema has 281 paths; `executable_path` is the name of OBI.
    assert_eq!(paths.iter().filter(|path| !path.starts_with("spantap.") && **path != "executable_path").count(), 281);
}

#[test]
fn every_key_is_recognised_and_its_neighbour_is_not() {
    for key in keys::all() {
        let loaded = load(&at(key.path, "~")).unwrap_or_else(|error| panic!("{}: {error}", key.path));
        assert_eq!(loaded.warnings, [], "{}", key.path);
        let wrong = format!("{}x", key.path);
        let error = load(&at(&wrong, "1")).unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong}: unknown key")) && error.starts_with("c.yml:"), "{error}");
        let name = key.path.rsplit('.').next().unwrap();
        assert!(error.contains(&format!("did you mean `{name}`?")), "{error}");
    }
}

#[test]
fn a_key_that_is_not_served_warns_and_its_variables_do_too() {
    for key in keys::all().filter(|key| !key.served) {
        let warnings = load(&at(key.path, "7654321")).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{}: {warnings:?}", key.path);
        let message = &warnings[0].message;
        let named = message.split(':').next().unwrap();
        assert!(key.path == named || key.path.starts_with(&format!("{named}.")), "{}: {message}", key.path);
        for name in key.variables.split_whitespace() {
            for name in crate::environment::family(name) {
                let env = Environment::of([(name.as_str(), "7654321")]);
                let warnings = Config::load(None, &env).unwrap().warnings;
                assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
                assert_eq!(warnings[0].place.to_string(), name);
            }
        }
    }
}
