//! What can tell the series of an instrument apart, as bits of a mask.
//!
//! In: nothing. Out: a set that says which parts of an observation are kept in a series' key.

use crate::semconv::key;

/// One part of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Attribute {
    /// `http.request.method`
    Method,
    /// `url.scheme`
    Scheme,
    /// `http.response.status_code`
    Status,
    /// `error.type`
    Error,
    /// `http.route`
    Route,
    /// `url.template`: the route of a client
    Template,
    /// `network.protocol.version`
    Version,
    /// `server.address`
    ServerAddress,
    /// `server.port`
    ServerPort,
    /// `url.path`
    UrlPath,
    /// `client.address`
    ClientAddress,
    /// `cpu.mode`
    CpuMode,
    /// `disk.io.direction`
    DiskDirection,
    /// Which side was observed (`span.kind`, `connection_type`).
    Side,
    /// Whether the span's status is Error (`status.code`).
    Failed,
    /// Name of the other end, if it has one (`client` or `server` of the service graph).
    Peer,
}

impl Attribute {
    /// Those that can be chosen by their key.
    pub const KEYED: [Self; 13] = [
        Self::Method,
        Self::Scheme,
        Self::Status,
        Self::Error,
        Self::Route,
        Self::Template,
        Self::Version,
        Self::ServerAddress,
        Self::ServerPort,
        Self::UrlPath,
        Self::ClientAddress,
        Self::CpuMode,
        Self::DiskDirection,
    ];

    /// Key of the attribute; empty for what has none of its own.
    pub fn key(self) -> &'static str {
        match self {
            Self::Method => key::HTTP_REQUEST_METHOD,
            Self::Scheme => key::URL_SCHEME,
            Self::Status => key::HTTP_RESPONSE_STATUS_CODE,
            Self::Error => key::ERROR_TYPE,
            Self::Route => key::HTTP_ROUTE,
            Self::Template => key::URL_TEMPLATE,
            Self::Version => key::NETWORK_PROTOCOL_VERSION,
            Self::ServerAddress => key::SERVER_ADDRESS,
            Self::ServerPort => key::SERVER_PORT,
            Self::UrlPath => key::URL_PATH,
            Self::ClientAddress => key::CLIENT_ADDRESS,
            Self::CpuMode => key::CPU_MODE,
            Self::DiskDirection => key::DISK_IO_DIRECTION,
            Self::Side | Self::Failed | Self::Peer => "",
        }
    }
}

/// A set of attributes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask(u32);

impl Mask {
    /// A set of those given.
    pub const fn of(attributes: &[Attribute]) -> Self {
        Self(0).with(attributes)
    }

    /// The set with more.
    #[must_use]
    pub const fn with(self, attributes: &[Attribute]) -> Self {
        let (mut bits, mut rest) = (self.0, attributes);
        while let [first, others @ ..] = rest {
            bits |= 1 << *first as u8;
            rest = others;
        }
        Self(bits)
    }

    /// The set without one.
    #[must_use]
    pub const fn without(self, attribute: Attribute) -> Self {
        Self(self.0 & !(1 << attribute as u8))
    }

    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `attribute` is in it.
    pub const fn has(self, attribute: Attribute) -> bool {
        self.0 & 1 << attribute as u8 != 0
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({:#x})", self.0)
    }
}
