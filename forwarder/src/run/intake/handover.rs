//! From one run of the agent to another that has observed beside it for a while.
//!
//! In: what the old run has told, requests and losses that the new one tells. Out: those that are new. What the old run saw begin
//! and nobody finishes is counted as lost.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rustc_hash::FxBuildHasher;

use crate::{
    exchange::{Handover, Opened, Whose},
    loss::{Losses, Reason},
    model::MonotonicNs,
};

/// For how long requests of the time before are looked for: the new run has kept what it saw until it was heard, 16 MB at most.
const SETTLED: Duration = Duration::from_secs(5);

/// A handover that is under way, or none.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    under_way: Option<UnderWay>,
    /// Open requests that the old run has told of; not more than the table holds.
    told: HashSet<u64, FxBuildHasher>,
    /// Requests that both have told of, ever.
    twice: u64,
}

#[derive(Debug)]
struct UnderWay {
    from: Handover,
    /// The old run observed until then.
    until: MonotonicNs,
    due: Instant,
}

impl Takeover {
    /// Begins one; one that is under way is over.
    pub(super) fn begin(&mut self, from: Handover, until: MonotonicNs, losses: &Losses) {
        self.end(losses);
        // The table has forgotten them.
        self.told.clear();
        tracing::info!(
            connections = from.connections(),
            open = from.left(),
            "goes on where the agent before has ended; what both have seen is told once"
        );
        self.under_way = Some(UnderWay { from, until, due: Instant::now() + SETTLED });
    }

    /// To be called now and then.
    pub(super) fn tick(&mut self, losses: &Losses) {
        if self.under_way.as_ref().is_some_and(|under_way| under_way.due <= Instant::now()) {
            self.end(losses);
        }
    }

    /// Nobody will finish what is left.
    pub(super) fn end(&mut self, losses: &Losses) {
        if let Some(under_way) = self.under_way.take() {
            let (lost, both) = (under_way.from.left(), self.twice);
            tracing::debug!(lost, both, "the handover is over");
            losses.count(Reason::ResponseNotObserved, lost);
        }
    }

    /// Whether the old run observed at that time.
    pub(super) fn covers(&self, time: MonotonicNs) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| time <= under_way.until)
    }

    /// A request begins: whether it is not to be told because the old run has told of it.
    pub(super) fn leaves_out(&mut self, opened: &Opened<'_>) -> bool {
        let Some(under_way) = &mut self.under_way else { return false };
        let whose = under_way.from.whose(opened, under_way.until);
        self.twice += u64::from(whose != Whose::New);
        if whose == Whose::Told {
            self.told.insert(opened.serial);
        }
        whose == Whose::Told
    }

    /// Whether a request was left out.
    pub(super) fn has_left_out(&self, serial: u64) -> bool {
        !self.told.is_empty() && self.told.contains(&serial)
    }

    /// A request is over: whether it was left out.
    pub(super) fn over(&mut self, serial: u64) -> bool {
        !self.told.is_empty() && self.told.remove(&serial)
    }

    /// Requests that two runs have told of.
    pub(super) fn twice(&self) -> u64 {
        self.twice
    }
}
