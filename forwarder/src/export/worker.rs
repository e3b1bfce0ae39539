//! The worker of a destination: takes a batch, delivers it or gives it up, books it, takes the next.
//!
//! In: the queue. Out: settlements. Everything waits on timers or the network, so one thread serves all workers.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use spantap_config::Backoff;
use tokio::time::{Instant, sleep_until};

use super::{
    client::Client,
    log::RateLimit,
    queue::{Batch, Queue, Settlement},
    response::Answer,
};
use crate::{loss::Reason, telemetry::destination::Destination};

pub(super) struct Worker {
    pub(super) queue: Arc<Queue>,
    pub(super) client: Client,
    pub(super) backoff: Backoff,
    pub(super) books: Arc<Destination>,
}

/// Runs until the queue is closed and empty.
pub(super) async fn run(worker: Worker) {
    let mut log = RateLimit::default();
    while let Some(batch) = worker.queue.pop().await {
        let settlement = worker.deliver(&batch, &mut log).await;
        worker.queue.settle(settlement);
    }
}

impl Worker {
    async fn deliver(&self, batch: &Batch, log: &mut RateLimit) -> Settlement {
        let Some(packed) = self.client.pack(batch.body.clone()).await else {
            self.warn(log, "size", "the request is larger than 64 MiB");
            return Settlement::Lost(Reason::ExportRefused);
        };
        let mut pauses = pauses(self.backoff);
        let give_up = batch.sealed + self.backoff.max_elapsed;
        loop {
            let answer = tokio::select! {
                answer = self.client.send(&packed) => answer,
                () = self.queue.expired() => return Settlement::Lost(Reason::ExportAtStop),
            };
            match answer {
                Answer::Taken { rejected, message } => {
                    self.books.requests_ok.add(1);
                    self.books.set_refusal(None);
                    if rejected > 0 || !message.is_empty() {
                        self.warn(log, "partial", &format!("{rejected} items were not taken: {message}"));
                    }
                    return Settlement::Delivered { rejected };
                }
                Answer::Refused(what) => {
                    self.books.requests_failed.add(1);
                    self.warn(log, "refused", &what);
                    self.books.set_refusal(Some(what));
                    return Settlement::Lost(Reason::ExportRefused);
                }
                Answer::Retry { after, what } => {
                    self.books.requests_failed.add(1);
                    self.warn(log, "retry", &what);
                    if self.queue.is_superseded() {
                        return Settlement::Superseded;
                    }
                    let own = pauses.next().unwrap_or(self.backoff.max);
                    let at = Instant::now() + after.map_or(own, |asked| asked.max(own));
                    if at > give_up {
                        return Settlement::Lost(Reason::ExportGivenUp);
                    }
                    if !self.wait(at, after.is_some()).await {
                        return Settlement::Lost(Reason::ExportAtStop);
                    }
                }
            }
        }
    }

    /// Waits until `at`. A stop meanwhile gives one more try at once, unless the destination `asked` for the pause.
    /// False if `at` lies after the end of a stop.
    async fn wait(&self, at: Instant, asked: bool) -> bool {
        let closed_before = self.queue.deadline().is_some();
        if !closed_before {
            tokio::select! {
                () = sleep_until(at) => return true,
                _ = self.queue.closed() => {}
            }
            if !asked {
                return true;
            }
        }
        if self.queue.deadline().is_some_and(|deadline| at >= deadline) {
            return false;
        }
        sleep_until(at).await;
        true
    }

    fn warn(&self, log: &mut RateLimit, kind: &'static str, what: &str) {
        if let Some(held_back) = log.due(kind, Instant::now()) {
            let (signal, endpoint, headers) = (self.books.name(), &self.client.shown, &self.client.header_names);
            match kind {
                "retry" => {
                    tracing::warn!(signal, endpoint, headers, held_back, "export failed and is tried again: {what}")
                }
                "refused" => {
                    tracing::error!(signal, endpoint, headers, held_back, "export refused, data is lost: {what}")
                }
                _ => tracing::warn!(signal, endpoint, headers, held_back, "export: {what}"),
            }
        }
    }
}

/// Pauses that grow by half and are spread at random, so that many forwarders do not come back at once.
fn pauses(backoff: Backoff) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(backoff.initial.max(Duration::from_millis(1)))
        .with_max_delay(backoff.max)
        .with_factor(1.5)
        .with_jitter()
        .without_max_times()
        .build()
}
