//! The HTTP client of a destination: HTTP/1.1 for OTLP/HTTP, HTTP/2 for OTLP/gRPC, with the same TLS, proxies and sockets.
//!
//! In: the configuration of a destination and its address. Out: a client that has opened no connection yet.

use std::{path::Path, time::Duration};

use reqwest::{Certificate, ClientBuilder, Identity, Url, redirect::Policy};
use spantap_config::{Otlp, OtlpProtocol};

use super::{REQUESTS_AT_ONCE, address::Address, client::ClientError};

/// Redirects that are followed, each to the same origin.
const MAX_REDIRECTS: usize = 3;
/// A connection whose peer acknowledges nothing for so long is given up: with HTTP/2 a request that timed out does not end it.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Name and version of this exporter (exporter specification, "User Agent").
pub(super) const USER_AGENT: &str = concat!("spantap-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// A client for `otlp`.
pub(super) fn client(otlp: &Otlp, address: &Address) -> Result<reqwest::Client, ClientError> {
    // An error means that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder =
        reqwest::Client::builder().pool_max_idle_per_host(REQUESTS_AT_ONCE).tcp_user_timeout(UNACKNOWLEDGED);
    let plain = address.url.scheme() == "http";
    builder = match otlp.protocol {
        OtlpProtocol::Grpc => builder.http2_prior_knowledge().redirect(Policy::none()),
        OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => builder.http1_only().redirect(within_origin()),
    };
    // A proxy's localhost is another, and HTTP proxies do not pass on HTTP/2 without TLS.
    if address.local || plain && otlp.protocol == OtlpProtocol::Grpc {
        builder = builder.no_proxy();
    }
    if let Some(socket) = &otlp.socket {
        builder = builder.unix_socket(socket.as_path());
    }
    // Without TLS: saves reading the system's certificates, which may not even be there.
    let builder = if plain { builder.tls_certs_only([]) } else { with_tls(builder, otlp)? };
    Ok(builder.build()?)
}

/// 307 and 308 keep method and body; another origin would get the credentials.
fn within_origin() -> Policy {
    Policy::custom(|attempt| {
        let origin = attempt.previous().first().map(Url::origin);
        let keeps_method = matches!(attempt.status().as_u16(), 307 | 308);
        if keeps_method && origin == Some(attempt.url().origin()) && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn with_tls(mut builder: ClientBuilder, otlp: &Otlp) -> Result<ClientBuilder, ClientError> {
    if let Some(path) = &otlp.certificate {
        let certificates = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if certificates.is_empty() {
            return Err(ClientError::Pem { path: path.clone(), what: "certificate" });
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let Some((key, certificate)) = &otlp.client_identity {
        let mut pem = read(key)?;
        pem.push(b'\n');
        pem.extend(read(certificate)?);
        let identity = Identity::from_pem(&pem)
            .map_err(|_| ClientError::Pem { path: key.clone(), what: "client key and certificate" })?;
        builder = builder.identity(identity);
    }
    if otlp.insecure_skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    Ok(builder)
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::File { path: path.to_owned(), source })
}
