//! Where what the table finds goes.
//!
//! In: exchanges, requests that begin, losses. Out: the same to the pipeline and to the counters, but for what the agent before has told.

use spantap_config::Signal;

use super::handover::Takeover;
use crate::{
    exchange::{Exchange, Opened, Side, Sink},
    loss::{Losses, Reason},
    model::{ClockAnchor, ProcessRef},
    pipeline::Pipeline,
};

/// Where exchanges and losses of the table go.
pub(super) struct Out<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    losses: &'a Losses,
    clock: ClockAnchor,
    pub(super) takeover: &'a mut Takeover,
    /// The event at hand is of a time when the run before observed as well: what it lost, that has counted.
    pub(super) known: bool,
}

impl<'a> Out<'a> {
    pub(super) fn new(
        pipeline: &'a mut Pipeline,
        losses: &'a Losses,
        clock: ClockAnchor,
        takeover: &'a mut Takeover,
    ) -> Self {
        Self { pipeline, losses, clock, takeover, known: false }
    }
}

impl Sink for Out<'_> {
    fn exchange(&mut self, exchange: Exchange) {
        if !self.takeover.over(exchange.serial) {
            self.pipeline.ended(exchange, &self.clock);
        }
    }

    fn opened(&mut self, opened: &Opened<'_>) {
        if !self.takeover.leaves_out(opened) {
            self.pipeline.opened(opened);
        }
    }

    fn abandoned(&mut self, serial: u64) {
        if !self.takeover.over(serial) {
            self.pipeline.abandoned(serial);
        }
    }

    fn doubted(&mut self, serial: u64) {
        if !self.takeover.has_left_out(serial) {
            self.pipeline.doubted(serial);
        }
    }

    fn exported(&mut self, side: Side, signal: Signal, process: &ProcessRef) {
        self.pipeline.exported(side, signal, process);
    }

    fn loss(&mut self, reason: Reason, n: u64) {
        if !self.known {
            self.losses.count(reason, n);
        }
    }
}
