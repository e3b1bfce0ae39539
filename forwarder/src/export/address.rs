//! Where requests of a destination go.
//!
//! In: the endpoint as configured. Out: a URL, what of it may be shown, and whether it is on this host.

use std::net::IpAddr;

use reqwest::Url;
use spantap_config::Otlp;

use super::client::ClientError;

/// A checked endpoint.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) url: Url,
    /// For logs: no user information, no query.
    pub(super) shown: String,
    /// Whether connections stay on this host.
    pub(super) local: bool,
}

impl Address {
    /// Checks the endpoint of `otlp`.
    pub(super) fn of(otlp: &Otlp) -> Result<Self, ClientError> {
        let (url, shown) = parse(&otlp.endpoint)?;
        let local = otlp.socket.is_some() || is_loopback(&url);
        let shown = match (&otlp.socket, otlp.protocol) {
            (None, spantap_config::OtlpProtocol::HttpProtobuf | spantap_config::OtlpProtocol::HttpJson) => shown,
            _ => otlp.shown_endpoint().into_owned(),
        };
        Ok(Self { url, shown, local })
    }
}

fn parse(endpoint: &str) -> Result<(Url, String), ClientError> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
