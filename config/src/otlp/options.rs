//! In: an option of OTLP and a signal. Out: the value that counts: of the signal before general, each from the environment
//! before the file (exporter specification: options of a signal override general ones, and are not merged with them).

use super::Signal;
use crate::{given::Given, settings::Settings};

/// Keys of an option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    traces: &'static str,
    metrics: &'static str,
    general: &'static str,
}

macro_rules! names {
    ($name:literal) => {
        Names {
            traces: concat!("spantap.otlp.traces.", $name),
            metrics: concat!("spantap.otlp.metrics.", $name),
            general: concat!("spantap.otlp.", $name),
        }
    };
}

pub(super) const HEADERS: Names = names!("headers");
pub(super) const HEADERS_FILE: Names = names!("headers_file");
pub(super) const TIMEOUT: Names = names!("timeout");
pub(super) const COMPRESSION: Names = names!("compression");
pub(super) const CERTIFICATE: Names = names!("certificate");
pub(super) const CLIENT_KEY: Names = names!("client_key");
pub(super) const CLIENT_CERTIFICATE: Names = names!("client_certificate");
pub(super) const INSECURE: Names = names!("insecure");

/// The general endpoint and protocol.
pub(super) const ENDPOINT: &str = "spantap.otlp.endpoint";
pub(super) const PROTOCOL: &str = "spantap.otlp.protocol";

impl Names {
    /// The value for `signal`.
    pub(super) fn get<'a>(self, settings: &Settings<'a>, signal: Signal) -> Option<Given<'a>> {
        let own = match signal {
            Signal::Traces => self.traces,
            Signal::Metrics => self.metrics,
        };
        settings.get(own).or_else(|| settings.get(self.general))
    }
}
