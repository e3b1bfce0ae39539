//! The wire between `spantap-agent` and `spantap`: generated types and the version, nothing else.
//!
//! The protocol is described in `ingest.proto`.

/// Types generated from `ingest.proto`; with the feature `service` also client and server for tonic.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::indexing_slicing)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/spantap.v1.rs"));
}

/// Version of `ingest.proto`; both ends refuse any other.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest encoded `Batch` that the agent makes and the forwarder takes, in bytes.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
