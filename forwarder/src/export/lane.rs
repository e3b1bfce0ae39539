//! A lane beside the worker: sends one batch at a time, each once.
//!
//! In: batches that the queue spares. Out: settlements, or the batch back to the queue. So a destination that takes its time for an
//! answer is not asked for one request at a time; order across requests does not matter to spans.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    client::Client,
    log::RateLimit,
    queue::{Queue, Settlement},
    response::Answer,
};
use crate::{loss::Reason, telemetry::destination::Destination};

/// Runs until it is aborted: what it has on its way then is still the queue's.
pub(super) async fn run(queue: Arc<Queue>, client: Arc<Client>, books: Arc<Destination>) {
    let mut log = RateLimit::default();
    loop {
        let Some((ticket, batch)) = queue.pop_for_lane() else {
            queue.room_in_lanes().await;
            continue;
        };
        let Some(packed) = client.pack(batch.body.clone()).await else {
            // The worker says why.
            queue.give_back(ticket);
            continue;
        };
        match client.send(&packed).await {
            Answer::Taken { rejected, message } => {
                books.requests_ok.add(1);
                if (rejected > 0 || !message.is_empty())
                    && let Some(held_back) = log.due("partial", Instant::now())
                {
                    let (signal, endpoint) = (books.name(), client.shown());
                    tracing::warn!(signal, endpoint, held_back, "export: {rejected} items were not taken: {message}");
                }
                queue.settle_lane(ticket, Settlement::Delivered { rejected });
            }
            Answer::Refused(what) => {
                books.requests_failed.add(1);
                queue.set_well(false);
                if let Some(held_back) = log.due("refused", Instant::now()) {
                    let (signal, endpoint, headers) = (books.name(), client.shown(), client.header_names());
                    tracing::error!(signal, endpoint, headers, held_back, "export refused, data is lost: {what}");
                }
                books.set_refusal(Some(what));
                queue.settle_lane(ticket, Settlement::Lost(Reason::ExportRefused));
            }
            // All else is the worker's, which sends it again.
            Answer::Retry { .. } | Answer::Unauthorized { .. } => {
                books.requests_failed.add(1);
                queue.give_back(ticket);
            }
        }
    }
}
