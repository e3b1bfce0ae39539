//! One OTLP/HTTP destination: URL, headers, TLS, and one POST at a time.
//!
//! In: [`Otlp`] and encoded bodies. Out: [`Answer`]s. Header values never leave here but on the wire.

use std::{
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use reqwest::{
    Certificate, Identity, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use spantap_config::{Compression, Otlp, OtlpProtocol};

use super::response::{self, Answer};

/// Largest request, before and after compression (exporter specification, maximum request size).
const MAX_REQUEST: usize = 64 << 20;
/// Largest response (OTLP specification 1.11: 4 MiB by default); a larger one is not retried.
const MAX_RESPONSE: usize = 4 << 20;
/// Redirects that are followed, each to the same origin.
const MAX_REDIRECTS: usize = 3;
/// Bodies above this are compressed off the runtime's thread.
const INLINE_GZIP: usize = 32 << 10;

/// Why a destination can not be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No URL.
    #[error("{endpoint:?} is not an http or https URL")]
    Endpoint {
        /// As configured, without user information.
        endpoint: String,
    },
    /// A header that HTTP does not allow. The value is not shown.
    #[error("header {name:?} has a name or a value that HTTP does not allow")]
    Header {
        /// Its name.
        name: String,
    },
    /// A certificate or key file that can not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key file that does not hold what it should.
    #[error("{path} holds no usable {what}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The TLS library refused.
    #[error("cannot set up the HTTP client: {0}")]
    Build(#[from] reqwest::Error),
}

/// A destination.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    gzip: bool,
    timeout: Option<Duration>,
    /// For logs: no user information, no query.
    pub(super) shown: String,
    /// For logs: names alone.
    pub(super) header_names: String,
}

/// A body as it goes on the wire.
#[derive(Debug, Clone)]
pub struct Packed {
    body: Bytes,
    gzip: bool,
}

/// What a server said.
#[derive(Debug)]
pub struct Said {
    /// Status code.
    pub status: u16,
    /// `Retry-After`, as it was sent.
    pub retry_after: Option<String>,
    /// Body, at most 4 MiB.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The response, with this status, is larger than is read.
    #[error("the response with status {0} is too large")]
    TooLong(u16),
    /// No connection, no answer in time, or one that broke off. Shown by [`describe`] only: a URL may hold a secret.
    #[error("no answer")]
    Failed(#[from] reqwest::Error),
}

impl Client {
    /// A client for `otlp`; opens no connection.
    ///
    /// # Errors
    /// If URL, headers or certificate files are not usable.
    pub fn new(otlp: &Otlp) -> Result<Self, ClientError> {
        let OtlpProtocol::HttpProtobuf = otlp.protocol;
        let (url, shown) = url(&otlp.endpoint)?;
        let mut headers = HeaderMap::new();
        for (name, secret) in &otlp.headers {
            let bad = |_| ClientError::Header { name: name.clone() };
            let header: HeaderName = name.parse().map_err(|_| bad(()))?;
            let mut value = HeaderValue::from_str(&secret.0).map_err(|_| bad(()))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let header_names = headers.keys().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let local = is_loopback(&url);
        Ok(Self {
            http: http_client(otlp, &url, local)?,
            url,
            headers,
            gzip: otlp.compression == Compression::Gzip,
            timeout: (!otlp.timeout.is_zero()).then_some(otlp.timeout),
            shown,
            header_names,
        })
    }

    /// Compresses `body` if so configured; `None` if it is larger than a request may be.
    pub async fn pack(&self, body: Bytes) -> Option<Packed> {
        if body.len() > MAX_REQUEST {
            return None;
        }
        if !self.gzip {
            return Some(Packed { body, gzip: false });
        }
        let plain = body.clone();
        let packed = if body.len() <= INLINE_GZIP {
            gzip(&body)
        } else {
            tokio::task::spawn_blocking(move || gzip(&body)).await.ok().flatten()
        };
        // Compression to memory does not fail; if it did, the plain body is as good.
        Some(packed.map_or(Packed { body: plain, gzip: false }, |body| Packed { body, gzip: true }))
    }

    /// Sends one request and reads its answer.
    pub async fn send(&self, packed: &Packed) -> Answer {
        match self.ask(packed, self.timeout).await {
            Ok(said) => response::read(said.status, said.retry_after.as_deref(), &said.body, SystemTime::now()),
            Err(Silence::TooLong(status)) => {
                Answer::Refused(format!("status {status}: the response is larger than {MAX_RESPONSE} bytes"))
            }
            Err(Silence::Failed(error)) if error.is_builder() || error.is_redirect() => {
                Answer::Refused(describe(&error))
            }
            Err(Silence::Failed(error)) => Answer::Retry { after: None, what: describe(&error) },
        }
    }

    /// Sends one request, which may take `limit`, and returns what the server said, whatever it means.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn ask(&self, packed: &Packed, limit: Option<Duration>) -> Result<Said, Silence> {
        let mut request = self.http.post(self.url.clone()).headers(self.headers.clone()).body(packed.body.clone());
        if packed.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        let mut answer = request.send().await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE => return Err(Silence::TooLong(status)),
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // An answer that breaks off is no answer, unless its status has already said no.
                Err(error) if status < 300 => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(Said { status, retry_after, body })
    }

    /// Where it sends, for people: no user information, no query.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Names of the configured headers, joined by commas; empty if there are none.
    pub fn header_names(&self) -> &str {
        &self.header_names
    }

    /// How long a request may take, if that is limited.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

fn url(endpoint: &str) -> Result<(Url, String), ClientError> {
    let invalid = |endpoint: &str| {
        // What stands before an `@` may be a password.
        let endpoint = endpoint.rsplit('@').next().unwrap_or_default().to_owned();
        ClientError::Endpoint { endpoint }
    };
    let url = Url::parse(endpoint).map_err(|_| invalid(endpoint))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(invalid(endpoint));
    }
    let mut shown = url.clone();
    // These fail only for URLs without a host.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    Ok((url, shown.to_string()))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn http_client(otlp: &Otlp, url: &Url, local: bool) -> Result<reqwest::Client, ClientError> {
    // An error means that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let same_origin = Policy::custom(|attempt| {
        let origin = attempt.previous().first().map(Url::origin);
        let keeps_method = matches!(attempt.status().as_u16(), 307 | 308);
        if keeps_method && origin == Some(attempt.url().origin()) && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("spantap-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION")))
        .redirect(same_origin)
        .pool_max_idle_per_host(1);
    if local {
        builder = builder.no_proxy(); // a proxy's localhost is another
    }
    if url.scheme() == "http" {
        // Saves reading the system's certificates, which may not even be there.
        return Ok(builder.tls_certs_only([]).build()?);
    }
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
        tracing::warn!("the certificate of the destination is not verified (insecure_skip_verify)");
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    Ok(builder.build()?)
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::File { path: path.to_owned(), source })
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 8), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The error and its causes, without the URL, which may carry a secret.
pub fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    if causes.is_empty() { "the request could not be sent".into() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use spantap_config::Secret;

    use super::*;
    use crate::sample;

    fn error(change: impl FnOnce(&mut Otlp)) -> String {
        let mut otlp = sample::otlp("https://collector.example/v1/traces".into());
        change(&mut otlp);
        Client::new(&otlp).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        assert_eq!(error(|o| o.endpoint = "ftp://u:pw@h/".into()), "\"h/\" is not an http or https URL");
        assert_eq!(error(|o| o.endpoint = "collector:4318".into()), "\"collector:4318\" is not an http or https URL");
        let shown = error(|o| o.headers = vec![("x-key".into(), Secret("s3cret\n".into()))]);
        assert!(shown.contains("x-key") && !shown.contains("s3cret"), "{shown}");
        assert!(
            error(|o| o.certificate = Some("/nonexistent/ca.pem".into()))
                .starts_with("cannot read /nonexistent/ca.pem")
        );
        let empty = tempfile::NamedTempFile::new().unwrap();
        let path = empty.path().to_owned();
        assert!(error(|o| o.certificate = Some(path.clone())).ends_with("holds no usable certificate"));
        assert!(error(|o| o.client_identity = Some((path.clone(), path))).contains("client key and certificate"));
    }

    #[test]
    fn what_is_shown_is_no_secret() {
        let mut otlp = sample::otlp("http://user:pw@localhost:4318/v1/traces?token=t".into());
        otlp.headers = vec![("authorization".into(), Secret("Basic c2VjcmV0".into()))];
        let client = Client::new(&otlp).unwrap();
        assert_eq!(client.shown, "http://localhost:4318/v1/traces");
        assert_eq!(client.header_names, "authorization");
        let debug = format!("{client:?}");
        assert!(!debug.contains("c2VjcmV0"), "{debug}");
    }

    #[test]
    fn loopback() {
        for (endpoint, local) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://a.localhost.b", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(endpoint).unwrap()), local, "{endpoint}");
        }
    }
}
