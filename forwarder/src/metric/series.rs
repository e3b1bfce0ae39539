//! Identity of a series: the attributes of a data point, all of closed sets but `server.address` and the configured routes.
//!
//! In: an observation. Out: a key that is looked up without an allocation, and its attributes.

use std::hash::{Hash, Hasher};

use hashbrown::Equivalent;

use crate::{
    exchange::{HttpVersion, Side},
    observation::{Host, Observation, Rules, Scheme, method::Method, route::RouteId, verdict::ErrorType},
    semconv::key,
    value::Value,
};

/// Attributes of a series but for `server.address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Which of the two metrics.
    pub side: Side,
    method: Method,
    scheme: Scheme,
    status: Option<u16>,
    error: Option<ErrorType>,
    version: HttpVersion,
    route: Option<RouteId>,
    port: Option<u16>,
}

/// A key that borrows from the observation.
#[derive(Debug, Clone, Copy)]
pub struct SeriesRef<'a> {
    /// All but the address.
    pub labels: Labels,
    address: Option<&'a str>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesKey {
    /// All but the address.
    pub labels: Labels,
    address: Option<Box<str>>,
}

impl<'a> SeriesRef<'a> {
    /// The series that `seen` belongs to.
    pub fn of(seen: &'a Observation<'_>) -> Self {
        let side = seen.exchange.side;
        // For a server its own address is opt-in: what clients put in `Host` would multiply series.
        let client = side == Side::Client;
        Self {
            labels: Labels {
                side,
                method: seen.method,
                scheme: seen.scheme,
                status: seen.status,
                error: seen.error,
                version: seen.exchange.request.version,
                route: seen.route,
                port: seen.server_port.filter(|_| client),
            },
            address: seen.server.as_ref().filter(|_| client).map(Host::as_str),
        }
    }

    /// The key, owned.
    pub fn to_key(self) -> SeriesKey {
        SeriesKey { labels: self.labels, address: self.address.map(Into::into) }
    }
}

// Both forms hash alike, or a key would not be found.
impl Hash for SeriesRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.labels, self.address).hash(state);
    }
}

impl Hash for SeriesKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.labels, self.address.as_deref()).hash(state);
    }
}

impl Equivalent<SeriesKey> for SeriesRef<'_> {
    fn equivalent(&self, key: &SeriesKey) -> bool {
        self.labels == key.labels && self.address == key.address.as_deref()
    }
}

impl SeriesKey {
    /// Attributes of the data point.
    pub fn attributes<'a>(&'a self, rules: &'a Rules) -> Vec<(&'static str, Value<'a>)> {
        let l = &self.labels;
        let mut out = vec![
            (key::HTTP_REQUEST_METHOD, Value::Str(l.method.as_str().into())),
            (key::URL_SCHEME, Value::Str(l.scheme.as_str().into())),
        ];
        if let Some(status) = l.status {
            out.push((key::HTTP_RESPONSE_STATUS_CODE, Value::Int(status.into())));
        }
        if let Some(error) = l.error {
            out.push((key::ERROR_TYPE, Value::Str(error.as_str())));
        }
        if let Some(route) = l.route {
            let name = if l.side == Side::Server { key::HTTP_ROUTE } else { key::URL_TEMPLATE };
            out.push((name, Value::Str(rules.routes.text(route).into())));
        }
        let version = match l.version {
            HttpVersion::Http10 => "1.0",
            HttpVersion::Http11 => "1.1",
        };
        out.push((key::NETWORK_PROTOCOL_VERSION, Value::Str(version.into())));
        if let Some(address) = &self.address {
            out.push((key::SERVER_ADDRESS, Value::Str((&**address).into())));
        }
        if let Some(port) = l.port {
            out.push((key::SERVER_PORT, Value::Int(port.into())));
        }
        out
    }
}
