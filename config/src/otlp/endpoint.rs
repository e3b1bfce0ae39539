//! In: the text of an endpoint. Out: the URL that requests go to, or the Unix socket.
//!
//! Rules: OpenTelemetry Protocol Exporter specification, "Endpoint URLs for OTLP/HTTP", with the one exception of Spantap's
//! contract: an endpoint of one signal that has no path gets the signal's path, as it did in Beyla. For gRPC scheme, host and
//! port count, and the scheme may be missing. Beside URLs, `unix:/path` and `unix:///path` (the forms of gRPC's naming
//! document) name a stream socket.

use std::path::{Path, PathBuf};

use http::Uri;

/// Longest path of a Unix socket (unix(7): 108 bytes with the zero at its end).
const MOST_SOCKET: usize = 107;

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoEndpoint(pub(super) &'static str);

/// What an endpoint without a scheme is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoScheme {
    /// A mistake: OTLP over HTTP takes URLs.
    Refused,
    /// Without TLS.
    Plain,
    /// With TLS.
    Tls,
}

/// A URL, taken apart as far as the rules need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    https: bool,
    /// Host and port, without user information.
    authority: String,
    host: String,
    port: Option<u16>,
    /// Empty, or with a slash in front.
    path: String,
    query: Option<String>,
    socket: Option<PathBuf>,
    /// Whether the text had user information, which is left out.
    pub(super) had_user: bool,
    /// Whether the text had a scheme.
    pub(super) had_scheme: bool,
}

impl Endpoint {
    /// Parses an absolute `http` or `https` URL, a socket, or a host with a port where `no_scheme` allows that.
    pub(super) fn parse(text: &str, no_scheme: NoScheme) -> Result<Self, NoEndpoint> {
        const WITH_SCHEME: NoEndpoint = NoEndpoint("a URL with scheme and host, such as http://localhost:4318");
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("unix:") {
            return Self::at_socket(rest);
        }
        let had_scheme = text.contains("://");
        let completed;
        let whole = match (had_scheme, no_scheme) {
            (true, _) => text,
            (false, NoScheme::Refused) => return Err(WITH_SCHEME),
            (false, scheme) => {
                completed = format!("{}://{text}", if scheme == NoScheme::Tls { "https" } else { "http" });
                &completed
            }
        };
        let uri: Uri = whole.parse().map_err(|_| WITH_SCHEME)?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(NoEndpoint("a URL with scheme http or https")),
            None => return Err(WITH_SCHEME),
        };
        let authority = uri.authority().ok_or(WITH_SCHEME)?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(WITH_SCHEME)?;
        let port = uri.port_u16();
        if port.is_none() && place.len() != host.len() || port == Some(0) {
            return Err(NoEndpoint("a URL whose port is a number from 1 to 65535"));
        }
        let path = if uri.path() == "/" { "" } else { uri.path() };
        Ok(Self {
            https,
            authority: place.to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(),
            port,
            path: path.to_owned(),
            query: uri.query().map(str::to_owned),
            socket: None,
            had_user: user.is_some(),
            had_scheme,
        })
    }

    fn at_socket(rest: &str) -> Result<Self, NoEndpoint> {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if !path.starts_with('/') || path.ends_with('/') || path.len() > MOST_SOCKET {
            return Err(NoEndpoint("unix: with the absolute path of a socket, at most 107 bytes"));
        }
        Ok(Self {
            https: false,
            authority: "localhost".to_owned(),
            host: "localhost".to_owned(),
            port: None,
            path: String::new(),
            query: None,
            socket: Some(PathBuf::from(path)),
            had_user: false,
            had_scheme: true,
        })
    }

    /// URL for a signal below a base endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`).
    pub(super) fn below(&self, signal_path: &str) -> String {
        self.with_path(&format!("{}{signal_path}", self.path.trim_end_matches('/')))
    }

    /// URL of an endpoint of one signal: as it is, or with the signal's path if it has none. `http://h` and `http://h/` are the
    /// same URL (RFC 9110, section 4.2.3), so both have none.
    pub(super) fn of_signal(&self, signal_path: &str) -> String {
        self.with_path(if self.path.is_empty() { signal_path } else { &self.path })
    }

    /// URL of a gRPC method: the endpoint's path and query have no part in it.
    pub(super) fn method(&self, method: &str) -> String {
        format!("{}{method}", self.origin())
    }

    fn with_path(&self, path: &str) -> String {
        let query = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{path}{query}", self.origin())
    }

    fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }

    /// Whether there is a path or a query.
    pub(super) fn has_path(&self) -> bool {
        !self.path.is_empty() || self.query.is_some()
    }

    /// Whether the path is one of the user's own that does not end in `signal_path`.
    pub(super) fn has_other_path(&self, signal_path: &str) -> bool {
        !self.path.is_empty() && !self.path.trim_end_matches('/').ends_with(signal_path)
    }

    /// Whether Beyla takes the port for that of OTLP over gRPC.
    pub(super) fn looks_like_grpc(&self) -> bool {
        self.port.is_some_and(|port| port.to_string().ends_with("4317"))
    }

    /// The socket, if it is one.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    pub(super) fn is_https(&self) -> bool {
        self.https
    }

    /// Whether the host is this host.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}
