//! The worker of a destination: takes a batch, delivers it or gives it up, books it, takes the next.
//!
//! In: the queue, the spool. Out: settlements. Everything waits on timers or the network, so one thread serves all workers.

mod refused;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use spantap_config::Backoff;
use tokio::time::{Instant, sleep_until};

use super::{
    client::Client,
    log::RateLimit,
    queue::{Batch, Queue, Settlement},
    response::Answer,
    spool::{Loan, Spool},
};
use crate::{loss::Reason, telemetry::destination::Destination};

/// A destination that has not taken a batch for so long, and is not to be asked again before, is away: what waits for it
/// goes to the spool.
const AWAY_AFTER: Duration = Duration::from_secs(2);

pub(super) struct Worker {
    pub(super) queue: Arc<Queue>,
    pub(super) spool: Option<Spool>,
    /// Whether what is in the spool is older than all that comes, and has to arrive before it.
    pub(super) spool_first: bool,
    pub(super) client: Arc<Client>,
    pub(super) backoff: Backoff,
    pub(super) books: Arc<Destination>,
}

/// What is to be sent next.
enum Work {
    Fresh(Batch),
    Spooled(Spool, Loan),
}

/// What became of a request.
enum Outcome {
    Settled(Settlement),
    /// It stays where it is, or went to the spool.
    Kept,
}

/// Runs until the queue is closed and empty.
pub(super) async fn run(worker: Worker) {
    let mut log = RateLimit::default();
    let mut fresh_was_last = false;
    while let Some(work) = worker.next(fresh_was_last).await {
        fresh_was_last = matches!(work, Work::Fresh(_));
        let outcome = match &work {
            Work::Fresh(batch) => worker.deliver(batch, None, &mut log).await,
            Work::Spooled(spool, loan) => worker.deliver(&loan.batch, Some((spool, loan)), &mut log).await,
        };
        match (outcome, work) {
            (Outcome::Settled(settlement), Work::Fresh(_)) => worker.queue.settle(settlement),
            (Outcome::Settled(settlement), Work::Spooled(spool, loan)) => spool.settle(loan, settlement),
            // The queue still has it, and hands it to the spool with all others.
            (Outcome::Kept, _) if worker.queue.deadline().is_some() => return,
            (Outcome::Kept, _) => {}
        }
    }
}

impl Worker {
    /// In turns: one from the queue, one from the spool, so that neither waits for more than one of the other. While the
    /// destination is away only the spool's. At a stop first what is in memory, and nothing of a destination that is away:
    /// what is in the spool is safe there.
    async fn next(&self, fresh_was_last: bool) -> Option<Work> {
        loop {
            let closed = self.queue.deadline().is_some();
            if closed && self.spool.is_some() && self.queue.is_away() {
                return None;
            }
            // At a stop asking also waits for what is still on its way to the disk.
            let spool = self.spool.as_ref().filter(|spool| closed || spool.is_readable());
            let turn = self.spool_first || !closed && (fresh_was_last || self.queue.is_away());
            if let Some(spool) = spool.filter(|_| turn)
                && let Some(loan) = spool.lend().await
            {
                return Some(Work::Spooled(spool.clone(), loan));
            }
            if let Some(batch) = self.queue.pop() {
                return Some(Work::Fresh(batch));
            }
            if let Some(spool) = spool.filter(|_| !turn)
                && let Some(loan) = spool.lend().await
            {
                return Some(Work::Spooled(spool.clone(), loan));
            }
            // What a lane has may come back.
            if closed && !self.queue.lanes_are_busy() {
                return None;
            }
            match &self.spool {
                None => self.queue.changed().await,
                Some(spool) => tokio::select! {
                    () = self.queue.changed() => {}
                    () = spool.changed() => {}
                },
            }
        }
    }

    /// Sends until it is taken, refused, or to be left. `loan`: it is a record of the spool.
    async fn deliver(&self, batch: &Batch, loan: Option<(&Spool, &Loan)>, log: &mut RateLimit) -> Outcome {
        let Some(packed) = self.client.pack(batch.body.clone()).await else {
            self.warn(log, "size", "the request is larger than 64 MiB");
            return Outcome::Settled(Settlement::Lost(Reason::ExportRefused));
        };
        let mut pauses = pauses(self.backoff);
        let began = Instant::now();
        let mut give_up = batch.sealed + self.backoff.max_elapsed;
        // Whether the credentials were taken since this request was refused for them.
        let mut admitted = false;
        loop {
            let answer = tokio::select! {
                answer = self.client.send(&packed) => answer,
                () = self.queue.expired() => return self.at_stop(),
                // Nobody answers; what is here is safe.
                _ = self.queue.closed(), if loan.is_some() && self.queue.is_away() => return Outcome::Kept,
            };
            self.queue.set_well(matches!(answer, Answer::Taken { .. }));
            match answer {
                Answer::Taken { rejected, message } => {
                    self.books.requests_ok.add(1);
                    self.books.set_refusal(None);
                    self.admitted(log);
                    self.back(log);
                    if rejected > 0 || !message.is_empty() {
                        self.warn(log, "partial", &format!("{rejected} items were not taken: {message}"));
                    }
                    return Outcome::Settled(Settlement::Delivered { rejected });
                }
                Answer::Refused(what) => {
                    self.books.requests_failed.add(1);
                    log.over(refused::KIND);
                    self.warn(log, "refused", &what);
                    self.books.set_refusal(Some(what));
                    self.back(log);
                    return Outcome::Settled(Settlement::Lost(Reason::ExportRefused));
                }
                // An empty request is taken and this one is not: what is in it is the reason.
                Answer::Unauthorized { what, .. } if admitted => {
                    self.books.requests_failed.add(1);
                    self.warn(log, "refused", &what);
                    self.books.set_refusal(Some(what));
                    return Outcome::Settled(Settlement::Lost(Reason::ExportRefused));
                }
                Answer::Unauthorized { status, what } => match self.until_admitted(loan, log, (status, what)).await {
                    Ok(taken) => {
                        admitted = taken;
                        // That it was held does not count as tries.
                        give_up = Instant::now() + self.backoff.max_elapsed;
                    }
                    Err(outcome) => return outcome,
                },
                Answer::Retry { after, what } => {
                    self.books.requests_failed.add(1);
                    self.warn(log, "retry", &what);
                    if loan.is_none() && self.queue.is_superseded() {
                        return Outcome::Settled(Settlement::Superseded);
                    }
                    let own = pauses.next().unwrap_or(self.backoff.max);
                    let at = Instant::now() + after.map_or(own, |asked| asked.max(own));
                    match loan {
                        Some((spool, loan)) => {
                            self.away(log);
                            if loan.is_expired(spool.limits()) {
                                return Outcome::Settled(Settlement::Lost(Reason::SpoolExpired));
                            }
                        }
                        None => {
                            if self.spool.is_some() && at >= began + AWAY_AFTER {
                                // Before those that wait: it is older.
                                let handed_over = self.queue.hand_over();
                                self.away(log);
                                if handed_over {
                                    return Outcome::Kept;
                                }
                            }
                            if at > give_up {
                                return Outcome::Settled(Settlement::Lost(Reason::ExportGivenUp));
                            }
                        }
                    }
                    if !self.wait(at, after.is_some()).await {
                        return self.at_stop();
                    }
                }
            }
        }
    }

    /// What becomes of a request that a stop cuts short.
    fn at_stop(&self) -> Outcome {
        match self.spool {
            Some(_) => Outcome::Kept,
            None if self.queue.pass_on() => Outcome::Kept,
            None => Outcome::Settled(Settlement::Lost(Reason::ExportAtStop)),
        }
    }

    fn away(&self, log: &mut RateLimit) {
        if !self.queue.is_away() {
            self.queue.set_away(true);
            if let Some(held_back) = log.due("away", Instant::now()) {
                let (signal, endpoint) = (self.books.name(), &self.client.shown);
                tracing::warn!(signal, endpoint, held_back, "the destination is away; the spool keeps what is for it");
            }
        }
    }

    fn back(&self, log: &mut RateLimit) {
        if self.queue.is_away() {
            self.queue.set_away(false);
            if let Some(held_back) = log.due("back", Instant::now()) {
                let (signal, items) = (self.books.name(), self.books.spool_items.get());
                tracing::info!(signal, items, held_back, "the destination is back; sending what is in the spool");
            }
        }
    }

    /// Waits until `at`. A stop meanwhile gives one more try at once, unless the destination `asked` for the pause, or
    /// there is a spool. False if `at` lies after the end of a stop.
    async fn wait(&self, at: Instant, asked: bool) -> bool {
        let closed_before = self.queue.deadline().is_some();
        if closed_before && self.spool.is_some() {
            return false;
        }
        if !closed_before {
            tokio::select! {
                () = sleep_until(at) => return true,
                _ = self.queue.closed() => {}
            }
            if self.spool.is_some() {
                // The next start goes on with it.
                return false;
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
