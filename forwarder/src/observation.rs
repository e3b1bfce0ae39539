//! What an exchange means in the terms of the semantic conventions, worked out once for spans, metrics and console.
//!
//! In: an [`Exchange`] and the clock. Out: an [`Observation`] that borrows from it: no allocation on the usual path.

pub mod authority;
pub mod forwarded;
pub mod method;
pub mod named;
pub mod route;
pub mod target;
pub mod verdict;

use std::{borrow::Cow, time::Duration};

use self::{
    method::Method,
    named::Named,
    route::{RouteId, Routes},
    target::{MAX_PART, Redactor, Target},
    verdict::{ErrorType, error_type},
};
use crate::{
    exchange::{Exchange, HttpVersion, Side},
    model::{ClockAnchor, Endpoints, UnixNs},
    value::{IpText, text},
};

/// Longest method that is kept as `http.request.method_original`, in bytes.
const MAX_METHOD: usize = 64;
/// Longest `user_agent.original`, in bytes.
const MAX_USER_AGENT: usize = 256;

/// `url.scheme`; a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme, without regard to case; `None` for any other.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.eq_ignore_ascii_case(b"http") {
            Some(Self::Http)
        } else if bytes.eq_ignore_ascii_case(b"https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// Value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Port where the authority names none (RFC 9110 section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Name or address of an end.
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// As it stood in a field or a path.
    Name(&'a str),
    /// From the connection.
    Ip(IpText),
}

impl Host<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Host::Name(name) => name,
            Host::Ip(ip) => ip.as_str(),
        }
    }
}

/// Configuration that observations depend on.
#[derive(Debug, Default)]
pub struct Rules {
    /// Patterns of `http.route`.
    pub routes: Routes,
    /// Secret query parameters.
    pub redactor: Redactor,
    /// No query is kept at all.
    pub drop_query: bool,
}

/// An exchange in the terms of the semantic conventions.
#[derive(Debug)]
pub struct Observation<'a> {
    /// What was observed.
    pub exchange: &'a Exchange,
    /// `http.request.method`.
    pub method: Method,
    /// `http.request.method_original`, where it differs.
    pub method_original: Option<Cow<'a, str>>,
    /// `http.route` of a server's, `url.template` of a client's exchange.
    pub route: Option<RouteId>,
    /// `url.scheme`.
    pub scheme: Scheme,
    /// `url.path`.
    pub path: Cow<'a, str>,
    /// `url.query`, redacted.
    pub query: Option<Cow<'a, str>>,
    /// Path as sent, empty for CONNECT.
    pub raw_path: &'a [u8],
    /// The target carried user information, which was dropped.
    pub userinfo: bool,
    /// `server.address`.
    pub server: Option<Host<'a>>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// Port as the request itself named it, for `url.full`.
    pub named_port: Option<u16>,
    /// `client.address`: server only.
    pub client: Option<Host<'a>>,
    /// `network.peer.address`.
    pub peer: Option<Host<'a>>,
    /// `network.peer.port`.
    pub peer_port: Option<u16>,
    /// `user_agent.original`.
    pub user_agent: Option<Cow<'a, str>>,
    /// `network.protocol.version`.
    pub version: &'static str,
    /// `http.response.status_code`: only one that was seen.
    pub status: Option<u16>,
    /// `error.type`.
    pub error: Option<ErrorType>,
    /// Start on the wall clock.
    pub start: UnixNs,
    /// End on the wall clock, not before `start`.
    pub end: UnixNs,
}

impl<'a> Observation<'a> {
    /// Works out what `exchange` means.
    pub fn new(exchange: &'a Exchange, clock: ClockAnchor, rules: &Rules) -> Self {
        let (request, headers) = (&exchange.request, &exchange.request.headers);
        let server_side = exchange.side == Side::Server;
        let method = Method::of(&request.method);
        let target = Target::parse(&request.target, method == Method::Connect);
        let named = Named::of(request, &target, exchange.side, exchange.tls);
        let Named { scheme, authority, .. } = named;
        let endpoints = &exchange.connection.endpoints;
        let (peer, peer_port) = peer(endpoints, exchange.side);
        let (server, server_port) = named.server(endpoints, exchange.side);
        let client = if server_side { named.client(request).map(Host::Name).or(peer) } else { None };
        let status = exchange.response.as_ref().map(|r| r.status);
        let start = clock.to_unix(exchange.start);
        Self {
            exchange,
            method,
            method_original: (method == Method::Other).then(|| text(&request.method, MAX_METHOD)),
            route: if server_side { rules.routes.find(target.path) } else { None },
            scheme,
            path: text(target.path, MAX_PART),
            raw_path: target.path,
            query: target.query.filter(|_| !rules.drop_query).map(|q| rules.redactor.redact(q)),
            userinfo: target.userinfo,
            server,
            server_port,
            named_port: authority.and_then(|a| a.port),
            client,
            peer,
            peer_port,
            user_agent: headers.user_agent.as_deref().map(|v| text(v, MAX_USER_AGENT)),
            version: match request.version {
                HttpVersion::Http10 => "1.0",
                HttpVersion::Http11 => "1.1",
            },
            status,
            error: error_type(exchange.side, status, exchange.outcome),
            start,
            end: clock.to_unix(exchange.end).max(start),
        }
    }

    /// Duration of span and metric alike.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end.0.saturating_sub(self.start.0))
    }

    /// Whether the connection is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.exchange.connection.endpoints, Endpoints::Unix { .. })
    }

    /// The pieces of `url.full`, one after the other; `port` is a place for the port's text.
    pub fn url_full<'b>(&'b self, port: &'b mut String) -> [&'b str; 8] {
        if let Some(number) = self.named_port.or(self.server_port.filter(|p| *p != self.scheme.default_port())) {
            use std::fmt::Write;
            let _ = write!(port, ":{number}");
        }
        let host = self.server.as_ref().map_or("", Host::as_str);
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        let scheme = match (self.scheme, self.userinfo) {
            (Scheme::Http, false) => "http://",
            (Scheme::Https, false) => "https://",
            (Scheme::Http, true) => "http://REDACTED:REDACTED@",
            (Scheme::Https, true) => "https://REDACTED:REDACTED@",
        };
        let query = self.query.as_deref();
        // The asterisk of `OPTIONS *` stands for the server as a whole and is no path (RFC 9112 section 3.2.4).
        let path = if self.path == "*" { "" } else { &*self.path };
        [scheme, open, host, close, port, path, if query.is_some() { "?" } else { "" }, query.unwrap_or("")]
    }
}

/// `network.peer.address` and `.port`. The path of a Unix socket is the server's end; a client's end is not bound.
fn peer(endpoints: &Endpoints, side: Side) -> (Option<Host<'_>>, Option<u16>) {
    match endpoints {
        Endpoints::Tcp { peer, .. } => (Some(Host::Ip(IpText::new(peer.0))), Some(peer.1)),
        Endpoints::Unix { path } if side == Side::Client => (path.as_deref().map(Host::Name), None),
        Endpoints::Unix { .. } | Endpoints::Unknown => (None, None),
    }
}

#[cfg(test)]
mod tests;
