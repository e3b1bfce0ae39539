//! OTLP over HTTP and gRPC: encoded requests in, deliveries and counted losses out.
//!
//! Each destination has a bounded [`queue::Queue`] and one worker that sends a request at a time, retries what may be
//! retried, and books every item (rules: OTLP specification 1.11 and the exporter specification).
//! A destination that is slow or away never holds up another, nor the pipeline.

mod address;
pub mod client;
mod credentials;
pub mod grpc;
mod log;
mod pack;
pub mod queue;
pub mod response;
mod transport;
mod worker;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use spantap_config::{Backoff, Otlp};
use tokio::{task::JoinHandle, time::Instant};

use self::{
    client::{Client, ClientError},
    queue::{Batch, Keep, Queue},
};
use crate::telemetry::destination::Destination;

/// Soft limit of a request before compression: the Collector's default for gRPC is 4 MiB, for HTTP 20 MiB.
pub const SOFT_REQUEST_BYTES: usize = 3_500_000;
/// Encoded bytes that may wait for one destination.
pub const QUEUE_BYTES: usize = 64 << 20;

/// One OTLP destination with its worker.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    worker: JoinHandle<()>,
}

/// How items wait and are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// Items that may wait at once.
    pub max_items: u64,
    /// What stays when more comes.
    pub keep: Keep,
    /// Pauses between tries.
    pub backoff: Backoff,
}

impl Exporter {
    /// Starts the worker on the current runtime.
    ///
    /// # Errors
    /// If the destination's URL, headers or certificates are not usable.
    pub fn start(otlp: &Otlp, delivery: Delivery, books: Arc<Destination>) -> Result<Self, ClientError> {
        let client = Client::new(otlp)?;
        books.capacity.set(delivery.max_items);
        let queue = Arc::new(Queue::new(delivery.max_items, QUEUE_BYTES, delivery.keep, books.clone()));
        let worker = tokio::spawn(worker::run(worker::Worker {
            queue: queue.clone(),
            client,
            backoff: delivery.backoff,
            books,
        }));
        Ok(Self { queue, worker })
    }

    /// Hands over encoded requests that belong together; items that find no room are counted as lost.
    pub fn push(&self, requests: Vec<(Bytes, u64)>) {
        let sealed = Instant::now();
        self.queue.push(requests.into_iter().map(|(body, items)| Batch { body, items, sealed }).collect());
    }

    /// Sends what waits; what is not delivered by `deadline` is counted as lost.
    pub async fn drain(mut self, deadline: Instant) {
        self.queue.close(deadline);
        // A little longer than the worker's own limit: it books what it gives up.
        if tokio::time::timeout_at(deadline + Duration::from_millis(100), &mut self.worker).await.is_err() {
            self.worker.abort();
            let _ = self.worker.await;
        }
        self.queue.abandon();
    }
}
