//! Tests of exchanges through the public interface, with a kernel side that is played.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod ends;
mod handover;
mod holes;
mod http2;
mod kit;
mod odd;
mod plan;
mod properties;
mod recorder;
mod reorder;
mod table;
mod traffic;
