//! Identity of a series: those parts of an observation that its instrument keeps.
//!
//! In: an observation and a mask. Out: a key that is hashed once, looked up without an allocation, and its attributes.

use std::{
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    sync::LazyLock,
};

use hashbrown::Equivalent;
use rustc_hash::FxBuildHasher;

use super::attribute::{Attribute, Mask};
use crate::{
    exchange::{HttpVersion, Side},
    observation::{Host, Observation, Rules, Scheme, method::Method, route::RouteId, verdict::ErrorType},
    resource::Resource,
    semconv::key,
    value::Value,
};

/// What a number of a process is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// In the program.
    User,
    /// In the kernel.
    System,
    /// From storage.
    Read,
    /// To storage.
    Write,
}

/// What is known of a request before it is answered, as far as it tells series apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenRequest {
    /// `http.request.method`
    pub method: Method,
    /// `url.scheme`
    pub scheme: Scheme,
    /// `server.address`, if any series keeps it.
    pub server: Option<Box<str>>,
    /// `server.port`, the same.
    pub port: Option<u16>,
}

/// Attributes of a series but for texts. What the instrument does not keep is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Labels {
    side: Option<Side>,
    method: Option<Method>,
    scheme: Option<Scheme>,
    status: Option<u16>,
    error: Option<ErrorType>,
    version: Option<HttpVersion>,
    route: Option<RouteId>,
    port: Option<u16>,
    failed: Option<bool>,
    part: Option<Part>,
}

/// `server.address`, `url.path`, `client.address`, name of the other end.
const TEXTS: usize = 4;

/// A key that borrows from the observation.
#[derive(Debug, Clone, Copy)]
pub struct SeriesRef<'a> {
    hash: u64,
    labels: Labels,
    texts: [Option<&'a str>; TEXTS],
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesKey {
    hash: u64,
    labels: Labels,
    texts: [Option<Box<str>>; TEXTS],
}

/// Seeded by chance: texts of a key come from outside.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A text takes a hash that nobody outside can foresee. The labels are small numbers, which cannot be chosen so that many collide;
/// most keys have no texts.
fn hash(labels: &Labels, texts: &[Option<&str>; TEXTS]) -> u64 {
    let labels = FxBuildHasher.hash_one(labels);
    if texts.iter().all(Option::is_none) { labels } else { SEED.hash_one((labels, texts)) }
}

impl<'a> SeriesRef<'a> {
    /// The series that `seen` belongs to where what is in `mask` is kept.
    pub fn of(seen: &'a Observation<'_>, mask: Mask) -> Self {
        let exchange = seen.exchange;
        let labels = Labels {
            side: Some(exchange.side).filter(|_| mask.has(Attribute::Side)),
            method: Some(seen.method).filter(|_| mask.has(Attribute::Method)),
            scheme: Some(seen.scheme).filter(|_| mask.has(Attribute::Scheme)),
            status: seen.status.filter(|_| mask.has(Attribute::Status)),
            error: seen.error.filter(|_| mask.has(Attribute::Error)),
            version: Some(exchange.request.version).filter(|_| mask.has(Attribute::Version)),
            route: seen.route.filter(|_| mask.has(Attribute::Route) || mask.has(Attribute::Template)),
            port: seen.server_port.filter(|_| mask.has(Attribute::ServerPort)),
            failed: mask.has(Attribute::Failed).then(|| seen.error.is_some_and(ErrorType::fails_span)),
            part: None,
        };
        let text = |attribute, text: Option<&'a str>| text.filter(|_| mask.has(attribute));
        let path = if mask.has(Attribute::UrlPath) { Some(&*seen.path) } else { None };
        Self::new(
            labels,
            [
                text(Attribute::ServerAddress, seen.server.as_ref().map(Host::as_str)),
                path,
                text(Attribute::ClientAddress, seen.client.as_ref().map(Host::as_str)),
                if mask.has(Attribute::Peer) { peer(seen) } else { None },
            ],
        )
    }

    /// The series that counts `request` where what is in `mask` is kept.
    pub fn of_open(request: &'a OpenRequest, mask: Mask) -> Self {
        let labels = Labels {
            method: Some(request.method).filter(|_| mask.has(Attribute::Method)),
            scheme: Some(request.scheme).filter(|_| mask.has(Attribute::Scheme)),
            port: request.port.filter(|_| mask.has(Attribute::ServerPort)),
            ..Labels::default()
        };
        let server = request.server.as_deref().filter(|_| mask.has(Attribute::ServerAddress));
        Self::new(labels, [server, None, None, None])
    }

    /// A series of a process itself.
    pub fn of_process(part: Option<Part>) -> Self {
        Self::new(Labels { part, ..Labels::default() }, [None; TEXTS])
    }

    fn new(labels: Labels, texts: [Option<&'a str>; TEXTS]) -> Self {
        Self { hash: hash(&labels, &texts), labels, texts }
    }

    /// The key, owned.
    pub fn to_key(self) -> SeriesKey {
        SeriesKey { hash: self.hash, labels: self.labels, texts: self.texts.map(|text| text.map(Into::into)) }
    }
}

/// Name of the other end; an address names no service.
fn peer<'a>(seen: &'a Observation<'_>) -> Option<&'a str> {
    let host = if seen.exchange.side == Side::Client { &seen.server } else { &seen.client };
    match host {
        Some(Host::Name(name)) if name.parse::<std::net::IpAddr>().is_err() => Some(name),
        _ => None,
    }
}

// Both forms hash alike, or a key would not be found.
impl Hash for SeriesRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for SeriesKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<SeriesKey> for SeriesRef<'_> {
    fn equivalent(&self, key: &SeriesKey) -> bool {
        let same = |(own, other): (&Option<&str>, &Option<Box<str>>)| *own == other.as_deref();
        self.labels == key.labels && self.texts.iter().zip(&key.texts).all(same)
    }
}

/// For tables whose keys carry their hash: instruments that keep the same attributes share the work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hashed(u64);

/// Makes [`Hashed`].
pub type BuildHashed = BuildHasherDefault<Hashed>;

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached: keys write one number.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl SeriesKey {
    /// Conventional attributes of what is kept, by an instrument of `side`.
    pub(super) fn chosen<'a>(&'a self, side: Option<Side>, rules: &'a Rules, out: &mut Vec<(&'a str, Value<'a>)>) {
        let l = &self.labels;
        let [server, path, client, _] = &self.texts;
        let text = |text: &'a Option<Box<str>>| text.as_deref().map(|text| Value::Str(text.into()));
        let route = if side == Some(Side::Client) { key::URL_TEMPLATE } else { key::HTTP_ROUTE };
        let all = [
            (key::HTTP_REQUEST_METHOD, l.method.map(|method| Value::Str(method.as_str().into()))),
            (key::URL_SCHEME, l.scheme.map(|scheme| Value::Str(scheme.as_str().into()))),
            (key::HTTP_RESPONSE_STATUS_CODE, l.status.map(|status| Value::Int(status.into()))),
            (key::ERROR_TYPE, l.error.map(|error| Value::Str(error.as_str()))),
            (route, l.route.map(|route| Value::Str(rules.routes.text(route).into()))),
            (key::NETWORK_PROTOCOL_VERSION, l.version.map(|version| Value::Str(version_text(version).into()))),
            (key::SERVER_ADDRESS, text(server)),
            (key::SERVER_PORT, l.port.map(|port| Value::Int(port.into()))),
            (key::URL_PATH, text(path)),
            (key::CLIENT_ADDRESS, text(client)),
        ];
        out.extend(all.into_iter().filter_map(|(key, value)| Some((key, value?))));
        match l.part {
            Some(Part::User) => out.push((key::CPU_MODE, Value::Str("user".into()))),
            Some(Part::System) => out.push((key::CPU_MODE, Value::Str("system".into()))),
            Some(Part::Read) => out.push((key::DISK_IO_DIRECTION, Value::Str("read".into()))),
            Some(Part::Write) => out.push((key::DISK_IO_DIRECTION, Value::Str("write".into()))),
            None => {}
        }
    }

    /// Attributes of span metrics, as Beyla writes them.
    pub(super) fn span<'a>(&'a self, rules: &'a Rules, out: &mut Vec<(&'a str, Value<'a>)>) {
        let l = &self.labels;
        let method = l.method.map_or("HTTP", Method::span_name);
        // The span's own name.
        let name: std::borrow::Cow<'a, str> = match l.route {
            Some(route) => format!("{method} {}", rules.routes.text(route)).into(),
            None => method.into(),
        };
        let kind = if l.side == Some(Side::Client) { "SPAN_KIND_CLIENT" } else { "SPAN_KIND_SERVER" };
        let status = if l.failed == Some(true) { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" };
        out.extend([
            (key::SPAN_NAME, Value::Str(name)),
            (key::SPAN_KIND, Value::Str(kind.into())),
            (key::STATUS_CODE, Value::Str(status.into())),
            (key::SOURCE, Value::Str(SOURCE.into())),
        ]);
    }

    /// Attributes of an edge of the service graph. The end that was not observed is known by the name that stood in the request,
    /// else by Beyla's words for it.
    pub(super) fn edge<'a>(&'a self, resource: &'a Resource, out: &mut Vec<(&'a str, Value<'a>)>) {
        let own = (resource.text(key::SERVICE_NAME), resource.text(key::SERVICE_NAMESPACE));
        let [.., peer] = &self.texts;
        let peer = peer.as_deref().filter(|name| !name.is_empty());
        let (client, server) = if self.labels.side == Some(Side::Client) {
            (own, (peer.unwrap_or("outgoing"), ""))
        } else {
            ((peer.unwrap_or("incoming"), ""), own)
        };
        out.extend([
            (key::CLIENT, Value::Str(client.0.into())),
            (key::CLIENT_SERVICE_NAMESPACE, Value::Str(client.1.into())),
            (key::SERVER, Value::Str(server.0.into())),
            (key::SERVER_SERVICE_NAMESPACE, Value::Str(server.1.into())),
            (key::SOURCE, Value::Str(SOURCE.into())),
        ]);
    }
}

/// Value of `source`.
const SOURCE: &str = "spantap";

fn version_text(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Http10 => "1.0",
        HttpVersion::Http11 => "1.1",
    }
}
