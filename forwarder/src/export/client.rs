//! One OTLP destination: URL, headers, TLS, and one request at a time, by HTTP or gRPC.
//!
//! In: [`Otlp`] and encoded bodies. Out: [`Answer`]s. Header values never leave here but on the wire.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{Response, body::Frame};
use reqwest::{
    Url,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TE},
};
use spantap_config::{Otlp, OtlpProtocol};

pub use super::pack::Packed;
use super::{
    address::Address,
    credentials::Credentials,
    grpc::Ended,
    pack::{Packing, gunzip},
    response::{Answer, HttpSaid},
    transport,
};

/// Largest response, before and after decompression (OTLP specification 1.11: 4 MiB by default); a larger one is not retried.
const MAX_RESPONSE: usize = 4 << 20;

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
    protocol: OtlpProtocol,
    packing: Packing,
    credentials: Credentials,
    timeout: Option<Duration>,
    /// For logs: no user information, no query.
    pub(super) shown: String,
    /// For logs: names alone.
    pub(super) header_names: String,
}

/// What a server said.
#[derive(Debug)]
pub enum Said {
    /// By HTTP.
    Http(HttpSaid),
    /// By gRPC.
    Grpc(Ended),
}

impl Said {
    /// What it means. `now` is for dates.
    pub fn answer(&self, now: SystemTime) -> Answer {
        match self {
            Self::Http(said) => said.answer(now),
            Self::Grpc(ended) => ended.answer(),
        }
    }

    /// Whether the credentials are the reason of a refusal.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Http(said) => said.is_unauthorized(),
            Self::Grpc(ended) => ended.is_unauthorized(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The response, with this HTTP status, is larger than is read.
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
        let address = Address::of(otlp)?;
        let credentials = Credentials::new(&otlp.headers, otlp.header_source.clone())?;
        let names = otlp.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        Ok(Self {
            http: transport::client(otlp, &address)?,
            url: address.url,
            protocol: otlp.protocol,
            packing: Packing::of(otlp),
            credentials,
            timeout: (!otlp.timeout.is_zero()).then_some(otlp.timeout),
            shown: address.shown,
            header_names: names.join(", "),
        })
    }

    /// Makes `body`, an encoded protobuf request, what goes on the wire; `None` if it is larger than a request may be.
    pub async fn pack(&self, body: Bytes) -> Option<Packed> {
        self.packing.pack(body).await
    }

    /// Sends one request and reads its answer. Where the credentials are refused, and the files that they stand in hold
    /// others by now, it is sent once more with those.
    pub async fn send(&self, packed: &Packed) -> Answer {
        let mut outcome = self.ask(packed, self.timeout).await;
        if matches!(&outcome, Ok(said) if said.is_unauthorized()) && self.credentials.changed(&self.shown).await {
            outcome = self.ask(packed, self.timeout).await;
        }
        match outcome {
            Ok(said) => said.answer(SystemTime::now()),
            Err(Silence::TooLong(status)) => {
                Answer::Refused(format!("status {status}: the response is larger than {MAX_RESPONSE} bytes"))
            }
            Err(Silence::Failed(error)) if error.is_builder() || error.is_redirect() => {
                Answer::Refused(describe(&error))
            }
            Err(Silence::Failed(error)) => {
                let mut what = describe(&error);
                // Each of the many reasons has its own way out; they stand there.
                if what.contains("certificate") || what.contains("fatal alert") {
                    what += "; `spantap doctor` with the same configuration says what to do";
                }
                Answer::Retry { after: None, what }
            }
        }
    }

    /// Sends one request, which may take `limit`, and returns what the server said, whatever it means.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn ask(&self, packed: &Packed, limit: Option<Duration>) -> Result<Said, Silence> {
        let mut headers = self.headers(packed.gzip, limit);
        if packed.body.is_empty() {
            // Left out otherwise, and some servers and proxies want it of a POST (RFC 9110 section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = self.http.post(self.url.clone()).headers(headers).body(packed.body.clone());
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        let (head, mut rest) = Response::from(request.send().await?).into_parts();
        let status = head.status.as_u16();
        let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = rest.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(chunk)) if body.len() + chunk.len() > MAX_RESPONSE => return Err(Silence::TooLong(status)),
                Ok(Ok(chunk)) => body.extend_from_slice(&chunk),
                Ok(Err(other)) => trailers.extend(other.into_trailers().unwrap_or_default()),
                // An answer that breaks off is no answer, unless its status has already said no.
                Err(error) if status < 300 => return Err(error.into()),
                Err(_) => break,
            }
        }
        if self.protocol == OtlpProtocol::Grpc {
            let ended = Ended::read(status, &head.headers, &trailers, &body, MAX_RESPONSE);
            return ended.map(Said::Grpc).ok_or(Silence::TooLong(status));
        }
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        // It was not asked for, and comes all the same from some proxies.
        let body = match text(CONTENT_ENCODING) {
            Some("gzip") => gunzip(&body, MAX_RESPONSE).ok_or(Silence::TooLong(status))?,
            _ => body.into(),
        };
        Ok(Said::Http(HttpSaid {
            status,
            retry_after: text(RETRY_AFTER).map(str::to_owned),
            json: text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")),
            body,
        }))
    }

    fn headers(&self, gzip: bool, limit: Option<Duration>) -> HeaderMap {
        let mut headers = self.credentials.headers();
        let mut put = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        let encoding = match self.protocol {
            OtlpProtocol::HttpProtobuf => {
                put(CONTENT_TYPE, "application/x-protobuf");
                CONTENT_ENCODING
            }
            OtlpProtocol::HttpJson => {
                put(CONTENT_TYPE, "application/json");
                CONTENT_ENCODING
            }
            OtlpProtocol::Grpc => {
                put(CONTENT_TYPE, "application/grpc");
                put(TE, "trailers");
                put(HeaderName::from_static("grpc-accept-encoding"), "identity,gzip");
                HeaderName::from_static("grpc-encoding")
            }
        };
        if gzip {
            put(encoding, "gzip");
        }
        // At most eight digits (gRPC over HTTP/2, "Timeout").
        if let Some(limit) =
            limit.filter(|limit| self.protocol == OtlpProtocol::Grpc && limit.as_millis() < 100_000_000)
            && let Ok(value) = HeaderValue::from_str(&format!("{}m", limit.as_millis().max(1)))
        {
            headers.insert(HeaderName::from_static("grpc-timeout"), value);
        }
        headers
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
}
