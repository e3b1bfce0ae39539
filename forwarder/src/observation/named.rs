//! Which scheme and which host a request names: what proxies say of the original request, then its target, then `Host`.
//!
//! In: a request, as soon as its head was read. Out: a scheme always, a host where one is named.

use super::{Host, Scheme, authority, authority::Authority, forwarded, forwarded::Forwarded, target::Target};
use crate::{
    exchange::{Request, Side},
    model::Endpoints,
    value::IpText,
};

/// What a request names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// `url.scheme`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Option<Authority<'a>>,
    forwarded: Forwarded<'a>,
    server_side: bool,
}

impl<'a> Named<'a> {
    /// What `request` names, of which `target` is the target; `tls`: it came through TLS. Of what proxies say only a server's
    /// side is asked.
    pub fn of(request: &'a Request, target: &Target<'a>, side: Side, tls: bool) -> Self {
        let headers = &request.headers;
        let server_side = side == Side::Server;
        let forwarded = by_proxies(request, server_side);
        let scheme = scheme(request, &forwarded, target, server_side, tls);
        let authority = forwarded
            .host
            .or_else(|| first(&headers.x_forwarded_host, server_side).and_then(authority::parse))
            .or(target.authority)
            .or_else(|| headers.host.as_deref().and_then(authority::parse));
        Self { scheme, authority, forwarded, server_side }
    }

    /// Who asked, by what proxies say. `request` is the one that was given before.
    pub fn client(&self, request: &'a Request) -> Option<&'a str> {
        let field = first(&request.headers.x_forwarded_for, self.server_side);
        self.forwarded.client.or_else(|| field.and_then(forwarded::client))
    }

    /// `server.address` and `server.port`: as named, else those of the connection.
    pub fn server(&self, endpoints: &'a Endpoints, side: Side) -> (Option<Host<'a>>, Option<u16>) {
        match self.authority {
            Some(named) => (Some(Host::Name(named.host)), Some(named.port.unwrap_or(self.scheme.default_port()))),
            None => server_end(endpoints, side),
        }
    }
}

/// `url.scheme` of a request that a server received, where nothing else is asked for.
pub fn scheme_received(request: &Request, target: &Target<'_>, tls: bool) -> Scheme {
    scheme(request, &by_proxies(request, true), target, true, tls)
}

fn by_proxies(request: &Request, server_side: bool) -> Forwarded<'_> {
    match &request.headers.forwarded {
        Some(field) if server_side => forwarded::parse(field),
        _ => Forwarded::default(),
    }
}

/// The first value of a field that only proxies write.
fn first(field: &Option<bytes::Bytes>, server_side: bool) -> Option<&[u8]> {
    field.as_ref().filter(|_| server_side).map(|field| forwarded::first(field))
}

fn scheme(request: &Request, forwarded: &Forwarded<'_>, target: &Target<'_>, server_side: bool, tls: bool) -> Scheme {
    forwarded
        .scheme
        .or_else(|| first(&request.headers.x_forwarded_proto, server_side).and_then(Scheme::parse))
        .or(target.scheme)
        .unwrap_or(if tls { Scheme::Https } else { Scheme::Http })
}

/// The server's end of the connection, for requests that name no host.
fn server_end(endpoints: &Endpoints, side: Side) -> (Option<Host<'_>>, Option<u16>) {
    match (endpoints, side) {
        (Endpoints::Tcp { local: end, .. }, Side::Server) | (Endpoints::Tcp { peer: end, .. }, Side::Client) => {
            (Some(Host::Ip(IpText::new(end.0))), Some(end.1))
        }
        (Endpoints::Unix { path }, _) => (path.as_deref().map(Host::Name), None),
        (Endpoints::Unknown, _) => (None, None),
    }
}
