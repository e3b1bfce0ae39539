//! The thread of a spool: all that waits for the disk waits here, and nothing else does.
//!
//! In: commands. Out: records on the disk, records read back, and their books. Between commands, once a second, it brings
//! what was written to the disk itself and gives up what is too old.

use std::{
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    Loan, Shared,
    directory::Directory,
    store::{Given, Store, Ticket},
};
use crate::{
    export::{
        log::RateLimit,
        queue::{Batch, Settlement},
    },
    loss::Reason,
};

/// How long what was written may be lost with the power.
const SYNC: Duration = Duration::from_secs(1);
/// After a failed write it is tried again no sooner.
const REST: Duration = Duration::from_secs(2);

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// To keep a request.
    Append(Batch),
    /// To read the oldest.
    Lend(oneshot::Sender<Option<Loan>>),
    /// To go on behind the one that was read.
    Settle(Ticket, u64, Settlement),
    /// To bring everything to the disk.
    Flush(oneshot::Sender<()>),
}

pub(super) struct Keeper {
    store: Store,
    shared: Arc<Shared>,
    /// The record on its way, and whether anybody still has it.
    lent: Option<(Ticket, Weak<()>)>,
    /// Keeps the lock.
    directory: Directory,
    log: RateLimit,
    synced: Instant,
    failed: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(store: Store, shared: Arc<Shared>, directory: Directory) -> Self {
        Self { store, shared, lent: None, directory, log: RateLimit::default(), synced: Instant::now(), failed: None }
    }

    /// Until nobody can ask any more.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            match commands.recv_timeout(SYNC) {
                Ok(command) => self.follow(command),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if self.synced.elapsed() >= SYNC {
                self.each_second();
            }
        }
        self.sync();
    }

    fn follow(&mut self, command: Command) {
        match command {
            Command::Append(batch) => self.append(batch),
            Command::Lend(reply) => self.lend(reply),
            Command::Settle(ticket, items, settlement) => self.settle(ticket, items, settlement),
            Command::Flush(reply) => {
                self.sync();
                // Nobody waits any more: no harm.
                let _ = reply.send(());
            }
        }
    }

    fn append(&mut self, batch: Batch) {
        let (items, bytes) = (batch.items, batch.body.len());
        let sealed = now().saturating_sub(millis(batch.sealed.elapsed()));
        let mut given = Given::default();
        let written = self.store.append(&batch.body, items, sealed, &mut given);
        match written {
            Ok(()) => {
                self.shared.books.spooled.add(items);
                self.book(given);
                if self.failed.take().is_some() {
                    tracing::info!(spool = self.signal(), "the spool can be written again");
                }
                self.shared.set_failing(false);
                self.shared.written(items, bytes);
            }
            Err(error) => {
                self.book(given);
                self.trouble("written; what cannot be sent stays in memory", &error);
                self.failed = Some(Instant::now());
                self.shared.set_failing(true);
                self.shared.returned(batch);
            }
        }
    }

    fn lend(&mut self, reply: oneshot::Sender<Option<Loan>>) {
        if let Some(ticket) = self.lent.take_if(|(_, held)| held.strong_count() == 0).map(|(ticket, _)| ticket) {
            // Whoever had it let it fall.
            self.store.back(ticket);
        }
        let mut given = Given::default();
        let loan = self.store.lend(now(), &mut given).map(|lent| {
            let held = Arc::new(());
            self.lent = Some((lent.ticket, Arc::downgrade(&held)));
            Loan::new(lent, held, &self.shared)
        });
        self.book(given);
        // If nobody waits for it any more, it falls here.
        let _ = reply.send(loan);
    }

    fn settle(&mut self, ticket: Ticket, items: u64, settlement: Settlement) {
        // What was given up meanwhile is counted already.
        if self.store.delivered(ticket) {
            self.shared.books.settle(items, settlement);
        }
        self.book(Given::default());
    }

    fn each_second(&mut self) {
        self.synced = Instant::now();
        let mut given = Given::default();
        self.store.expire(now(), &mut given);
        self.book(given);
        self.sync();
        if self.failed.is_some_and(|at| at.elapsed() >= REST) {
            // The next request that is handed over tries.
            self.shared.set_failing(false);
            self.shared.room.notify_one();
        }
    }

    fn sync(&mut self) {
        if self.store.is_dirty()
            && let Err(error) = self.store.sync()
        {
            self.trouble("brought to the disk", &error);
        }
    }

    fn book(&self, given: Given) {
        let books = &self.shared.books;
        books.lost(Reason::SpoolFull, given.full);
        books.lost(Reason::SpoolExpired, given.expired);
        books.lost(Reason::SpoolUnreadable, given.unreadable);
        self.shared.book(&self.store);
    }

    fn trouble(&mut self, what: &str, error: &std::io::Error) {
        self.shared.books.spool_errors.add(1);
        if let Some(held_back) = self.log.due("write", tokio::time::Instant::now()) {
            let path = self.directory.path().display();
            tracing::warn!(spool = self.signal(), held_back, "{path} cannot be {what}: {error}");
        }
    }

    fn signal(&self) -> &'static str {
        self.shared.books.name()
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
