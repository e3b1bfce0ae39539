//! In: the text of an endpoint. Out: the URL that requests go to.
//!
//! Rules: OpenTelemetry Protocol Exporter specification, "Endpoint URLs for OTLP/HTTP", with the one exception of Spantap's
//! contract: an endpoint of one signal that has no path gets the signal's path, as it did in Beyla.

use http::Uri;

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoEndpoint(pub(super) &'static str);

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
    /// Whether the text had user information, which is left out.
    pub(super) had_user: bool,
}

impl Endpoint {
    /// Parses an absolute `http` or `https` URL.
    pub(super) fn parse(text: &str) -> Result<Self, NoEndpoint> {
        const WITH_SCHEME: NoEndpoint = NoEndpoint("a URL with scheme and host, such as http://localhost:4318");
        let uri: Uri = text.trim().parse().map_err(|_| WITH_SCHEME)?;
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
            had_user: user.is_some(),
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

    fn with_path(&self, path: &str) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let query = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{}{path}{query}", self.authority)
    }

    /// Whether the path is one of the user's own that does not end in `signal_path`.
    pub(super) fn has_other_path(&self, signal_path: &str) -> bool {
        !self.path.is_empty() && !self.path.trim_end_matches('/').ends_with(signal_path)
    }

    /// Whether Beyla takes the port for that of OTLP over gRPC.
    pub(super) fn looks_like_grpc(&self) -> bool {
        self.port.is_some_and(|port| port.to_string().ends_with("4317"))
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
