//! The small HTTP server of the scrape and admin endpoints: GET only, bounded in connections, sizes and time.
//!
//! In: a [`Listening`] address, who is let in, and a function from path and `Accept` to a reply. Out: a running [`Server`];
//! dropping it closes it.

pub mod body;
pub mod credentials;
mod patience;
pub mod tls;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY,
        WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    body::{Content, Sending},
    credentials::Credentials,
    patience::Patient,
};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 << 10;
/// Time for a request's head to arrive; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may let a write wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Error numbers of Linux for a protocol and for an address that the host does not have.
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

/// An address that can not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ServeError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Path, without query.
    pub path: &'a str,
    /// `Accept`; empty if absent.
    pub accept: &'a str,
}

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Content,
}

impl Reply {
    /// A short text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: Content::Text(body.into()) }
    }
}

/// From questions to answers.
pub type Handler = Arc<dyn Fn(Query<'_>) -> Reply + Send + Sync>;

/// Who is let in, and how what is said is protected.
#[derive(Clone, Default)]
pub struct Guard {
    /// Names whom it lets in; everybody if `None`.
    pub credentials: Option<Credentials>,
    /// Speaks TLS; plain if `None`.
    pub tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("credentials", &self.credentials).field("tls", &self.tls.is_some()).finish()
    }
}

/// An address that is ours, and that nobody serves yet.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    listener: std::net::TcpListener,
    guard: Guard,
}

impl Listening {
    /// The same, with `guard`.
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// Listens on the first of `addresses` whose kind the host knows. Needs no runtime.
    ///
    /// # Errors
    /// If the address is taken or not of this host.
    pub fn on(addresses: &[SocketAddr]) -> Result<Self, ServeError> {
        let mut failed = None;
        for address in addresses {
            match listen(*address) {
                Ok(listening) => return Ok(listening),
                Err(source) => {
                    // Only the lack of a protocol leads on: an address in use stays an error.
                    let leads_on = matches!(source.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL));
                    failed = Some(ServeError { address: *address, source });
                    if !leads_on {
                        break;
                    }
                }
            }
        }
        let unknown =
            || ServeError { address: ([0, 0, 0, 0], 0).into(), source: std::io::ErrorKind::InvalidInput.into() };
        Err(failed.unwrap_or_else(unknown))
    }
}

fn listen(address: SocketAddr) -> std::io::Result<Listening> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listening { address: listener.local_addr()?, listener, guard: Guard::default() })
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    guard: Arc<Mutex<Guard>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Serves, on the current runtime.
    ///
    /// # Errors
    /// If the runtime cannot wait for the socket.
    pub fn start(on: Listening, handler: Handler) -> Result<Self, ServeError> {
        let Listening { address, listener, guard } = on;
        let listener = TcpListener::from_std(listener).map_err(|source| ServeError { address, source })?;
        let guard = Arc::new(Mutex::new(guard));
        Ok(Self { address, guard: guard.clone(), accepting: tokio::spawn(accept(listener, handler, guard)) })
    }

    /// Who is let in from now on; connections that are open stay as they are.
    pub fn set_guard(&self, guard: Guard) {
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = guard;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, handler: Handler, guard: Arc<Mutex<Guard>>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => Patient::new(stream, WRITE_TIMEOUT),
            // Out of descriptors, most likely: leave time for some to be closed.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handler = handler.clone();
        connections.spawn(async move {
            match &guard.tls {
                None => serve(stream, handler, guard.credentials).await,
                Some(tls) => match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, handler, guard.credentials).await,
                    Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
            drop(permit);
        });
    }
}

async fn serve<S>(stream: S, handler: Handler, credentials: Option<Credentials>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let reply = answer(&request, &handler, credentials.as_ref());
        async move { Ok::<_, Infallible>(reply) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection ended early: {error}");
    }
}

fn answer(request: &Request<Incoming>, handler: &Handler, credentials: Option<&Credentials>) -> Response<Sending> {
    let field = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let admitted = credentials.is_none_or(|credentials| credentials.admit(given));
    let reply = match (admitted, get) {
        (false, _) => Reply::text(401, "user name and password are asked for here\n"),
        (true, false) => Reply::text(405, "only GET is served here\n"),
        (true, true) => handler(Query { path: request.uri().path(), accept: field(ACCEPT) }),
    };
    let pieces = matches!(reply.body, Content::Pieces(_));
    let gzip = pieces && takes_gzip(field(ACCEPT_ENCODING));
    let mut response = Response::new(Sending::new(reply.body, gzip));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut set = |name, value| drop(response.headers_mut().insert(name, HeaderValue::from_static(value)));
    set(CONTENT_TYPE, reply.content_type);
    if pieces {
        set(VARY, "Accept, Accept-Encoding");
    }
    if gzip {
        set(CONTENT_ENCODING, "gzip");
    }
    if !admitted {
        set(WWW_AUTHENTICATE, "Basic realm=\"spantap\", charset=\"UTF-8\"");
    } else if !get {
        set(ALLOW, "GET, HEAD");
    }
    response
}

/// Whether `field`, an `Accept-Encoding`, lets gzip in (RFC 9110 section 12.5.3).
fn takes_gzip(field: &str) -> bool {
    let mut any = false;
    for coding in field.split(',').take(32) {
        let name = coding.split(';').next().unwrap_or_default().trim();
        let wanted = weight(coding) > 0.0;
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return wanted;
        }
        any |= name == "*" && wanted;
    }
    any
}

/// Weight of an item of a list (RFC 9110 section 12.4.2): 1 if it has none, 0 if it is none.
pub(crate) fn weight(item: &str) -> f32 {
    let parameters = item.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut weights = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weights.next().map_or(1.0, |(_, q)| q.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_negotiated() {
        for (field, want) in [
            ("", false),
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*", true),
            ("*;q=0", false),
            ("br, identity", false),
            ("gzip; Q = 0", false),
            ("gzip;q=nonsense", false),
            ("gzip;q=-1", false),
        ] {
            assert_eq!(takes_gzip(field), want, "{field}");
        }
    }
}
