//! The stream to the forwarder: connects, says hello, sends what the queue holds, takes acknowledgements.
//!
//! In: [`Shared`] (queue, hello, known processes). Out: bytes on the Unix socket; the queue gets shorter. Never gives
//! up: while there is no forwarder it tries again, at most every two seconds.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use spantap_proto::v1::{self, Acknowledgement};
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::queue::Queue;

const METHOD: &str = "/spantap.v1.Ingest/Stream";
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Largest answer: an acknowledgement has 9 bytes.
const MAX_ANSWER: usize = 1024;
/// Bytes of the fields of an answer.
const MAX_FIELDS: u32 = 16 * 1024;

/// What the drain and the stream share; both run on one thread.
pub struct Shared {
    /// Batches to send.
    pub queue: RefCell<Queue>,
    /// Told when the queue has got a batch.
    pub filled: Notify,
    /// Told when acknowledgements made room, and when a stream is over.
    pub emptied: Notify,
    /// Told when a stream begins: sockets must be announced again.
    pub began: Notify,
    /// Whether somebody takes what is in the queue.
    pub streaming: Cell<bool>,
}

/// Where the forwarder is and whom we accept as such.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Path of the ingest socket.
    pub socket: PathBuf,
    /// Users that may own the other end, beside root and ourselves; any owner of the socket file if empty.
    pub uids: Vec<u32>,
}

/// Runs until it is dropped.
pub async fn run(
    shared: Rc<Shared>,
    destination: Destination,
    hello: impl Fn() -> v1::Hello,
    facts: impl Fn() -> Bytes,
) {
    let mut pause = FIRST_PAUSE;
    let (mut told, mut told_shut_out) = (false, false);
    loop {
        match connect(&destination).await {
            Ok(channel) => {
                told_shut_out = false;
                let begun = tokio::time::Instant::now();
                let error = stream(&shared, channel, &hello(), facts()).await;
                shared.queue.borrow_mut().rewind();
                shared.streaming.set(false);
                // Who waits for the queue to become empty has to think again.
                shared.emptied.notify_one();
                // Whoever takes every stream and ends it at once is asked ever less often.
                if begun.elapsed() >= LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                told = true;
                match error {
                    None => tracing::info!("the forwarder ended the stream; waiting for the next one"),
                    // Another version, or a user who may not be the agent: not over in a moment.
                    Some(status)
                        if matches!(status.code(), tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied) =>
                    {
                        tracing::error!(reason = status.message(), "the forwarder refused the stream");
                        pause = LONGEST_PAUSE;
                    }
                    Some(status) => tracing::warn!(%status, "the stream to the forwarder broke; trying again"),
                }
            }
            // Not by itself over: it is told even to who knows that there is no forwarder.
            Err(reason @ ConnectError::ShutOut(_)) => {
                if !told_shut_out {
                    tracing::warn!(socket = %destination.socket.display(), %reason, "the forwarder cannot be reached");
                    told_shut_out = true;
                }
            }
            Err(reason) => {
                if !told {
                    tracing::info!(socket = %destination.socket.display(), %reason, "no forwarder yet; waiting for it");
                    told = true;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}; the agent is not in the socket's group: if the forwarder's user has changed, start the agent again")]
    ShutOut(std::io::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the other end of the socket belongs to user {0}, who may not be the forwarder (spantap.forwarder_uids)")]
    ForeignUser(u32),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Connects to the forwarder.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(destination: &Destination) -> Result<Channel, ConnectError> {
    let stream = UnixStream::connect(&destination.socket).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => ConnectError::ShutOut(error),
        _ => ConnectError::Io(error),
    })?;
    let peer = stream.peer_cred()?.uid();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&destination.socket)?);
    let own = rustix::process::geteuid().as_raw();
    let known = peer == 0 || peer == own || destination.uids.contains(&peer);
    if !(known || destination.uids.is_empty() && peer == owner) {
        return Err(ConnectError::ForeignUser(peer));
    }
    // tonic asks for a connector that can be called again; this one gives its only stream away.
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = once.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("the stream is over"));
        async move { stream }
    });
    Ok(Endpoint::from_static("http://spantap.invalid")
        .http2_max_header_list_size(MAX_FIELDS)
        .connect_with_connector(connector)
        .await?)
}

/// One stream, from hello to its end. `None`: the forwarder ended it in order.
async fn stream(shared: &Shared, channel: Channel, hello: &v1::Hello, facts: Bytes) -> Option<Status> {
    let (to_send, outgoing) = mpsc::channel::<Bytes>(2);
    let hello = v1::AgentMessage { body: Some(v1::agent_message::Body::Hello(hello.encode_to_vec().into())) };
    if to_send.send(hello.encode_to_vec().into()).await.is_err() || to_send.send(facts).await.is_err() {
        return Some(Status::internal("the outgoing stream ended before it began"));
    }
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    if let Err(error) = client.ready().await {
        return Some(Status::unavailable(error.to_string()));
    }
    let request = Request::new(ReceiverStream::new(outgoing));
    let mut incoming = match client.streaming(request, PathAndQuery::from_static(METHOD), BytesCodec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Some(status),
    };
    tracing::info!("streaming to the forwarder");
    shared.streaming.set(true);
    shared.began.notify_one();
    loop {
        let next = async {
            loop {
                let permit = to_send.reserve().await.ok()?;
                let batch = shared.queue.borrow_mut().send_next();
                match batch {
                    Some(batch) => permit.send(batch),
                    None => shared.filled.notified().await,
                }
            }
            #[allow(unreachable_code)]
            Some(())
        };
        tokio::select! {
            answer = incoming.message() => match answer {
                Ok(Some(Acknowledgement { sequence })) => {
                    shared.queue.borrow_mut().acknowledge(sequence);
                    shared.emptied.notify_one();
                }
                Ok(None) => return None,
                Err(status) => return Some(status),
            },
            _ = next => return Some(Status::unavailable("the connection is gone")),
        }
    }
}

/// Sends bytes that are encoded already; reads acknowledgements.
#[derive(Debug, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Acknowledgement;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Acknowledgement;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Acknowledgement>, Status> {
        if !source.has_remaining() {
            // An empty message is a message with its default values.
            return Ok(Some(Acknowledgement::default()));
        }
        Acknowledgement::decode(source).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
