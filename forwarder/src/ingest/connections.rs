//! The connections of the ingest socket: few, and none that says nothing.
//!
//! In: the listening socket. Out: connections, at most [`MOST`] at a time. One that carries no agent's stream is closed
//! after [`PATIENCE`], however slowly or often it sends: room for the agent is not to be had by waiting.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::UCred},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Connections at a time: the agent's, the one that it may have left behind, and those that ask for health. Each can
/// make us hold two windows of flow control.
pub(super) const MOST: usize = 8;
/// For how long a connection may be without an agent's stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts connections.
pub(super) struct Incoming {
    listener: UnixListener,
    room: Arc<Semaphore>,
}

impl Incoming {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(MOST)) }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stream, _) = ready!(self.listener.poll_accept(cx))?;
            if let Ok(permit) = self.room.clone().try_acquire_owned() {
                return Poll::Ready(Some(Ok(Connection::new(stream, permit))));
            }
            tracing::debug!("closed a connection to the ingest socket: there are {MOST} already");
        }
    }
}

/// One connection.
pub(super) struct Connection {
    stream: UnixStream,
    streams: Streams,
    /// When it is next looked at whether it carries a stream.
    due: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

/// How many agent's streams a connection carries.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<AtomicUsize>);

/// One of them, from its hello until this is dropped.
#[derive(Debug)]
pub(super) struct Carried(Streams);

impl Streams {
    pub(super) fn begin(&self) -> Carried {
        self.0.fetch_add(1, Ordering::Relaxed);
        Carried(self.clone())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Who is at the other end; `None` if the kernel does not tell.
    pub(super) credentials: Option<UCred>,
    /// To be told of the agent's stream.
    pub(super) streams: Streams,
}

impl Connection {
    fn new(stream: UnixStream, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, streams: Streams::default(), due: Box::pin(sleep(PATIENCE)), _permit: permit }
    }

    /// Fails once it has been without a stream for too long.
    fn patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.due.as_mut().poll(cx).is_ready() {
            if self.streams.0.load(Ordering::Relaxed) == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.due.as_mut().reset(Instant::now() + PATIENCE);
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { credentials: self.stream.peer_cred().ok(), streams: self.streams.clone() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.patience(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.patience(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.patience(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
