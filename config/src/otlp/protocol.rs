//! In: everything that says how OTLP is spoken. Out: the protocol; 4317 at the end of a port means gRPC where nobody says more,
//! as in Beyla.

use super::{
    Signal,
    endpoint::{Endpoint, NoScheme},
    options,
};
use crate::{error::ConfigError, settings::Settings, types::OtlpProtocol};

/// The protocol for `endpoint`, or for no endpoint at all.
pub(super) fn protocol(
    settings: &mut Settings<'_>,
    signal: Signal,
    endpoint: Option<&str>,
) -> Result<OtlpProtocol, ConfigError> {
    let key = signal.protocol_key();
    let known = [OtlpProtocol::HttpProtobuf, OtlpProtocol::HttpJson, OtlpProtocol::Grpc];
    let general = settings.get(options::PROTOCOL);
    for given in [settings.variable(key), settings.file(key), general].into_iter().flatten() {
        let name = given.text()?.trim().to_ascii_lowercase();
        if let Some(protocol) = known.into_iter().find(|protocol| protocol.name() == name) {
            return Ok(protocol);
        }
        match name.as_str() {
            "" => {}
            "debug" => {
                return Err(given.unsupported("protocol debug is not served; trace_printer: text prints what is seen"));
            }
            _ if given.is_variable() => {
                // Enumerations of the specification: an unknown value is reported and ignored.
                let message = format!(
                    "{}: unknown protocol {}, expected http/protobuf, http/json or grpc; ignored",
                    given.key,
                    given.shown()?
                );
                settings.warn(given.place(), message);
            }
            _ => return Err(given.invalid("http/protobuf, http/json or grpc")),
        }
    }
    let guessed = endpoint.and_then(|text| Endpoint::parse(text, NoScheme::Tls).ok());
    Ok(match guessed {
        Some(endpoint) if endpoint.looks_like_grpc() => OtlpProtocol::Grpc,
        _ => OtlpProtocol::HttpProtobuf,
    })
}
