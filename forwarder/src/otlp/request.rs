//! Envelopes: resource and scope around spans or metrics that are already encoded.
//!
//! In: an encoded resource and encoded spans or metrics. Out: one `ResourceSpans` or `ResourceMetrics` as field 1 of the
//! request; a request is these one after the other.

use super::{
    span::scope,
    wire::{bytes, field_len, header},
};
use crate::semconv::SCHEMA_URL;

/// Appends one resource's spans or metrics. `resource` is an encoded `Resource`, `items` a run of `ScopeSpans.spans` or
/// `ScopeMetrics.metrics` fields: both messages have the same shape.
pub fn append_resource(out: &mut Vec<u8>, resource: &[u8], items: &[u8]) {
    let mut scope_field = Vec::with_capacity(32);
    scope(&mut scope_field);
    let schema = SCHEMA_URL.as_bytes();
    let scoped = scope_field.len() + items.len() + field_len(schema.len());
    header(out, 0x0a, field_len(resource.len()) + field_len(scoped) + field_len(schema.len()));
    bytes(out, 0x0a, resource);
    header(out, 0x12, scoped);
    out.extend_from_slice(&scope_field);
    out.extend_from_slice(items);
    bytes(out, 0x1a, schema);
    bytes(out, 0x1a, schema);
}

/// Bytes that [`append_resource`] adds at most to those of resource and items.
pub const ENVELOPE: usize = 256;
