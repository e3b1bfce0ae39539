//! `http.request.method`: a closed set, so that nothing a client sends can multiply series.

/// Methods of RFC 9110, PATCH (RFC 5789) and QUERY; anything else is `_OTHER`. Case-sensitive (RFC 9110 section 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the variants are the methods
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
    Head,
    Options,
    Patch,
    Connect,
    Trace,
    Query,
    Other,
}

impl Method {
    /// Method of a request line.
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            b"QUERY" => Self::Query,
            _ => Self::Other,
        }
    }

    /// Value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Query => "QUERY",
            Self::Other => "_OTHER",
        }
    }

    /// What stands in a span's name.
    pub fn span_name(self) -> &'static str {
        if self == Self::Other { "HTTP" } else { self.as_str() }
    }
}
