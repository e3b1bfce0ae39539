//! Durations of exchanges as histograms: each exchange is measured once, before sampling and whatever becomes of its span.
//!
//! In: observations. Out: series per process, read by the OTLP export and by the scrape endpoint.

pub mod exemplar;
pub mod exponential;
pub mod histogram;
pub mod registry;
pub mod series;
