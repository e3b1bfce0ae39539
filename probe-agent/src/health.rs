//! `spantap-agent health`: whether the forwarder hears an agent.
//!
//! In: the ingest socket. Out: a line, or the failure that says what is wrong. The agent itself cannot be asked: it takes
//! no connections.

use std::time::Duration;

use prost::Message as _;
use spantap_proto::v1::{HealthRequest, HealthResponse};
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::{
    connect::{Destination, connect},
    failure::Failure,
    grpc::{CallError, Client},
};

const METHOD: &str = "/spantap.v1.Ingest/Health";
/// Largest answer: it has some ten bytes.
const MAX_ANSWER: usize = 1024;

/// The agent tells its figures each second, or each three if they stay the same; one that is silent for so long stands still.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// For connecting and the answer together.
const ANSWER: Duration = Duration::from_secs(5);

/// How often an agent that waits for the end of another asks, and how often nobody has to have streamed: an agent that the
/// forwarder has just lost comes back within two seconds.
const LOOK: Duration = Duration::from_secs(2);
const TIMES: u32 = 3;

/// Whether the forwarder hears another agent already; not, if it does not say so within a second.
pub async fn somebody_streams(destination: &Destination) -> bool {
    let asked = async { request(connect(destination).await.ok()?).await.ok() };
    matches!(timeout(Duration::from_secs(1), asked).await, Ok(Some(answer)) if answer.streaming)
}

/// Resolves when the forwarder is there and has had no agent for a while.
pub async fn until_nobody_streams(destination: &Destination) {
    let mut times = 0;
    while times < TIMES {
        sleep(LOOK).await;
        let asked = async { request(connect(destination).await.ok()?).await.ok() };
        match timeout(ANSWER, asked).await {
            Ok(Some(answer)) if !answer.streaming => times += 1,
            _ => times = 0,
        }
    }
}

/// Asks the forwarder.
///
/// # Errors
/// [`Failure::Unhealthy`] with the reason.
pub async fn ask(destination: &Destination) -> Result<(), Failure> {
    let unhealthy = |reason: String| Failure::Unhealthy(format!("{}: {reason}", destination.socket.display()));
    let asked = async {
        let socket = connect(destination).await.map_err(|error| unhealthy(error.to_string()))?;
        request(socket).await.map_err(|error| match error {
            CallError::Refused(status) => unhealthy(status.message),
            other => unhealthy(other.to_string()),
        })
    };
    let answer = timeout(ANSWER, asked)
        .await
        .map_err(|_| unhealthy(format!("the forwarder does not answer within {} s", ANSWER.as_secs())))??;
    let silent = Duration::from_millis(answer.silent_ms);
    if !answer.streaming {
        return Err(unhealthy("the forwarder is there, but no agent streams to it".to_owned()));
    }
    if silent > LONGEST_SILENCE {
        return Err(unhealthy(format!("the agent has been silent for {} s", silent.as_secs())));
    }
    println!("healthy: the forwarder heard an agent {} ms ago", answer.silent_ms);
    Ok(())
}

async fn request(socket: UnixStream) -> Result<HealthResponse, CallError> {
    let (mut sender, waiting, _alive) = Client::open(socket).await?.call(METHOD).await?;
    let asked = async {
        sender.send(HealthRequest {}.encode_to_vec().into()).await?;
        sender.finish();
        Ok(())
    };
    let answered = async {
        let answer = waiting.answers(MAX_ANSWER).await?.next().await?;
        HealthResponse::decode(answer.unwrap_or_default()).map_err(|_| CallError::Protocol("no answer to the question"))
    };
    tokio::try_join!(asked, answered).map(|((), answer)| answer)
}
