//! Replays what the fuzz targets have found worth keeping (`fuzz/corpus`), and what once was a finding.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/hostile.rs"]
mod hostile;

use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus of {target} is not there");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        std::panic::catch_unwind(|| run(&bytes)).unwrap_or_else(|_| panic!("{}", file.display()));
    }
}

#[test]
fn bytes_of_an_agent() {
    replay("agent_bytes", hostile::agent_bytes);
}

#[test]
fn events_of_an_agent() {
    replay("agent_events", hostile::agent_events);
}

#[test]
fn heads() {
    replay("heads", hostile::heads);
}
