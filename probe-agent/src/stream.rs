//! The stream to the forwarder: connects, says hello, sends what the queue holds, takes acknowledgements.
//!
//! In: [`Shared`] (queue, hello, known processes). Out: bytes on the Unix socket; the queue gets shorter. Never gives
//! up: while there is no forwarder it tries again, at most every two seconds; only where another agent has taken the place it does not. A forwarder that says nothing for longer than
//! [`Patience`] allows is left, and tried again: what it has not acknowledged stays in the queue.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use spantap_proto::v1::{self, Acknowledgement};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    connect::{Destination, connect},
    grpc::{CallError, Client, Code},
    queue::Queue,
};

const METHOD: &str = "/spantap.v1.Ingest/Stream";
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Largest answer: an acknowledgement has 9 bytes.
const MAX_ANSWER: usize = 1024;

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
    /// Told when another agent has come: this one is to end.
    pub replaced: Notify,
    /// Another agent has the stream already: nobody takes anything from this one any more.
    pub ousted: Cell<bool>,
}

impl Shared {
    /// Nobody takes what is in the queue yet.
    pub fn new(queue: Queue) -> Self {
        Self {
            queue: RefCell::new(queue),
            filled: Notify::new(),
            emptied: Notify::new(),
            began: Notify::new(),
            streaming: Cell::new(false),
            replaced: Notify::new(),
            ousted: Cell::new(false),
        }
    }
}

/// How long a forwarder may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the first sign that it speaks HTTP/2, for each ping, and for the answer to the hello.
    pub answer: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// Without an acknowledgement while it owes one. The agent has something to tell every three seconds at least.
    pub acknowledgement: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            ping: Duration::from_secs(10),
            acknowledgement: Duration::from_secs(30),
        }
    }
}

/// Runs until it is dropped.
pub async fn run(
    shared: Rc<Shared>,
    destination: Destination,
    patience: Patience,
    hello: impl Fn() -> v1::Hello,
    facts: impl Fn() -> Bytes,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = Told::default();
    loop {
        match connect(&destination).await {
            Ok(socket) => {
                let begun = Instant::now();
                let ended = stream(&shared, patience, socket, &hello(), facts()).await;
                shared.queue.borrow_mut().rewind();
                // Who waits for the queue to become empty has to think again.
                let streamed = shared.streaming.replace(false);
                if is_ousted(&ended) {
                    // To come back would take the place away from that one.
                    shared.ousted.set(true);
                    shared.replaced.notify_one();
                    shared.emptied.notify_one();
                    return std::future::pending().await;
                }
                shared.emptied.notify_one();
                // Whoever takes every stream and ends it at once is asked ever less often.
                if streamed && begun.elapsed() >= LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                if is_refused(&ended) {
                    // Another version, or a user who may not be the agent: not over in a moment.
                    pause = LONGEST_PAUSE;
                }
                told.ended(&destination, ended, streamed);
            }
            Err(reason) => told.not_connected(&destination, &reason.to_string(), reason.lasts()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn is_ousted(ended: &Result<(), CallError>) -> bool {
    matches!(ended, Err(CallError::Refused(status)) if status.code == Code::ABORTED)
}

fn is_refused(ended: &Result<(), CallError>) -> bool {
    let codes = [Code::FAILED_PRECONDITION, Code::PERMISSION_DENIED];
    matches!(ended, Err(CallError::Refused(status)) if codes.contains(&status.code))
}

/// What the log has been told, so that it is not told again at each try.
#[derive(Debug, Default)]
struct Told {
    /// That there is no forwarder, or no longer.
    absent: bool,
    /// What is not over by itself.
    lasting: String,
}

impl Told {
    fn not_connected(&mut self, destination: &Destination, reason: &str, lasts: bool) {
        let socket = destination.socket.display();
        if lasts {
            if self.is_new(reason) {
                tracing::warn!(%socket, reason, "the forwarder cannot be reached; trying again");
            }
        } else if !std::mem::replace(&mut self.absent, true) {
            tracing::info!(%socket, reason, "no forwarder yet; waiting for it");
        }
    }

    fn ended(&mut self, destination: &Destination, ended: Result<(), CallError>, streamed: bool) {
        self.absent = true;
        if streamed {
            self.lasting.clear();
        }
        match ended {
            Ok(()) => tracing::info!("the forwarder ended the stream; waiting for the next one"),
            Err(CallError::Refused(status)) if is_refused(&Err(status.clone().into())) => {
                tracing::error!(reason = status.message, "the forwarder refused the stream");
            }
            Err(error @ CallError::Silent { .. }) => {
                if self.is_new(&error.to_string()) {
                    let socket = destination.socket.display();
                    tracing::warn!(%socket, %error, "the forwarder does not answer; trying again, what it has not taken over is kept");
                }
            }
            Err(error) => tracing::warn!(%error, "the stream to the forwarder broke; trying again"),
        }
    }

    fn is_new(&mut self, reason: &str) -> bool {
        let new = self.lasting != reason;
        if new {
            reason.clone_into(&mut self.lasting);
        }
        new
    }
}

/// One stream, from hello to its end; `Ok`: the forwarder ended it in order.
///
/// # Errors
/// See [`CallError`].
pub async fn stream<T>(
    shared: &Shared,
    patience: Patience,
    socket: T,
    hello: &v1::Hello,
    facts: Bytes,
) -> Result<(), CallError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let silent = |what, after| CallError::Silent { what, after };
    // What is written here fits the socket's buffer, but whose it is is not known.
    let begun = async { Client::open(socket).await?.call(METHOD).await };
    let (mut sender, waiting, mut alive) =
        timeout(patience.answer, begun).await.map_err(|_| silent("it read nothing", patience.answer))??;
    let accepted = Notify::new();
    let outgoing = async {
        let hello = v1::AgentMessage { body: Some(v1::agent_message::Body::Hello(hello.encode_to_vec().into())) };
        sender.send(hello.encode_to_vec().into()).await?;
        sender.send(facts).await?;
        accepted.notified().await;
        loop {
            let batch = shared.queue.borrow_mut().send_next();
            match batch {
                Some(batch) => sender.send(batch).await?,
                None => shared.filled.notified().await,
            }
        }
    };
    let incoming = async {
        let answers = timeout(patience.answer, waiting.answers(MAX_ANSWER));
        let mut answers = answers.await.map_err(|_| silent("it did not answer the hello", patience.answer))??;
        tracing::info!("streaming to the forwarder");
        shared.streaming.set(true);
        shared.began.notify_one();
        accepted.notify_one();
        loop {
            let Ok(answer) = timeout(patience.acknowledgement, answers.next()).await else {
                if shared.queue.borrow().awaits_acknowledgement() {
                    return Err(silent("it acknowledged nothing", patience.acknowledgement));
                }
                continue;
            };
            let Some(answer) = answer? else { return Ok(()) };
            let answer = Acknowledgement::decode(answer);
            let answer = answer.map_err(|_| CallError::Protocol("an acknowledgement that is none"))?;
            if answer.finish {
                shared.replaced.notify_one();
            }
            shared.queue.borrow_mut().acknowledge(answer.sequence);
            shared.emptied.notify_one();
        }
    };
    let watch = alive.watch(patience.ping, patience.answer);
    let (outgoing, incoming, watch) = (pin!(outgoing), pin!(incoming), pin!(watch));
    tokio::select! {
        // What the other end says tells more than that the connection broke.
        biased;
        ended = incoming => ended,
        broken = outgoing => broken,
        error = watch => Err(error),
    }
}

#[cfg(test)]
mod tests;
