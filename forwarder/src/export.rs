//! OTLP over HTTP and gRPC: encoded requests in, deliveries and counted losses out.
//!
//! Each destination has a bounded [`queue::Queue`] and one worker that sends a request at a time, with a few lanes beside it for
//! spans while all goes well, retries what may be retried, and books every item (rules: OTLP specification 1.11 and the exporter specification).
//! A destination that is slow or away never holds up another, nor the pipeline.

mod address;
pub mod client;
mod credentials;
pub mod grpc;
mod lane;
mod log;
mod pack;
pub mod queue;
pub mod response;
pub mod spool;
mod transport;
mod worker;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use spantap_config::{Backoff, Otlp, OtlpProtocol};
use tokio::{task::JoinHandle, time::Instant};

use self::{
    client::{Client, ClientError},
    queue::{Batch, Keep, Limits, Queue},
    spool::Spool,
};
use crate::telemetry::destination::Destination;

/// Soft limit of a request before compression: the Collector's default for gRPC is 4 MiB, for HTTP 20 MiB.
pub const SOFT_REQUEST_BYTES: usize = 3_500_000;
/// Encoded bytes of spans that may wait for a destination: the default number of spans, with some 750 bytes each. The bound
/// of the program's memory rests on it.
pub const SPAN_QUEUE_BYTES: usize = 12 << 20;
/// The same of data points: room for one collection of all series there may be, of which nothing can be left out.
pub const POINT_QUEUE_BYTES: usize = 64 << 20;
/// At a stop this much of the time, or a quarter of it, is kept for what goes to the spool.
const SPOOL_RESERVE: Duration = Duration::from_secs(1);

/// Requests of spans on their way at once, where the destination is well: 4,096 spans for each time that an answer takes are too
/// few beyond some 100 ms. JSON takes three times the bytes, so there are two of them.
const REQUESTS_AT_ONCE: usize = 4;
const JSON_AT_ONCE: usize = 2;

/// One OTLP destination with its worker.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    worker: JoinHandle<()>,
    lanes: Vec<JoinHandle<()>>,
    /// Moves batches when the spool has room, or could not write.
    mover: Option<JoinHandle<()>>,
}

/// How items wait and are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// Items that may wait at once.
    pub max_items: u64,
    /// Encoded bytes that may wait at once.
    pub max_bytes: usize,
    /// What stays when more comes.
    pub keep: Keep,
    /// Pauses between tries.
    pub backoff: Backoff,
}

impl Exporter {
    /// Starts the worker on the current runtime. `spool`: where what the destination cannot take is kept.
    ///
    /// # Errors
    /// If the destination's URL, headers or certificates are not usable.
    pub fn start(
        otlp: &Otlp,
        delivery: Delivery,
        spool: Option<Spool>,
        books: Arc<Destination>,
    ) -> Result<Self, ClientError> {
        let client = Arc::new(Client::new(otlp)?);
        books.capacity.set(delivery.max_items);
        let limits = Limits { items: delivery.max_items, bytes: delivery.max_bytes, keep: delivery.keep };
        let queue = Arc::new(Queue::new(limits, spool.clone(), books.clone()));
        let mover = spool.clone().map(|spool| {
            let queue = queue.clone();
            tokio::spawn(async move {
                loop {
                    spool.room().await;
                    queue.exchange_with_spool();
                }
            })
        });
        let at_once = match (delivery.keep, otlp.protocol) {
            (Keep::Latest, _) => 1,
            (Keep::All, OtlpProtocol::HttpJson) => JSON_AT_ONCE,
            (Keep::All, _) => REQUESTS_AT_ONCE,
        };
        let lane = |_| tokio::spawn(lane::run(queue.clone(), client.clone(), books.clone()));
        let lanes = (1..at_once).map(lane).collect();
        let worker = tokio::spawn(worker::run(worker::Worker {
            queue: queue.clone(),
            spool,
            spool_first: delivery.keep == Keep::Latest,
            client,
            backoff: delivery.backoff,
            books,
        }));
        Ok(Self { queue, worker, lanes, mover })
    }

    /// Hands over encoded requests that belong together; items that find no room are counted as lost.
    pub fn push(&self, requests: Vec<(Bytes, u64)>) {
        let sealed = Instant::now();
        self.queue.push(requests.into_iter().map(|(body, items)| Batch { body, items, sealed }).collect());
    }

    /// What this one cannot deliver until its end is `next`'s to deliver: the same destination as it is configured now.
    pub fn succeeded_by(&self, next: &Self) {
        self.queue.set_successor(&next.queue);
    }

    /// Sends what waits; what is not delivered in time goes to the spool, and what is in neither by `deadline` is counted as
    /// lost. Then the spool is let go of: another exporter that was given a clone of it goes on with it.
    pub async fn drain(mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let reserve = if self.mover.is_some() { SPOOL_RESERVE.min(left / 4) } else { Duration::ZERO };
        let sending = deadline - reserve;
        self.queue.close(sending);
        // A little longer than the worker's own limit: it books what it gives up.
        if tokio::time::timeout_at(sending + Duration::from_millis(100), &mut self.worker).await.is_err() {
            self.worker.abort();
            let _ = self.worker.await;
        }
        for helper in self.lanes.into_iter().chain(self.mover) {
            helper.abort();
            let _ = helper.await;
        }
        self.queue.abandon(deadline).await;
    }
}
