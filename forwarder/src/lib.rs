//! The forwarder: raw socket events in, OpenTelemetry traces and metrics out.
//!
//! # Layout
//! `ingest` takes batches from the agent · `model` holds what they become · `exchange` pairs socket events to
//! HTTP exchanges · `loss` counts what is lost, by reason.

pub mod exchange;
pub mod loss;
pub mod model;
