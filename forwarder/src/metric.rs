//! Metrics of exchanges and of processes: each exchange is measured once, before sampling and whatever becomes of its span.
//!
//! In: observations, readings of processes. Out: series per process and instrument, read by the OTLP export and by the scrape
//! endpoint.

pub mod attribute;
pub mod exemplar;
pub mod exponential;
pub mod histogram;
pub mod instrument;
pub mod plan;
pub mod point;
pub mod registry;
pub mod series;
mod usage;
