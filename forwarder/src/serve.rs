//! The small HTTP server of the scrape and admin endpoints: GET only, bounded in connections, sizes and time.
//!
//! In: a [`Listening`] address and a function from path and `Accept` to a reply. Out: a running [`Server`]; dropping it
//! closes it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 << 10;
/// Time for a request's head to arrive; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A short text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// From questions to answers.
pub type Handler = Arc<dyn Fn(Query<'_>) -> Reply + Send + Sync>;

/// An address that is ours, and that nobody serves yet.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    listener: std::net::TcpListener,
}

impl Listening {
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
    Ok(Listening { address: listener.local_addr()?, listener })
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
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
        let Listening { address, listener } = on;
        let listener = TcpListener::from_std(listener).map_err(|source| ServeError { address, source })?;
        Ok(Self { address, accepting: tokio::spawn(accept(listener, handler)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, handler: Handler) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, most likely: leave time for some to be closed.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let handler = handler.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let reply = answer(&request, &handler);
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
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, handler: &Handler) -> Response<Full<Bytes>> {
    let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let reply = if get {
        handler(Query { path: request.uri().path(), accept })
    } else {
        Reply::text(405, "only GET is served here\n")
    };
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(reply.content_type));
    if !get {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}
