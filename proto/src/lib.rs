//! The wire between `spantap-agent` and `spantap`: generated types and the version, nothing else.
//!
//! The protocol is described in `ingest.proto`.

/// Types generated from `ingest.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::indexing_slicing)]
pub mod v1 {
    tonic::include_proto!("spantap.v1");
}

/// Version of `ingest.proto`; both ends refuse any other.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest encoded `Batch` that the agent makes and the forwarder takes, in bytes.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
