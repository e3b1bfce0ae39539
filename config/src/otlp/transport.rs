//! In: a target and everything that says how requests get there. Out: headers, TLS, time limit, compression beside it.

use std::{path::PathBuf, time::Duration};

use super::{
    Signal,
    endpoint::Endpoint,
    headers::{headers, headers_of_file, headers_of_map},
    options::{self, Names},
    source::HeaderSource,
};
use crate::{
    FileState,
    error::{ConfigError, Place},
    otel, secret_file,
    settings::Settings,
    types::{Compression, Otlp, OtlpProtocol, Secret},
};

/// `OTEL_EXPORTER_OTLP_TIMEOUT` when it is not set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Names and values.
type Headers = Vec<(String, Secret)>;

/// Where requests go.
pub(super) struct Target {
    pub(super) url: String,
    pub(super) endpoint: Endpoint,
    pub(super) protocol: OtlpProtocol,
    pub(super) place: Place,
}

/// Everything beside the target. `authorization`: that of Grafana Cloud, which headers of the user override.
pub(super) fn transport(
    settings: &mut Settings<'_>,
    signal: Signal,
    target: Target,
    authorization: Option<&Secret>,
) -> Result<Otlp, ConfigError> {
    let Target { url, endpoint, protocol, place } = target;
    let mut all = Vec::new();
    if let Some(value) = authorization {
        all.push(("authorization".to_owned(), value.clone()));
    }
    merge(&mut all, given_headers(settings, signal)?);
    let file = headers_file(settings, signal)?;
    let (path, more) = file.map_or((None, Vec::new()), |(path, headers)| (Some(path), headers));
    merge(&mut all, more);
    if !endpoint.is_https() && !endpoint.is_loopback() && all.iter().any(|(name, _)| is_credential(name)) {
        let message = "credentials in headers go over the network UNENCRYPTED, and whoever is on the way can read them; use https";
        settings.warn(place, message);
    }
    let insecure_skip_verify = match settings.get(signal.skip_verify_key()) {
        Some(given) => given.boolean()?,
        None => false,
    };
    if insecure_skip_verify && endpoint.is_https() {
        let place = settings.get(signal.skip_verify_key()).map_or(Place::Effective, |given| given.place());
        let message = "the certificate of the destination is NOT verified: whoever is on the way can read and change all that is \
                       sent, credentials included; OTEL_EXPORTER_OTLP_CERTIFICATE names an authority of your own";
        settings.warn(place, message);
    }
    let certificate = file_option(settings, signal, options::CERTIFICATE)?;
    let client_identity = client_identity(settings, signal)?;
    let files = certificate.iter().chain(client_identity.iter().flat_map(|(key, certificate)| [key, certificate]));
    Ok(Otlp {
        signal,
        endpoint: url,
        socket: endpoint.socket().map(std::path::Path::to_owned),
        protocol,
        headers: all,
        header_source: HeaderSource::of(settings, signal, path.as_deref()),
        timeout: timeout(settings, signal)?,
        compression: compression(settings, signal)?,
        tls_files: files.map(|path| FileState::of(path)).collect(),
        certificate,
        client_identity,
        insecure_skip_verify,
    })
}

/// The later of a name wins.
fn merge(all: &mut Vec<(String, Secret)>, more: Vec<(String, Secret)>) {
    all.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    all.extend(more);
}

fn given_headers(settings: &mut Settings<'_>, signal: Signal) -> Result<Vec<(String, Secret)>, ConfigError> {
    let Some(given) = options::HEADERS.get(settings, signal) else { return Ok(Vec::new()) };
    if !given.is_variable() {
        return headers_of_map(&given);
    }
    let (headers, flaws) = headers(given.text()?);
    for flaw in flaws {
        settings.warn(given.place(), flaw);
    }
    Ok(headers)
}

/// Path and content of `headers_file`.
fn headers_file(settings: &Settings<'_>, signal: Signal) -> Result<Option<(PathBuf, Headers)>, ConfigError> {
    let Some(given) = options::HEADERS_FILE.get(settings, signal) else { return Ok(None) };
    let path = PathBuf::from(given.some_text()?);
    if !settings.env.reads_files() {
        return Ok(Some((path, Vec::new())));
    }
    let text = secret_file::read(&path).map_err(|message| given.unsupported(message))?;
    let headers = headers_of_file(&text).map_err(|flaw| given.unsupported(format!("{}: {flaw}", path.display())))?;
    Ok(Some((path, headers)))
}

/// Zero is no limit. Milliseconds in variables, a duration with its unit in the file.
fn timeout(settings: &mut Settings<'_>, signal: Signal) -> Result<Duration, ConfigError> {
    match options::TIMEOUT.get(settings, signal) {
        Some(given) if given.is_variable() => Ok(otel::milliseconds(settings, &given)?.unwrap_or(TIMEOUT)),
        Some(given) => given.duration(),
        None => Ok(TIMEOUT),
    }
}

fn compression(settings: &mut Settings<'_>, signal: Signal) -> Result<Compression, ConfigError> {
    let words = [("none", Compression::None), ("gzip", Compression::Gzip)];
    match options::COMPRESSION.get(settings, signal) {
        Some(given) if given.is_variable() => Ok(otel::word(settings, &given, &words)?.unwrap_or(Compression::None)),
        Some(given) => given.word(&words),
        None => Ok(Compression::None),
    }
}

fn file_option(settings: &Settings<'_>, signal: Signal, names: Names) -> Result<Option<PathBuf>, ConfigError> {
    names.get(settings, signal).map(|given| Ok(PathBuf::from(given.some_text()?))).transpose()
}

fn client_identity(settings: &Settings<'_>, signal: Signal) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let key = file_option(settings, signal, options::CLIENT_KEY)?;
    let certificate = file_option(settings, signal, options::CLIENT_CERTIFICATE)?;
    let (given, name, missing) = match (key, certificate) {
        (Some(key), Some(certificate)) => return Ok(Some((key, certificate))),
        (None, None) => return Ok(None),
        (Some(_), None) => (options::CLIENT_KEY, "CLIENT_KEY", "CLIENT_CERTIFICATE"),
        (None, Some(_)) => (options::CLIENT_CERTIFICATE, "CLIENT_CERTIFICATE", "CLIENT_KEY"),
    };
    Err(ConfigError::Invalid {
        place: given.get(settings, signal).map_or(Place::Effective, |given| given.place()),
        key: signal.endpoint_key().to_owned(),
        found: format!("{name} alone"),
        expected: format!(
            "OTEL_EXPORTER_OTLP_{missing} (or OTEL_EXPORTER_OTLP_{}_{missing}, or spantap.otlp.{}), too",
            signal.infix(),
            missing.to_ascii_lowercase()
        ),
    })
}

/// Whether a header of this name usually holds something that others should not read.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "key", "token", "secret", "cookie"].iter().any(|word| name.contains(word))
}
