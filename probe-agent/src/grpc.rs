//! A gRPC client on one connection, as much of it as the agent needs.
//!
//! In: a connected byte stream, encoded messages. Out: HTTP/2, spoken by the `h2` crate; the messages and the status of the
//! other end. What gRPC adds to HTTP/2 is here, by
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>: the fields of a request, the prefix of a message
//! ([`message`]), the status in the trailers ([`status`]). No compression, no deadlines told to the other end.
//!
//! The other end is not trusted: an answer, its fields and what waits to be sent have bounds, and who is silent is left.

mod message;
mod status;

use std::{
    future::{pending, poll_fn},
    task::Poll,
    time::Duration,
};

use bytes::{Buf as _, Bytes, buf::Chain};
use h2::{
    Ping, PingPong, RecvStream, SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::{sleep, timeout},
};

pub use self::status::{Code, Status};
use self::{message::Reader, status::of_fields};

/// Bytes of the fields of an answer.
const MAX_FIELDS: u32 = 16 * 1024;
/// Bytes of a message that wait for the socket; what waits for acknowledgement stays in the agent's queue.
const MAX_WAITING: usize = 512 * 1024;

/// Why a call ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other end said so.
    #[error("{0}")]
    Refused(#[from] Status),
    /// The connection or the stream broke, or is not HTTP/2.
    #[error("{0}")]
    Broken(#[from] h2::Error),
    /// It speaks HTTP/2, but not gRPC.
    #[error("the other end does not speak gRPC as it should: {0}")]
    Protocol(&'static str),
    /// It does not answer.
    #[error("the other end took the connection, but for {} s {what}", after.as_secs_f32())]
    Silent {
        /// What it did not do.
        what: &'static str,
        /// For how long it was waited for.
        after: Duration,
    },
}

/// Part of a message, with its prefix if it is the first: one frame, no copy.
type Part = Chain<Bytes, Bytes>;

/// One connection.
#[derive(Debug)]
pub struct Client {
    requests: SendRequest<Part>,
    pings: PingPong,
    _driver: Driver,
}

/// Moves the frames of a connection until it is dropped.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Begins HTTP/2 on `stream`. That the other end answers is known from [`Alive::watch`] only. Takes a tokio runtime.
    ///
    /// # Errors
    /// If the stream takes nothing.
    pub async fn open<T>(stream: T) -> Result<Self, CallError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, mut connection): (_, Connection<T, Part>) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_FIELDS)
            .max_send_buffer_size(MAX_WAITING)
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong().ok_or(CallError::Protocol("no ping"))?;
        let driver = tokio::spawn(async move {
            // Each call is told of the error as well.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the forwarder ended");
            }
        });
        Ok(Self { requests, pings, _driver: Driver(driver) })
    }

    /// Begins a call of `method` (`/package.Service/Method`). Consumes the connection: each carries one call.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn call(self, method: &'static str) -> Result<(Sender, Waiting, Alive), CallError> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://spantap.invalid{method}"))
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::USER_AGENT, concat!("spantap-agent/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|_| CallError::Protocol("a request cannot be made"))?;
        let mut requests = self.requests.ready().await?;
        let (response, send) = requests.send_request(request, false)?;
        let alive = Alive { pings: self.pings, _driver: self._driver, _requests: requests };
        Ok((Sender(send), Waiting(response), alive))
    }
}

/// Keeps the connection; dropped, it is closed.
#[derive(Debug)]
pub struct Alive {
    pings: PingPong,
    _driver: Driver,
    _requests: SendRequest<Part>,
}

impl Alive {
    /// Asks at once and then `every` so often whether the other end still speaks HTTP/2 (PING, RFC 9113 section 6.7).
    /// Returns when a ping has no answer within `patience`, and why.
    pub async fn watch(&mut self, every: Duration, patience: Duration) -> CallError {
        loop {
            match timeout(patience, self.pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => sleep(every).await,
                Ok(Err(error)) => return error.into(),
                Err(_) => return CallError::Silent { what: "it answered nothing (HTTP/2 ping)", after: patience },
            }
        }
    }
}

/// The way to the other end.
#[derive(Debug)]
pub struct Sender(SendStream<Part>);

impl Sender {
    /// Sends a message as soon as the other end's flow control lets it through. On a broken stream it never returns:
    /// why it broke is told by the answers.
    ///
    /// # Errors
    /// If the message is longer than gRPC can tell.
    pub async fn send(&mut self, mut message: Bytes) -> Result<(), CallError> {
        let mut prefix = message::prefix(message.len())?;
        while prefix.len() + message.len() > 0 {
            let room = self.room(prefix.len() + message.len()).await;
            let first = prefix.split_to(room.min(prefix.len()));
            let second = message.split_to((room - first.len()).min(message.len()));
            if self.0.send_data(first.chain(second), false).is_err() {
                return pending().await;
            }
        }
        Ok(())
    }

    /// There are no more messages.
    pub fn finish(mut self) {
        // Broken: the answers tell it.
        let _ = self.0.send_data(Bytes::new().chain(Bytes::new()), true);
    }

    /// How many of `wanted` bytes may be sent; more than none.
    async fn room(&mut self, wanted: usize) -> usize {
        self.0.reserve_capacity(wanted);
        while self.0.capacity() == 0 {
            match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return pending().await,
            }
        }
        self.0.capacity()
    }
}

/// A call whose answer has not begun.
#[derive(Debug)]
pub struct Waiting(ResponseFuture);

impl Waiting {
    /// Waits for the beginning of the answer. Messages are at most `limit` bytes long.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn answers(mut self, limit: usize) -> Result<Answers, CallError> {
        let response = poll_fn(|cx| match self.0.poll_informational(cx) {
            // h2 keeps them until somebody asks; gRPC has none.
            Poll::Ready(Some(_)) => Poll::Ready(Err(CallError::Protocol("an interim response"))),
            _ => Future::poll(std::pin::Pin::new(&mut self.0), cx).map_err(CallError::from),
        })
        .await?;
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(CallError::Protocol("the HTTP status is not 200"));
        }
        let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            return Err(CallError::Protocol("the content type is not application/grpc"));
        }
        // "Trailers-Only": a status and nothing else.
        if let Some(status) = of_fields(&head.headers)? {
            return Err(if status.code == Code::OK { CallError::Protocol("no answer") } else { status.into() });
        }
        Ok(Answers { body, reader: Reader::new(limit) })
    }
}

/// The way back.
#[derive(Debug)]
pub struct Answers {
    body: RecvStream,
    reader: Reader,
}

impl Answers {
    /// The next message; `None` after the last, if the call ended well. May be dropped while it waits.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.reader.message()? {
                return Ok(Some(message));
            }
            match poll_fn(|cx| self.body.poll_data(cx)).await {
                Some(bytes) => {
                    let bytes = bytes?;
                    self.body.flow_control().release_capacity(bytes.len())?;
                    self.reader.push(&bytes);
                }
                None => break,
            }
        }
        let trailers: Option<HeaderMap> = poll_fn(|cx| self.body.poll_trailers(cx)).await?;
        if !self.reader.is_empty() {
            return Err(CallError::Protocol("the answer ends within a message"));
        }
        match of_fields(&trailers.unwrap_or_default())? {
            Some(status) if status.code == Code::OK => Ok(None),
            Some(status) => Err(status.into()),
            None => Err(CallError::Protocol("the answer ends without a status")),
        }
    }
}

#[cfg(test)]
mod tests;
