//! The reference names what the program says.
#![allow(missing_docs)]

use std::sync::Arc;

use spantap::{
    loss::Reason,
    telemetry::{Telemetry, snapshot},
};

const REFERENCE: &str = include_str!("../../docs/telemetry.md");

#[test]
fn every_reason_of_loss_has_its_row() {
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} | ", reason.name(), reason.unit());
        assert!(REFERENCE.contains(&row), "docs/telemetry.md lacks {row}");
    }
}

#[test]
fn every_metric_of_the_program_is_described() {
    for measure in snapshot::measures(&Telemetry::new(Arc::default())) {
        let name = format!("`{}`", measure.name);
        assert!(REFERENCE.contains(&name), "docs/telemetry.md lacks {name}");
    }
}
