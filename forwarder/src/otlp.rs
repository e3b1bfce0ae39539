//! OTLP protobuf, written directly.
//!
//! In: observations, series, resources. Out: bytes of `ExportTraceServiceRequest` and `ExportMetricsServiceRequest`.
//! Spans are the hot path: building the generated types and encoding them afterwards costs an allocation per
//! attribute, so the messages are written field by field (field numbers: opentelemetry-proto v1.10.0). The tests
//! decode what is written with the `opentelemetry-proto` crate. `json` turns the result into OTLP/JSON for who wants that.

pub mod json;
pub mod metric;
pub mod request;
pub mod span;
pub(crate) mod wire;
