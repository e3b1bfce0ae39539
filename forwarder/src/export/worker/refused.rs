//! Refused credentials: what is for the destination is kept until somebody has mended them.
//!
//! In: a request that was answered 401, 403 or what gRPC has for it. Out: whether it is to be sent again, or what became of it.
//! It is not repeated meanwhile, as the OTLP specification wants it: an empty request asks in its place.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Outcome, Worker, pauses};
use crate::{
    export::{
        log::RateLimit,
        queue::Settlement,
        response::Answer,
        spool::{Loan, Spool},
    },
    loss::Reason,
};

/// Kind of what is said about it.
pub(super) const KIND: &str = "unauthorized";

impl Worker {
    /// Keeps what is refused for its credentials, and asks with an empty request, in growing pauses, until they are not
    /// refused any more or the request is to be left. Whether they were taken.
    pub(super) async fn until_admitted(
        &self,
        loan: Option<(&Spool, &Loan)>,
        log: &mut RateLimit,
        (mut status, mut what): (u16, String),
    ) -> Result<bool, Outcome> {
        let empty = self.client.pack(Bytes::new()).await;
        let Some(empty) = empty else { return Ok(true) };
        let mut pauses = pauses(self.backoff);
        loop {
            self.books.requests_failed.add(1);
            self.unauthorized(log, status, &what);
            self.books.set_refusal(Some(what.clone()));
            match loan {
                Some((spool, loan)) => {
                    self.away(log);
                    if loan.is_expired(spool.limits()) {
                        return Err(Outcome::Settled(Settlement::Lost(Reason::SpoolExpired)));
                    }
                }
                None if self.queue.is_superseded() => return Err(Outcome::Settled(Settlement::Superseded)),
                None if self.spool.is_some() => {
                    let handed_over = self.queue.hand_over();
                    self.away(log);
                    if handed_over {
                        return Err(Outcome::Kept);
                    }
                }
                None if self.queue.pass_on() => return Err(Outcome::Kept),
                None if self.queue.deadline().is_some() => {
                    return Err(Outcome::Settled(Settlement::Lost(Reason::ExportRefused)));
                }
                None => {}
            }
            let at = Instant::now() + pauses.next().unwrap_or(self.backoff.max);
            if !self.wait(at, false).await {
                return Err(self.at_stop());
            }
            let answer = tokio::select! {
                answer = self.client.send(&empty) => answer,
                () = self.queue.expired() => return Err(self.at_stop()),
            };
            match answer {
                Answer::Unauthorized { status: now, what: why } => (status, what) = (now, why),
                // It is away as well: what it said last stands.
                Answer::Retry { .. } => {}
                other => return Ok(matches!(other, Answer::Taken { .. })),
            }
        }
    }

    /// Said once for as long as it lasts: whoever mends it needs no line a minute.
    fn unauthorized(&self, log: &mut RateLimit, status: u16, what: &str) {
        if log.is_news(KIND, &status.to_string()) {
            let (signal, endpoint, headers) = (self.books.name(), &self.client.shown, &self.client.header_names);
            tracing::error!(
                signal,
                endpoint,
                headers,
                "the destination refuses the credentials; what is for it is kept, as far as there is room, until it takes \
                 them: {what}"
            );
        }
    }

    pub(super) fn admitted(&self, log: &mut RateLimit) {
        if log.over(KIND) {
            tracing::info!(
                signal = self.books.name(),
                endpoint = self.client.shown,
                "the destination takes the credentials"
            );
        }
    }
}
