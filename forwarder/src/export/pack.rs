//! Bodies as they go on the wire.
//!
//! In: an encoded protobuf request. Out: the same as protobuf, JSON or a gRPC message, compressed or not, within the limits.

use std::io::{Read, Write};

use bytes::Bytes;
use spantap_config::{Compression, Otlp, OtlpProtocol, Signal};

use crate::otlp::json::{self, Message};

/// Largest request, before and after compression (exporter specification, maximum request size).
pub(super) const MAX_REQUEST: usize = 64 << 20;
/// Bodies above this are compressed or made JSON off the runtime's thread.
const INLINE: usize = 32 << 10;
/// A gRPC message begins with its compression and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const GRPC_PREFIX: usize = 5;

/// A body as it goes on the wire.
#[derive(Debug, Clone)]
pub struct Packed {
    pub(super) body: Bytes,
    pub(super) gzip: bool,
}

/// How bodies are packed for a destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    json: Option<&'static Message>,
    grpc: bool,
    gzip: bool,
}

impl Packing {
    pub(super) fn of(otlp: &Otlp) -> Self {
        let message = match otlp.signal {
            Signal::Traces => &json::TRACES_REQUEST,
            Signal::Metrics => &json::METRICS_REQUEST,
        };
        Self {
            json: (otlp.protocol == OtlpProtocol::HttpJson).then_some(message),
            grpc: otlp.protocol == OtlpProtocol::Grpc,
            gzip: otlp.compression == Compression::Gzip,
        }
    }

    /// `None` if the request is larger than one may be.
    pub(super) async fn pack(self, body: Bytes) -> Option<Packed> {
        if body.len() > MAX_REQUEST {
            return None;
        }
        if !self.gzip && self.json.is_none() || body.len() <= INLINE {
            return self.work(body);
        }
        tokio::task::spawn_blocking(move || self.work(body)).await.ok().flatten()
    }

    fn work(self, mut body: Bytes) -> Option<Packed> {
        if let Some(message) = self.json {
            match json::transcode(message, &body) {
                Ok(text) => body = text.into(),
                Err(error) => {
                    tracing::error!("a request cannot be sent as JSON, please report this: {error}");
                    return None;
                }
            }
        }
        if body.len() > MAX_REQUEST {
            return None;
        }
        // Compression to memory does not fail; if it did, the plain body is as good.
        let compressed = if self.gzip { gzip(&body) } else { None };
        let gzip = compressed.is_some();
        let body = compressed.map_or(body, Bytes::from);
        let body = if self.grpc { framed(&body, gzip)? } else { body };
        (body.len() <= MAX_REQUEST + GRPC_PREFIX).then_some(Packed { body, gzip })
    }
}

fn framed(message: &[u8], compressed: bool) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    let mut frame = Vec::with_capacity(GRPC_PREFIX + message.len());
    frame.push(u8::from(compressed));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    Some(frame.into())
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 8), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// What `body` holds uncompressed; `None` if that is more than `most` bytes, or no gzip.
pub(super) fn gunzip(body: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = u64::try_from(most).ok()?.saturating_add(1);
    flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut plain).ok()?;
    (plain.len() <= most).then_some(plain)
}
