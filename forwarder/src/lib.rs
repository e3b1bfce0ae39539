//! The forwarder: raw socket events in, OpenTelemetry traces and metrics out.
//!
//! # Layout
//! `ingest` takes batches from the agent · `model` holds what they become · `exchange` pairs socket events to
//! HTTP exchanges · `loss` counts what is lost, by reason.
//!
//! From an exchange on, one way: `pipeline` leads it through · `observation` works out what it means · `trace` gives it
//! identity · `resource` says who it was · `metric` measures it · `otlp` writes the bytes · `export` delivers them ·
//! `prometheus` and `console` show the same · `telemetry` keeps the books · `admin` shows those; both serve over `serve`,
//! at `endpoints`. `doctor` looks at all of it without starting anything.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod confinement;
pub mod console;
pub mod doctor;
pub mod endpoints;
pub mod exchange;
pub mod export;
pub mod health;
pub mod ingest;
pub mod link;
pub mod loss;
pub mod metric;
pub mod model;
pub mod observation;
pub mod otlp;
pub mod pipeline;
pub mod privilege;
pub mod prometheus;
pub mod resource;
pub mod run;
pub mod semconv;
pub mod serve;
pub mod telemetry;
pub mod trace;
pub mod value;

// The tests' samples name this crate as the integration tests do.
#[cfg(test)]
extern crate self as spantap;
#[cfg(test)]
#[path = "../tests/support/sample.rs"]
mod sample;
