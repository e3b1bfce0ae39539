//! Spantap's own keys for what the `OTEL_EXPORTER_OTLP_*` variables say: for both signals, and for one.

use super::{Key, served};

macro_rules! options {
    ($($path:literal, $variables:literal;)*) => {
        &[$(
            served(concat!("spantap.otlp.", $path, "headers"), concat!("OTEL_EXPORTER_OTLP_", $variables, "HEADERS")),
            served(concat!("spantap.otlp.", $path, "headers_file"), concat!("SPANTAP_OTLP_", $variables, "HEADERS_FILE")),
            served(concat!("spantap.otlp.", $path, "timeout"), concat!("OTEL_EXPORTER_OTLP_", $variables, "TIMEOUT")),
            served(concat!("spantap.otlp.", $path, "compression"), concat!("OTEL_EXPORTER_OTLP_", $variables, "COMPRESSION")),
            served(concat!("spantap.otlp.", $path, "certificate"), concat!("OTEL_EXPORTER_OTLP_", $variables, "CERTIFICATE")),
            served(concat!("spantap.otlp.", $path, "client_key"), concat!("OTEL_EXPORTER_OTLP_", $variables, "CLIENT_KEY")),
            served(
                concat!("spantap.otlp.", $path, "client_certificate"),
                concat!("OTEL_EXPORTER_OTLP_", $variables, "CLIENT_CERTIFICATE"),
            ),
            served(concat!("spantap.otlp.", $path, "insecure"), concat!("OTEL_EXPORTER_OTLP_", $variables, "INSECURE")),
        )*]
    };
}

/// Those of both signals' endpoints. Endpoint and protocol of one signal are Beyla's keys.
pub(super) const GENERAL: &[Key] = &[
    served("spantap.otlp.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    served("spantap.otlp.protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
];

/// What there is in general and for each signal.
pub(super) const OPTIONS: &[Key] = options! {
    "", "";
    "traces.", "TRACES_";
    "metrics.", "METRICS_";
};
