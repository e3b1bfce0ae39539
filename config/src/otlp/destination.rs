//! In: everything that says where a signal goes. Out: endpoint, headers, TLS, time limit of its requests.
//!
//! Endpoint, the strongest first: variable of the signal, `endpoint` in the file, `OTEL_EXPORTER_OTLP_ENDPOINT`, Grafana
//! Cloud's zone. All other variables: of the signal, then general.

use std::{path::PathBuf, time::Duration};

use super::{Signal, endpoint::Endpoint, grafana::Grafana, headers::headers};
use crate::{
    error::{ConfigError, Place, shown},
    given::Given,
    settings::Settings,
    types::{Compression, Otlp, OtlpProtocol, Secret},
};

/// `OTEL_EXPORTER_OTLP_ENDPOINT` when it is not set, and the fallback.
const LOCAL: &str = "http://localhost:4318";
/// `OTEL_EXPORTER_OTLP_TIMEOUT` when it is not set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a signal goes; `None` if nobody said so. `wanted`: OTLP was asked for by name, so there is a default.
pub(super) fn destination(
    settings: &mut Settings<'_>,
    signal: Signal,
    grafana: Option<&Grafana>,
    wanted: bool,
) -> Result<Option<Otlp>, ConfigError> {
    let grafana = grafana.filter(|grafana| grafana.submits(signal));
    let own = settings.get(signal.endpoint_key());
    let general = settings.named("OTEL_EXPORTER_OTLP_ENDPOINT", signal.endpoint_key());
    let (url, endpoint, place) = match (own, general) {
        (Some(own), _) => {
            let endpoint = parsed(&own, settings)?;
            let path = signal.path();
            if signal == Signal::Traces && endpoint.has_other_path(path) {
                let message = format!("{}: the path is used as it is; Beyla would append {path}", own.key);
                settings.warn(own.place(), message);
            }
            (endpoint.of_signal(path), endpoint, own.place())
        }
        (None, Some(general)) => {
            let endpoint = parsed(&general, settings)?;
            (endpoint.below(signal.path()), endpoint, general.place())
        }
        (None, None) => {
            let (text, place) = match grafana {
                Some(grafana) => (grafana.endpoint()?, grafana.place.clone()),
                None if wanted => (LOCAL, Place::Effective),
                None => return nowhere(settings, signal),
            };
            let endpoint = constant(text, signal)?;
            (endpoint.below(signal.path()), endpoint, place)
        }
    };
    let protocol = protocol(settings, signal, &endpoint, &place)?;
    transport(settings, signal, url, &endpoint, &place, protocol, grafana.and_then(Grafana::authorization)).map(Some)
}

/// Without a destination a protocol that is not served takes nothing away, but a start says so; nonsense stays an error.
fn nowhere(settings: &mut Settings<'_>, signal: Signal) -> Result<Option<Otlp>, ConfigError> {
    match protocol(settings, signal, &constant(LOCAL, signal)?, &Place::Effective) {
        Err(ConfigError::Unsupported { place, key, message }) => settings.warn(place, format!("{key}: {message}")),
        Err(error) => return Err(error),
        Ok(OtlpProtocol::HttpProtobuf) => {}
    }
    Ok(None)
}

/// To a Collector on this host.
pub(super) fn local(settings: &mut Settings<'_>, signal: Signal) -> Result<Otlp, ConfigError> {
    let endpoint = constant(LOCAL, signal)?;
    transport(
        settings,
        signal,
        endpoint.below(signal.path()),
        &endpoint,
        &Place::Effective,
        OtlpProtocol::HttpProtobuf,
        None,
    )
}

fn constant(text: &str, signal: Signal) -> Result<Endpoint, ConfigError> {
    Endpoint::parse(text).map_err(|error| ConfigError::Unsupported {
        place: Place::Effective,
        key: signal.endpoint_key().to_owned(),
        message: error.0.to_owned(),
    })
}

fn parsed(given: &Given<'_>, settings: &mut Settings<'_>) -> Result<Endpoint, ConfigError> {
    let text = given.some_text()?;
    let endpoint = Endpoint::parse(text).map_err(|error| {
        // What is no URL may hold a password all the same, and a query a key.
        let found =
            if text.contains(['@', '?']) { "a text with credentials or a query".to_owned() } else { shown(text) };
        given.invalid_as(&found, error.0)
    })?;
    if endpoint.had_user {
        let message =
            format!("{}: user information in the URL has no effect; use OTEL_EXPORTER_OTLP_HEADERS", given.key);
        settings.warn(given.place(), message);
    }
    Ok(endpoint)
}

/// The protocol, which must be one that is served.
fn protocol(
    settings: &mut Settings<'_>,
    signal: Signal,
    endpoint: &Endpoint,
    endpoint_place: &Place,
) -> Result<OtlpProtocol, ConfigError> {
    const USE: &str = "http/protobuf is, usually on port 4318";
    let key = signal.protocol_key();
    let general = settings.named("OTEL_EXPORTER_OTLP_PROTOCOL", key);
    for given in [settings.variable(key), settings.file(key), general].into_iter().flatten() {
        match given.text()?.trim().to_ascii_lowercase().as_str() {
            "http/protobuf" => return Ok(OtlpProtocol::HttpProtobuf),
            "" => {}
            name @ ("grpc" | "http/json") => {
                return Err(given.unsupported(format!("protocol {name} is not served yet; {USE}")));
            }
            "debug" => {
                return Err(given.unsupported("protocol debug is not served; trace_printer: text prints what is seen"));
            }
            _ if given.is_variable() => {
                // Enumerations of the specification: an unknown value is reported and ignored.
                let message = format!("{}: unknown protocol {}, ignored", given.key, shown(given.text()?));
                settings.warn(given.place(), message);
            }
            _ => return Err(given.invalid("http/protobuf")),
        }
    }
    if endpoint.looks_like_grpc() {
        return Err(ConfigError::Unsupported {
            place: endpoint_place.clone(),
            key: signal.endpoint_key().to_owned(),
            message: format!(
                "port 4317 means OTLP over gRPC unless a protocol is given, and gRPC is not served yet; {USE}; \
                 if this port does speak HTTP, set {key}: http/protobuf"
            ),
        });
    }
    Ok(OtlpProtocol::HttpProtobuf)
}

fn transport(
    settings: &mut Settings<'_>,
    signal: Signal,
    url: String,
    endpoint: &Endpoint,
    place: &Place,
    protocol: OtlpProtocol,
    authorization: Option<&Secret>,
) -> Result<Otlp, ConfigError> {
    let mut all = Vec::new();
    if let Some(value) = authorization {
        all.push(("authorization".to_owned(), value.clone()));
    }
    if let Some(given) = specific(settings, signal, "HEADERS") {
        let (given_headers, flaws) = headers(given.text()?);
        for flaw in flaws {
            settings.warn(given.place(), flaw);
        }
        all.retain(|(name, _)| !given_headers.iter().any(|(other, _)| other == name));
        all.extend(given_headers);
    }
    if !endpoint.is_https() && !endpoint.is_loopback() && all.iter().any(|(name, _)| is_credential(name)) {
        settings.warn(
            place.clone(),
            format!("{}: credentials in headers go over http, unencrypted", signal.endpoint_key()),
        );
    }
    if let Some(given) = specific(settings, signal, "INSECURE")
        && given.text()?.eq_ignore_ascii_case("true")
        && endpoint.is_https()
    {
        settings.warn(given.place(), "for gRPC only, no effect: the scheme of the endpoint decides");
    }
    let insecure_skip_verify = match settings.get(signal.skip_verify_key()) {
        Some(given) => given.boolean()?,
        None => false,
    };
    Ok(Otlp {
        endpoint: url,
        protocol,
        headers: all,
        timeout: timeout(settings, signal)?,
        compression: compression(settings, signal)?,
        certificate: file(settings, signal, "CERTIFICATE")?,
        client_identity: client_identity(settings, signal)?,
        insecure_skip_verify,
    })
}

/// `OTEL_EXPORTER_OTLP_{SIGNAL}_{name}`, else `OTEL_EXPORTER_OTLP_{name}`.
fn specific<'a>(settings: &Settings<'a>, signal: Signal, name: &str) -> Option<Given<'a>> {
    let key = signal.endpoint_key();
    settings
        .named(&format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.infix()), key)
        .or_else(|| settings.named(&format!("OTEL_EXPORTER_OTLP_{name}"), key))
}

/// Milliseconds; zero is no limit.
fn timeout(settings: &mut Settings<'_>, signal: Signal) -> Result<Duration, ConfigError> {
    let Some(given) = specific(settings, signal, "TIMEOUT") else { return Ok(TIMEOUT) };
    Ok(crate::otel::milliseconds(settings, &given)?.unwrap_or(TIMEOUT))
}

fn compression(settings: &mut Settings<'_>, signal: Signal) -> Result<Compression, ConfigError> {
    let Some(given) = specific(settings, signal, "COMPRESSION") else { return Ok(Compression::None) };
    let words = [("none", Compression::None), ("gzip", Compression::Gzip)];
    Ok(crate::otel::word(settings, &given, &words)?.unwrap_or(Compression::None))
}

fn file(settings: &Settings<'_>, signal: Signal, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    specific(settings, signal, name).map(|given| Ok(PathBuf::from(given.text()?))).transpose()
}

fn client_identity(settings: &Settings<'_>, signal: Signal) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let pair = (file(settings, signal, "CLIENT_KEY")?, file(settings, signal, "CLIENT_CERTIFICATE")?);
    let (given, missing) = match pair {
        (Some(key), Some(certificate)) => return Ok(Some((key, certificate))),
        (None, None) => return Ok(None),
        (Some(_), None) => ("CLIENT_KEY", "CLIENT_CERTIFICATE"),
        (None, Some(_)) => ("CLIENT_CERTIFICATE", "CLIENT_KEY"),
    };
    Err(ConfigError::Invalid {
        place: specific(settings, signal, given).map_or(Place::Effective, |given| given.place()),
        key: signal.endpoint_key().to_owned(),
        found: format!("{given} alone"),
        expected: format!("OTEL_EXPORTER_OTLP_{missing} (or OTEL_EXPORTER_OTLP_{}_{missing}), too", signal.infix()),
    })
}

/// Whether a header of this name usually holds something that others should not read.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "key", "token", "secret", "cookie"].iter().any(|word| name.contains(word))
}
