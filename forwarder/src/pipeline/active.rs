//! Requests that servers have begun and not ended: `http.server.active_requests`.
//!
//! In: requests as they begin and as they end or are given up; what makes their ends doubtful. Out: numbers for the
//! registries, told at each tick where they have changed.
//!
//! What is told is always counted from what is open, never added up, so that it cannot drift: whatever a registry held before
//! is replaced. A request of which the end may have been lost is not counted, see [`GRACE`].

mod open;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use self::open::Open;
use super::{Pipeline, lock, wall_clock};
use crate::{
    exchange::{Opened, Side},
    metric::{
        attribute::{Attribute, Mask},
        series::OpenRequest,
    },
    model::ProcessId,
    observation::{
        Host,
        method::Method,
        named::{self, Named},
        target::Target,
    },
};

/// Once events were lost, any request that was open may have ended without a trace: it counts for this much longer, unless its
/// end is seen. Most are shorter; and what was lost on a connection shows, as a rule, with the next request on it.
const GRACE: Duration = Duration::from_secs(60);

/// The agent may tell of a loss before it tells what was recorded before: what comes in so much time is doubtful, too.
const LATE: Duration = Duration::from_secs(5);

/// Open requests, and which of them may not be any more.
#[derive(Debug, Default)]
pub(super) struct ActiveRequests {
    /// What the registries tell apart; `None` if they do not ask.
    mask: Option<Mask>,
    open: Open,
    /// Up to which request the ends are doubtful, and when those are counted no more. The first first.
    doubts: VecDeque<(Instant, u64)>,
    /// Until when what comes may have been recorded before the last loss.
    late: Option<Instant>,
    /// The same while no agent is connected: nothing is lost if it comes back in time.
    away: Option<(Instant, u64)>,
}

impl ActiveRequests {
    /// Goes on for registries that tell apart what is in `mask`.
    pub(super) fn configure(&mut self, mask: Option<Mask>) {
        self.mask = mask;
        match mask {
            Some(_) => self.open.tell_all(),
            None => self.clear(),
        }
    }

    /// A request will be told to end by nobody, or has ended.
    pub(super) fn closed(&mut self, serial: u64) {
        self.open.closed(serial);
    }

    /// A process has ended, and what it held with it.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        self.open.process_ended(process);
    }

    /// All are over. Their processes are, too.
    pub(super) fn clear(&mut self) {
        *self = Self { mask: self.mask, ..Self::default() };
    }

    fn opened(&mut self, opened: &Opened<'_>, mask: Mask, target: &Target<'_>, method: Method) {
        let (server, port) = (mask.has(Attribute::ServerAddress), mask.has(Attribute::ServerPort));
        let request = if server || port {
            let named = Named::of(opened.request, target, opened.side, opened.tls);
            let (host, number) = named.server(&opened.connection.endpoints, opened.side);
            OpenRequest {
                method,
                scheme: named.scheme,
                server: host.as_ref().filter(|_| server).map(|host: &Host<'_>| host.as_str().into()),
                port: number.filter(|_| port),
            }
        } else {
            let scheme = named::scheme_received(opened.request, target, opened.tls);
            OpenRequest { method, scheme, server: None, port: None }
        };
        self.open.opened(opened.serial, opened.process, request, wall_clock);
    }

    fn doubt(&mut self, now: Instant) {
        let newest = self.open.newest();
        match self.doubts.back_mut() {
            // One entry a second at most.
            Some((due, up_to)) if now + GRACE < *due + Duration::from_secs(1) => *up_to = newest,
            _ => self.doubts.push_back((now + GRACE, newest)),
        }
    }

    fn drop_doubtful(&mut self, now: Instant) {
        if self.late.is_some_and(|until| now < until) {
            self.doubt(now);
        }
        let mut over = None;
        while let Some((_, up_to)) = self.doubts.front().filter(|(due, _)| *due <= now) {
            over = Some(*up_to);
            self.doubts.pop_front();
        }
        if let Some((_, up_to)) = self.away.take_if(|(due, _)| *due <= now) {
            over = over.max(Some(up_to));
        }
        if let Some(up_to) = over {
            self.open.drop_up_to(up_to);
        }
    }
}

impl Pipeline {
    /// Counts a request that begins, if it is one that counts.
    pub(super) fn count_open(&mut self, opened: &Opened<'_>) {
        let Some(mask) = self.active.mask.filter(|_| opened.side == Side::Server) else { return };
        let process = opened.process;
        if !process.export_metrics || self.exclude.metrics && self.processes.own(process.id).metrics {
            return;
        }
        let method = Method::of(&opened.request.method);
        let target = Target::parse(&opened.request.target, method == Method::Connect);
        if !self.rules.routes.ignored(target.path).metrics {
            self.active.opened(opened, mask, &target, method);
        }
    }

    /// The response to a request that is open may have been missed.
    pub fn doubted(&mut self, serial: u64) {
        self.active.closed(serial);
    }

    /// Events of any connection have been lost.
    pub fn events_lost(&mut self) {
        let now = Instant::now();
        self.active.late = Some(now + LATE);
        self.active.doubt(now);
    }

    /// No agent tells anything any more.
    pub fn agent_away(&mut self) {
        self.active.away.get_or_insert((Instant::now() + GRACE, self.active.open.newest()));
    }

    /// The agent tells again, from where it stopped.
    pub fn agent_back(&mut self) {
        self.active.away = None;
    }

    /// Tells the registries the numbers that have changed.
    pub(super) fn tell_active(&mut self, now: Instant) {
        self.active.drop_doubtful(now);
        for id in self.active.open.changed() {
            let Some(process) = self.active.open.process(id) else { continue };
            if self.processes.get_known(id).is_none() {
                let replaced = self.processes.is_replaced(&process);
                if replaced {
                    self.flush_spans();
                }
                self.processes.get(&process, replaced, &self.registries);
            }
            let Some(known) = self.processes.get_known(id) else { continue };
            for registry in &self.registries {
                let (requests, since) = self.active.open.of(id);
                lock(registry).set_open(known.key, &known.resource, requests, since);
            }
            self.active.open.told(id);
            if let Some(metrics) = &mut self.metrics {
                metrics.collector.measured();
            }
        }
    }

    /// What the registries want to know of open requests.
    pub(super) fn configure_active(&mut self) {
        let masks = self.registries.iter().filter_map(|registry| lock(registry).plan().open_requests());
        let mask = masks.reduce(Mask::or);
        self.active.configure(mask);
    }
}

#[cfg(test)]
mod tests;
