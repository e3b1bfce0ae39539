//! `spantap-agent health`: whether the forwarder hears an agent.
//!
//! In: the ingest socket. Out: a line, or the failure that says what is wrong. The agent itself cannot be asked: it takes
//! no connections.

use std::time::Duration;

use spantap_proto::v1::{HealthRequest, ingest_client::IngestClient};
use tokio::time::timeout;

use crate::{
    failure::Failure,
    stream::{self, Destination},
};

/// The agent tells its figures each second, or each three if they stay the same; one that is silent for so long stands still.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// For connecting and the answer together.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks the forwarder.
///
/// # Errors
/// [`Failure::Unhealthy`] with the reason.
pub async fn ask(destination: &Destination) -> Result<(), Failure> {
    let unhealthy = |reason: String| Failure::Unhealthy(format!("{}: {reason}", destination.socket.display()));
    let asked = async {
        let channel = stream::connect(destination).await.map_err(|error| unhealthy(error.to_string()))?;
        let answer = IngestClient::new(channel).health(HealthRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| unhealthy(status.message().to_owned()))
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
