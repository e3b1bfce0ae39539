//! In: how metrics are aggregated and scraped. Out: lines of the effective configuration; no password.

use super::{Lines, quoted};
use crate::types::{Aggregation, ExemplarFilter, Histograms, Scrape, Temporality};

pub(super) fn aggregation(out: &mut Lines, depth: usize, of: Aggregation) {
    let temporality = match of.temporality {
        Temporality::Cumulative => "cumulative",
        Temporality::Delta => "delta",
        Temporality::LowMemory => "lowmemory",
    };
    out.line(depth, &format!("temporality: {temporality}"));
    match of.histograms {
        Histograms::Explicit => out.line(depth, "histogram_aggregation: explicit_bucket_histogram"),
        Histograms::Exponential { max_scale, max_size } => {
            out.line(depth, "histogram_aggregation: base2_exponential_bucket_histogram");
            out.line(depth, &format!("exponential_histogram: {{max_scale: {max_scale}, max_size: {max_size}}}"));
        }
    }
    out.line(depth, &format!("exemplar_filter: {}", filter(of.exemplars)));
}

pub(super) fn scrape(out: &mut Lines, of: &Scrape) {
    out.line(1, &format!("exemplar_filter: {}", filter(of.exemplars)));
    out.line(1, &format!("disable_build_info: {}", !of.build_info));
    if let Some((certificate, key)) = &of.tls {
        out.line(1, &format!("tls_certificate: {}", quoted(&certificate.to_string_lossy())));
        out.line(1, &format!("tls_key: {}", quoted(&key.to_string_lossy())));
    }
    if let Some((username, _)) = &of.basic_auth {
        out.line(1, &format!("basic_auth: {{username: {}, password: \"[redacted]\"}}", quoted(username)));
    }
}

fn filter(of: ExemplarFilter) -> &'static str {
    match of {
        ExemplarFilter::TraceBased => "trace_based",
        ExemplarFilter::AlwaysOn => "always_on",
        ExemplarFilter::AlwaysOff => "always_off",
    }
}
