//! Every configuration that the documents show can be read as it stands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod common;

use std::path::Path;

/// First keys of what is a configuration, or a part of one.
const TOP: [&str; 8] = [
    "discovery",
    "routes",
    "otel_traces_export",
    "otel_metrics_export",
    "prometheus_export",
    "attributes",
    "metrics",
    "spantap",
];

/// Blocks of code: lines that are indented by four blanks, without these.
fn blocks(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(code) => found.last_mut().unwrap().extend([code, "\n"]),
            None if line.is_empty() => {}
            None if found.last().is_some_and(|block| !block.is_empty()) => found.push(String::new()),
            None => {}
        }
    }
    found
}

fn is_configuration(block: &str) -> bool {
    let first = block.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    first.split_once(':').is_some_and(|(key, _)| TOP.contains(&key))
}

#[test]
fn what_the_documents_show_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let documents = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for document in documents.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        for block in blocks(&std::fs::read_to_string(&document).unwrap()).iter().filter(|block| is_configuration(block))
        {
            // Files that are there only where it is used.
            let mut shown = block.clone();
            while let Some((before, rest)) = shown.split_once("${file:") {
                shown = format!("{before}SECRET{}", rest.split_once('}').unwrap().1);
            }
            if let Err(error) = common::try_load(&shown, &[("SCRAPE_PASSWORD", "p")]) {
                panic!("{}: {error}\n{shown}", document.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} configurations were found");
}
