//! From the ring buffers to batches.
//!
//! In: records of the kernel side, in their order; changes of the table of processes. Out: encoded batches in the queue,
//! bits of the selection. No allocation for an event; at most [`BATCH_BYTES`] in a batch.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use spantap_config::Discovery;
use spantap_proto::v1;

use crate::{
    clock,
    discovery::{Change, Processes, Walk, interesting_ports, provisional_exec},
    encode::BatchWriter,
    probes::Probes,
    record::{ProcessEvent, SocketRecord, flag, kind},
    stream::Shared,
    tls::Tls,
    usage::Usage,
};

/// A batch ends when it holds this many bytes: few system calls, and little memory.
const BATCH_BYTES: usize = 256 * 1024;

/// While there is no news, this often: whoever asks the forwarder hears that the agent is alive.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Everything between the kernel and the queue.
pub struct Drain {
    /// The kernel side.
    pub probes: Probes,
    /// Processes that are known.
    pub processes: Processes,
    /// Libraries of TLS.
    tls: Tls,
    shared: Rc<Shared>,
    /// Changes of processes that no batch has told yet.
    untold: BatchWriter,
    events: u64,
    told_losses: [u64; 7],
    told_tls: Vec<v1::TlsProgram>,
    told_linked: Vec<v1::LinkedProgram>,
    told_propagation: Option<v1::Propagation>,
    /// Processes and events as the forwarder knows them.
    told_figures: (u32, u64),
    told_at: Instant,
    rescan: bool,
    /// What was recorded later than this time of the kernel is left out, once that is set.
    until: Option<u64>,
}

impl Drain {
    /// Nothing told yet.
    pub fn new(probes: Probes, processes: Processes, tls: Tls, shared: Rc<Shared>) -> Self {
        Self {
            probes,
            processes,
            tls,
            shared,
            untold: BatchWriter::new(0),
            events: 0,
            told_losses: [0; 7],
            told_tls: Vec::new(),
            told_linked: Vec::new(),
            told_propagation: None,
            told_figures: (0, 0),
            told_at: Instant::now(),
            rescan: false,
            until: None,
        }
    }

    /// Looks through `/proc` for what no event told, and after process events were lost.
    pub fn scan(&mut self, walk: Walk) {
        self.rescan = false;
        match self.processes.scan(walk) {
            Ok(changes) => self.apply(changes),
            Err(error) => tracing::error!(%error, "processes cannot be listed"),
        }
    }

    /// Observes by the rules of `discovery` from now on. What was recorded up to now belongs to whom it did.
    ///
    /// # Errors
    /// If `/proc` cannot be read; then [`Drain::reconfigure`] with the old rules puts things right.
    pub fn reconfigure(&mut self, discovery: &Discovery) -> Result<(), String> {
        self.socket_events();
        // First: who begins to listen meanwhile is told of, and judged after the walk.
        self.probes.watch(provisional_exec(discovery), interesting_ports(discovery).words());
        let changes = self.processes.reconfigure(discovery);
        let changes = changes.map_err(|error| format!("processes cannot be listed: {error}"))?;
        self.apply(changes);
        // The forwarder has forgotten the connections of those that were not observed for a while.
        self.probes.announce_again();
        Ok(())
    }

    /// Where TLS is read, if it is.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.is_on().then_some(&self.tls)
    }

    /// Observes no more. One moment is the end for all connections: what programs that are not detached yet record after it
    /// is left out, so that an agent that takes over knows where to begin.
    pub fn stop(&mut self) {
        self.until = Some(clock::monotonic_ns());
        self.probes.detach();
    }

    /// Takes all process records. Call before the socket records: they name the processes.
    pub fn process_events(&mut self) {
        let Self { probes, processes, tls, untold, .. } = self;
        take_process_events(probes, processes, tls, untold);
    }

    /// Moves socket records into batches until there are none or the queue is full. Returns whether it was full.
    pub fn socket_events(&mut self) -> bool {
        self.process_events();
        loop {
            if !self.shared.queue.borrow().has_room() {
                return true;
            }
            let mut writer = std::mem::replace(&mut self.untold, BatchWriter::new(0));
            let more = self.fill(&mut writer);
            if writer.is_empty() {
                return false;
            }
            self.send(writer);
            if !more {
                return false;
            }
        }
    }

    fn fill(&mut self, writer: &mut BatchWriter) -> bool {
        let Self { probes, processes, tls, untold, until, .. } = self;
        let until = until.unwrap_or(u64::MAX);
        while writer.len() < BATCH_BYTES {
            let Some(item) = probes.socket_events.next() else { return false };
            match SocketRecord::read(&item) {
                Some(SocketRecord::Event(event, _)) if event.time > until => {}
                // Beside what the forwarder hears of it: the number of such connections is small.
                Some(SocketRecord::Event(event, _)) if event.flags & flag::ENCRYPTED != 0 => {
                    if event.tls_process() != 0 {
                        tls.unread(event.tls_process(), event.flags & flag::UNTIED != 0);
                    }
                    writer.event(event, &[], 0);
                }
                // Changes of state come in any context; the forwarder knows whose socket it is.
                Some(SocketRecord::Event(event, head)) if event.pid == 0 => writer.event(event, head, 0),
                Some(SocketRecord::Event(event, head)) => {
                    // No id: the process was judged not to be observed after this was recorded.
                    if let Some(id) = processes.lookup(event.pid, event.process_start) {
                        writer.event(event, head, id.get());
                    } else {
                        let (event, head) = (*event, head.to_vec());
                        drop(item);
                        take_process_events(probes, processes, tls, untold);
                        if let Some(id) = processes.lookup(event.pid, event.process_start) {
                            let told = std::mem::replace(untold, BatchWriter::new(0));
                            writer.append(told);
                            writer.event(&event, &head, id.get());
                        }
                    }
                }
                Some(SocketRecord::Connection(connection, path)) => writer.connection(connection, path),
                None => tracing::debug!("a record of unknown kind"),
            }
        }
        true
    }

    /// Reads the next few of what processes use; it goes with the next batch.
    pub fn usage(&mut self, usage: &mut Usage) {
        // For nobody it would only fill the queue.
        if self.shared.streaming.get() && self.shared.queue.borrow().has_room() {
            usage.step(Instant::now(), &self.processes, &mut self.untold);
        }
    }

    /// Tells losses and figures, if there is news, [`HEARTBEAT`] has passed, or `always`, and forgets processes that ended a while ago.
    pub fn report(&mut self, always: bool) {
        let over = self.processes.reap(Instant::now());
        self.apply(over);
        if self.processes.lost_sight() {
            self.scan(Walk::Thorough);
        }
        let kernel = self.probes.losses();
        let [turn, other, process, unreadable, state, tls_call, exchange] = kernel;
        let losses = [turn + other, process, unreadable, state, self.probes.skipped_runs(), tls_call, exchange];
        if process != self.told_losses.get(1).copied().unwrap_or(0) {
            self.rescan = true;
        }
        let selected = u32::try_from(self.processes.selected()).unwrap_or(u32::MAX);
        // Facts about a process mostly go with the next events, so that nothing untold says nothing about the figures.
        let figures = (selected, self.events);
        let (tls, linked) = (self.tls.programs(), self.tls.linked());
        let propagation = self.probes.propagation();
        let news = losses != self.told_losses
            || tls != self.told_tls
            || linked != self.told_linked
            || propagation != self.told_propagation
            || figures != self.told_figures
            || !self.untold.is_empty();
        // For nobody it would only fill the queue.
        let due = self.shared.streaming.get() && self.told_at.elapsed() >= HEARTBEAT;
        if !(always || news || due) {
            return;
        }
        self.told_at = Instant::now();
        (self.told_losses, self.told_figures) = (losses, figures);
        let mut writer = std::mem::replace(&mut self.untold, BatchWriter::new(0));
        let reasons = [
            v1::LossReason::RingBufferFull,
            v1::LossReason::ProcessRingFull,
            v1::LossReason::HeadUnreadable,
            v1::LossReason::NoSocketState,
            v1::LossReason::ProbeSkipped,
            v1::LossReason::TlsCall,
            v1::LossReason::Exchange,
        ];
        for (reason, count) in reasons.into_iter().zip(losses).filter(|(_, count)| *count > 0) {
            writer.loss(reason, count);
        }
        writer.status(&v1::AgentStatus {
            processes: selected,
            events: self.events,
            queue_bytes: self.shared.queue.borrow().bytes() as u64,
            tls: tls.clone(),
            linked: linked.clone(),
            propagation: propagation.clone(),
            observed_until_ns: self.until.unwrap_or(0),
        });
        (self.told_tls, self.told_linked) = (tls, linked);
        self.told_propagation = propagation;
        self.send(writer);
        if self.rescan {
            tracing::warn!("process events were lost; looking through /proc");
            self.scan(Walk::Thorough);
        }
    }

    fn send(&mut self, writer: BatchWriter) {
        let events = writer.events();
        self.events += events;
        let mut queue = self.shared.queue.borrow_mut();
        let sequence = queue.next_sequence();
        queue.push(sequence, writer.finish(sequence, clock::anchor()), events > 0);
        self.shared.filled.notify_one();
    }

    fn apply(&mut self, changes: Vec<Change>) {
        apply(changes, &self.probes, &self.tls, &mut self.untold);
    }
}

fn take_process_events(probes: &mut Probes, processes: &mut Processes, tls: &Tls, untold: &mut BatchWriter) {
    // The item is copied out: its place in the ring buffer is free before /proc is read.
    while let Some(read) = probes.process_events.next().map(|item| ProcessEvent::read(&item).copied()) {
        let Some(event) = read else { continue };
        let changes = match event.kind {
            kind::FORK => processes.forked(event.parent, event.pid, event.start),
            kind::EXEC => processes.executed(event.pid, event.start, event.filename(), event.arguments()),
            kind::LISTEN => processes.listening(event.pid, event.start, event.port),
            kind::TLS => {
                tls.speaks(event.pid);
                continue;
            }
            kind::TLS_IN_MEMORY => {
                tls.in_memory(event.pid);
                continue;
            }
            kind::EXIT => processes.exited(event.pid, event.start),
            _ => continue,
        };
        apply(changes, probes, tls, untold);
        // The kernel side watches what may have to be observed until it is judged, which is now.
        if event.kind != kind::EXIT && processes.lookup(event.pid, event.start).is_none() {
            probes.selected.set(event.pid, false);
        }
    }
}

fn apply(changes: Vec<Change>, probes: &Probes, tls: &Tls, untold: &mut BatchWriter) {
    for change in changes {
        match change {
            Change::Selected(process) => {
                let program = &process.program;
                tracing::info!(pid = process.pid, executable = program.executable, "observing");
                tls.selected(process.pid, &program.executable);
                probes.selected.set(process.pid, true);
                untold.process(&(&process).into());
            }
            Change::Updated(process) => {
                tls.selected(process.pid, &process.program.executable);
                probes.selected.set(process.pid, true);
                untold.process(&(&process).into());
            }
            Change::Deselected { id, pid, goes_on } => {
                tracing::debug!(pid, id = id.get(), "no longer observed");
                tls.gone(pid);
                probes.selected.set(pid, false);
                if goes_on {
                    untold.process_unobserved(id.get());
                }
            }
            Change::Ended { id, pid } => {
                tracing::debug!(pid, id = id.get(), "forgotten");
                untold.process_ended(id.get());
            }
        }
    }
}
