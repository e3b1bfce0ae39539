//! The edge to the agent: a gRPC server on the ingest socket.
//!
//! In: whatever a connected agent sends. Out: [`Arrival`]s in their order, made of domain types; the one who takes them
//! acknowledges each batch. One agent at a time: when another comes, the old one is asked to hand over what it has and to
//! end, and only then the new one is heard (`turns`). A new stream of the same agent takes the place of the old one at once.

mod connections;
mod convert;
mod decode;
mod heartbeat;
mod socket;
mod turns;

use std::time::Duration;

use spantap_proto::{
    MAX_BATCH_BYTES, PROTOCOL_VERSION,
    v1::{
        self, Acknowledgement,
        agent_message::Body,
        ingest_server::{Ingest, IngestServer},
    },
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

pub use convert::{Batch, Invalid, decode_hello};
pub use socket::{BindError, bind, refused_directory};

use self::{
    connections::{Incoming, Peer},
    heartbeat::Heartbeat,
    turns::{Next, Turns},
};

/// Batches that may wait for the pipeline; more than this and the agent has to wait.
const WAITING: usize = 4;
/// Flow-control windows: several batches may be under way, so that a stream never waits for a round trip.
const WINDOW: u32 = 4 * 1024 * 1024;
/// Streams of one connection at a time: an agent has one, and asks for health over another connection.
const STREAMS: u32 = 1;
/// Bytes of the fields of a request; an agent's come to some hundred.
const FIELDS: u32 = 8 * 1024;
/// How long an agent may take to hand over when another has come; it takes `shutdown_timeout` at most, 10 s unless set otherwise.
const HANDOVER: Duration = Duration::from_secs(12);
/// Largest frame; a batch of the agent's usual size fits one.
const FRAME: u32 = 512 * 1024;

/// What comes from the agent.
#[derive(Debug)]
pub enum Arrival {
    /// A stream has begun.
    Began(Box<v1::Hello>),
    /// A batch; `taken` is sent its sequence once it is taken over.
    Batch {
        /// The batch.
        batch: Box<Batch>,
        /// To be told the sequence.
        taken: mpsc::Sender<Result<Acknowledgement, Status>>,
        /// Its sequence; 0 is not acknowledged.
        sequence: u64,
    },
    /// A message broke the rules of the protocol and was left out.
    Invalid(Invalid),
    /// The stream has ended.
    Ended,
}

/// Who may connect.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Numeric user ids beside root.
    pub uids: Vec<u32>,
}

/// Serves on `listener` until `stop` resolves. Arrivals end when the last stream has.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    allowed: Allowed,
    arrivals: mpsc::Sender<Arrival>,
    stop: oneshot::Receiver<()>,
) -> Result<(), ServeError> {
    let listener = UnixListener::from_std(listener)?;
    let service = Service { allowed, arrivals, turns: Turns::default(), heartbeat: Heartbeat::default() };
    let service = IngestServer::new(service).max_decoding_message_size(MAX_BATCH_BYTES);
    let incoming = Incoming::new(listener);
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(FIELDS)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // A dropped sender means stop as well.
            let _ = stop.await;
        })
        .await?;
    Ok(())
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be used.
    #[error("the ingest socket failed: {0}")]
    Socket(#[from] std::io::Error),
    /// The server failed.
    #[error("the ingest server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// A sender of arrivals and its receiver, bounded.
pub fn channel() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(WAITING)
}

struct Service {
    allowed: Allowed,
    arrivals: mpsc::Sender<Arrival>,
    turns: Turns,
    heartbeat: Heartbeat,
}

impl Service {
    fn check_peer<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.credentials);
        let Some(peer) = peer else {
            return Err(Status::permission_denied("the peer's credentials cannot be read"));
        };
        if peer.uid() == 0 || self.allowed.uids.contains(&peer.uid()) {
            return Ok(());
        }
        tracing::warn!(uid = peer.uid(), "refused an agent of a foreign user");
        Err(Status::permission_denied(format!("user {} may not be the agent (spantap.agent_uids)", peer.uid())))
    }
}

#[tonic::async_trait]
impl Ingest for Service {
    type StreamStream = ReceiverStream<Result<Acknowledgement, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.check_peer(&request)?;
        let streams = request.extensions().get::<Peer>().map(|peer| peer.streams.clone()).unwrap_or_default();
        let mut messages = request.into_inner();
        let hello = match messages.message().await? {
            Some(v1::AgentMessage { body: Some(Body::Hello(hello)) }) => {
                decode_hello(hello).map_err(|error| Status::invalid_argument(error.to_string()))?
            }
            _ => return Err(Status::invalid_argument("a stream begins with a hello")),
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            let reason = format!(
                "protocol version {} of agent {} is not version {PROTOCOL_VERSION} of spantap {}: install the same release of both",
                hello.protocol_version,
                convert::text(&hello.agent_version),
                env!("CARGO_PKG_VERSION"),
            );
            tracing::error!(reason, "refused an agent");
            return Err(Status::failed_precondition(reason));
        }
        let mut place = self.turns.begin(hello.agent_run).ok_or_else(another)?;
        let carried = streams.begin();
        let arrivals = self.arrivals.clone();
        let (taken, acknowledgements) = mpsc::channel(64);
        let heartbeat = self.heartbeat.begin();
        tokio::spawn(async move {
            let _carried = carried;
            let _turn = place.turn().await;
            if arrivals.send(Arrival::Began(Box::new(hello))).await.is_err() {
                return;
            }
            // An error is the end of the stream like any other: the agent sends again what was not acknowledged.
            let mut last_moment = None;
            loop {
                let message = tokio::select! {
                    biased;
                    next = place.next(), if last_moment.is_none() => {
                        let finish = Acknowledgement { sequence: 0, finish: true };
                        // Full: it reads nothing, so it need not be told.
                        if next == Next::Same || taken.try_send(Ok(finish)).is_err() {
                            let _ = taken.try_send(Err(another()));
                            return;
                        }
                        tracing::warn!(
                            "another agent has come: the one before is asked to hand over and to end. If both were started by \
                             mistake, stop one of them for good, or they take turns"
                        );
                        last_moment = Some(Instant::now() + HANDOVER);
                        continue;
                    }
                    () = at(last_moment) => {
                        tracing::warn!(
                            limit = ?HANDOVER,
                            "the agent before did not hand over in time; what it still has is not heard"
                        );
                        let _ = taken.try_send(Err(another()));
                        return;
                    }
                    message = messages.message() => message,
                };
                let Ok(Some(message)) = message else { break };
                heartbeat.heard();
                let Some(Body::Batch(batch)) = message.body else { continue };
                let mut invalid = Vec::new();
                let batch = Batch::decode(batch, &mut invalid);
                let arrival = match batch {
                    Ok((batch, sequence)) => Arrival::Batch { batch: Box::new(batch), taken: taken.clone(), sequence },
                    Err(invalid) => Arrival::Invalid(invalid),
                };
                for invalid in invalid.into_iter().map(Arrival::Invalid).chain([arrival]) {
                    if arrivals.send(invalid).await.is_err() {
                        return;
                    }
                }
            }
            if place.is_newest() {
                // No receiver: the program is stopping.
                let _ = arrivals.send(Arrival::Ended).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(acknowledgements)))
    }

    async fn health(&self, request: Request<v1::HealthRequest>) -> Result<Response<v1::HealthResponse>, Status> {
        self.check_peer(&request)?;
        let silent = self.heartbeat.silence();
        Ok(Response::new(v1::HealthResponse {
            streaming: silent.is_some(),
            silent_ms: silent.map_or(0, |silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        }))
    }
}

/// What an agent is told whose place is taken: it does not come back.
fn another() -> Status {
    Status::aborted("another agent has taken the place")
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
