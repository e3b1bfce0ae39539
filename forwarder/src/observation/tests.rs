#![allow(clippy::unwrap_used)]
use bytes::Bytes;

use super::*;
use crate::{exchange::RequestHeaders, sample};

/// What a change to the plain exchange makes of the ends: `server.address`, `server.port`, `client.address`, `url.scheme`.
fn ends(side: Side, change: impl FnOnce(&mut Exchange)) -> (String, Option<u16>, String, &'static str) {
    let mut exchange = sample::exchange(side);
    exchange.request.headers = RequestHeaders::default();
    change(&mut exchange);
    let rules = Rules::default();
    let seen = Observation::new(&exchange, sample::clock(), &rules);
    let host = |h: &Option<Host<'_>>| h.as_ref().map_or(String::new(), |h| h.as_str().to_owned());
    (host(&seen.server), seen.server_port, host(&seen.client), seen.scheme.as_str())
}

fn field(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

#[test]
fn ends_of_a_server() {
    let server = |change: fn(&mut RequestHeaders)| ends(Side::Server, |e| change(&mut e.request.headers));
    let want = |a: &str, p, c: &str, s| (a.to_owned(), Some(p), c.to_owned(), s);
    assert_eq!(server(|_| ()), want("10.0.0.1", 8080, "10.0.0.2", "http"));
    assert_eq!(server(|h| h.host = field("a.example")), want("a.example", 80, "10.0.0.2", "http"));
    assert_eq!(server(|h| h.host = field("[::1]:81")), want("::1", 81, "10.0.0.2", "http"));
    assert_eq!(server(|h| h.host = field("not a host")), want("10.0.0.1", 8080, "10.0.0.2", "http"));
    let proxied = |h: &mut RequestHeaders| {
        h.host = field("inner:8080");
        h.x_forwarded_for = field("203.0.113.9, 10.9.9.9");
        h.x_forwarded_proto = field("https");
        h.x_forwarded_host = field("shop.example");
    };
    assert_eq!(server(proxied), want("shop.example", 443, "203.0.113.9", "https"));
    let both = |h: &mut RequestHeaders| {
        h.x_forwarded_for = field("203.0.113.9");
        h.forwarded = field("for=198.51.100.1;host=f.example;proto=http");
    };
    assert_eq!(server(both), want("f.example", 80, "198.51.100.1", "http"));
    assert_eq!(server(|h| h.x_forwarded_for = field("unknown")), want("10.0.0.1", 8080, "10.0.0.2", "http"));
}

#[test]
fn what_went_through_tls_is_https() {
    let tls = |side, change: fn(&mut RequestHeaders)| {
        ends(side, |e| {
            e.tls = true;
            change(&mut e.request.headers);
        })
    };
    for side in [Side::Server, Side::Client] {
        let seen = tls(side, |h| h.host = field("a.example"));
        assert_eq!((seen.0.as_str(), seen.1, seen.3), ("a.example", Some(443), "https"));
    }
    // A proxy in front of it knows better.
    assert_eq!(tls(Side::Server, |h| h.x_forwarded_proto = field("http")).3, "http");
}

#[test]
fn ends_of_a_client() {
    let none = String::new();
    assert_eq!(ends(Side::Client, |_| ()), ("10.0.0.2".into(), Some(40000), none.clone(), "http"));
    let proxied = ends(Side::Client, |e| {
        e.request.headers.host = field("a.example");
        e.request.headers.x_forwarded_host = field("of.another.request");
    });
    assert_eq!(proxied, ("a.example".into(), Some(80), none.clone(), "http"));
    let absolute = ends(Side::Client, |e| {
        e.request.target = Bytes::from_static(b"https://t.example/x");
        e.request.headers.host = field("proxy");
    });
    assert_eq!(absolute, ("t.example".into(), Some(443), none.clone(), "https"));
    let tunnel = ends(Side::Client, |e| {
        e.request.method = Bytes::from_static(b"CONNECT");
        e.request.target = Bytes::from_static(b"t.example:8443");
    });
    assert_eq!(tunnel, ("t.example".into(), Some(8443), none.clone(), "http"));
    let unknown = ends(Side::Client, |e| {
        e.connection =
            std::sync::Arc::new(crate::model::Connection { endpoints: Endpoints::Unknown, ..(*e.connection).clone() });
    });
    assert_eq!(unknown, (none.clone(), None, none, "http"));
}

fn url(target: &'static str, host: Option<&'static str>) -> String {
    let mut exchange = sample::exchange(Side::Client);
    exchange.request.target = Bytes::from_static(target.as_bytes());
    exchange.request.headers.host = host.and_then(field);
    let rules = Rules { redactor: Redactor::new(&["sig".into()]), ..Default::default() };
    let seen = Observation::new(&exchange, sample::clock(), &rules);
    seen.url_full(&mut String::new()).concat()
}

#[test]
fn full_urls() {
    assert_eq!(url("/a?b=1", Some("h")), "http://h/a?b=1");
    assert_eq!(url("/a?sig=s", Some("h:80")), "http://h:80/a?sig=REDACTED");
    assert_eq!(url("/", Some("[::1]:8080")), "http://[::1]:8080/");
    assert_eq!(url("/", None), "http://10.0.0.2:40000/");
    assert_eq!(url("http://u:p@h/x?", None), "http://REDACTED:REDACTED@h/x?");
    assert_eq!(url("https://h", None), "https://h/");
    assert_eq!(url("*", Some("h")), "http://h");
}

#[test]
fn lengths_are_bounded() {
    let mut exchange = sample::exchange(Side::Server);
    exchange.request.target = format!("/{}?{}", "p".repeat(9000), "q".repeat(9000)).into();
    exchange.request.headers.user_agent = Some("é".repeat(9000).into());
    exchange.request.method = Bytes::from("M".repeat(9000));
    let rules = Rules::default();
    let seen = Observation::new(&exchange, sample::clock(), &rules);
    assert_eq!((seen.path.len(), seen.query.unwrap().len()), (MAX_PART, MAX_PART));
    assert_eq!(seen.user_agent.unwrap().len(), MAX_USER_AGENT);
    assert_eq!(seen.method_original.unwrap().len(), MAX_METHOD);
}
