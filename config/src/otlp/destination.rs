//! In: everything that says where a signal goes. Out: its destination.
//!
//! Endpoint, the strongest first: variable of the signal, `endpoint` in the file, `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `spantap.otlp.endpoint`, Grafana Cloud's zone.

use super::{
    Signal,
    endpoint::{Endpoint, NoScheme},
    grafana::Grafana,
    options,
    protocol::protocol,
    transport::{Target, transport},
};
use crate::{
    error::{ConfigError, Place},
    given::Given,
    otel,
    settings::Settings,
    types::{Otlp, OtlpProtocol},
};

/// Where a signal goes; `None` if nobody said so. `wanted`: OTLP was asked for by name, so there is a default.
pub(super) fn destination(
    settings: &mut Settings<'_>,
    signal: Signal,
    grafana: Option<&Grafana>,
    wanted: bool,
) -> Result<Option<Otlp>, ConfigError> {
    let grafana = grafana.filter(|grafana| grafana.submits(signal));
    let authorization = grafana.and_then(Grafana::authorization);
    let own = settings.get(signal.endpoint_key());
    let general = settings.get(options::ENDPOINT);
    let target = match (own, general) {
        (Some(own), _) => {
            let (endpoint, protocol) = parsed(&own, settings, signal)?;
            let path = signal.path();
            if protocol != OtlpProtocol::Grpc && signal == Signal::Traces && endpoint.has_other_path(path) {
                let message = format!("{}: the path is used as it is; Beyla would append {path}", own.key);
                settings.warn(own.place(), message);
            }
            let url = url(&endpoint, protocol, signal, Endpoint::of_signal);
            Target { url, endpoint, protocol, place: own.place() }
        }
        (None, Some(general)) => {
            let (endpoint, protocol) = parsed(&general, settings, signal)?;
            let url = url(&endpoint, protocol, signal, Endpoint::below);
            Target { url, endpoint, protocol, place: general.place() }
        }
        (None, None) => match grafana {
            Some(grafana) => {
                let text = grafana.endpoint()?;
                constant(text, protocol(settings, signal, Some(text))?, grafana.place.clone(), signal)?
            }
            None if wanted => here(settings, signal)?,
            None => {
                // Nonsense stays an error.
                protocol(settings, signal, None)?;
                return Ok(None);
            }
        },
    };
    transport(settings, signal, target, authorization).map(Some)
}

/// To a Collector on this host.
pub(super) fn local(settings: &mut Settings<'_>, signal: Signal) -> Result<Otlp, ConfigError> {
    let target = here(settings, signal)?;
    transport(settings, signal, target, None)
}

/// The default endpoint; its port follows the protocol.
fn here(settings: &mut Settings<'_>, signal: Signal) -> Result<Target, ConfigError> {
    let protocol = protocol(settings, signal, None)?;
    constant(&format!("http://localhost:{}", protocol.port()), protocol, Place::Effective, signal)
}

fn constant(text: &str, protocol: OtlpProtocol, place: Place, signal: Signal) -> Result<Target, ConfigError> {
    let endpoint = Endpoint::parse(text, NoScheme::Refused).map_err(|error| ConfigError::Unsupported {
        place: place.clone(),
        key: signal.endpoint_key().to_owned(),
        message: error.0.to_owned(),
    })?;
    Ok(Target { url: url(&endpoint, protocol, signal, Endpoint::below), endpoint, protocol, place })
}

fn url(
    endpoint: &Endpoint,
    protocol: OtlpProtocol,
    signal: Signal,
    with: impl Fn(&Endpoint, &str) -> String,
) -> String {
    match protocol {
        OtlpProtocol::Grpc => endpoint.method(signal.method()),
        OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => with(endpoint, signal.path()),
    }
}

fn parsed(
    given: &Given<'_>,
    settings: &mut Settings<'_>,
    signal: Signal,
) -> Result<(Endpoint, OtlpProtocol), ConfigError> {
    let text = given.some_text()?;
    let protocol = protocol(settings, signal, Some(text))?;
    let insecure = match options::INSECURE.get(settings, signal) {
        Some(given) if given.is_variable() => Some(otel::boolean(settings, &given)?),
        Some(given) => Some(given.boolean()?),
        None => None,
    };
    let no_scheme = match (protocol, insecure) {
        (OtlpProtocol::Grpc, Some(true)) => NoScheme::Plain,
        (OtlpProtocol::Grpc, _) => NoScheme::Tls,
        _ => NoScheme::Refused,
    };
    let endpoint = Endpoint::parse(text, no_scheme).map_err(|error| {
        // What is no URL may hold a password all the same, and a query a key.
        if text.contains(['@', '?']) {
            given.invalid_as("a text with credentials or a query", error.0)
        } else {
            given.invalid(error.0)
        }
    })?;
    if endpoint.had_user {
        let message =
            format!("{}: user information in the URL has no effect; use OTEL_EXPORTER_OTLP_HEADERS", given.key);
        settings.warn(given.place(), message);
    }
    if !endpoint.had_scheme && insecure.is_none() {
        let message = format!(
            "{}: without a scheme gRPC uses TLS; http:// in front, or OTEL_EXPORTER_OTLP_INSECURE=true, goes without",
            given.key
        );
        settings.warn(given.place(), message);
    }
    if protocol == OtlpProtocol::Grpc && endpoint.has_path() {
        settings.warn(given.place(), format!("{}: the path has no effect with gRPC", given.key));
    }
    if insecure == Some(true) && endpoint.is_https() {
        let place = options::INSECURE.get(settings, signal).map_or(Place::Effective, |given| given.place());
        settings.warn(place, "for gRPC without a scheme only, no effect: the scheme of the endpoint decides");
    }
    Ok((endpoint, protocol))
}
