//! The disk spool of a destination: what it could not take is kept in a folder, and sent when it is back.
//!
//! In: encoded requests, without waiting, by [`Spool::offer`]. Out: the same, the oldest first, by [`Spool::lend`], also those
//! that an earlier run left there. Files are touched by one thread of its own; docs/decisions/spool.md has the rules.

mod directory;
mod keeper;
mod position;
mod record;
mod segment;
mod store;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

pub use self::directory::{Directory, SpoolError};
use self::{
    keeper::{Command, Keeper},
    store::{Lent, Store, Ticket},
};
use super::queue::{Batch, Settlement};
use crate::{loss::Reason, telemetry::destination::Destination};

/// Bytes that may be on their way to the disk; more are not taken, so that a slow disk fills the queue and not the memory.
const IN_FLIGHT: usize = 4 << 20;

/// How much may be kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of one destination; the oldest are given up beyond.
    pub max_bytes: u64,
    /// What is older is given up.
    pub max_age: Duration,
}

impl Limits {
    /// The oldest that is kept at `now`, both in milliseconds since 1970.
    fn oldest(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.max_age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A spool; clones are the same one. The last that is dropped lets go of the folder.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
    limits: Limits,
}

/// The thread is started with the first command, because the rules for files hold for threads that are started under them.
#[derive(Debug)]
enum Thread {
    Later(Box<(Store, Directory)>),
    Runs(mpsc::Sender<Command>, JoinHandle<()>),
    /// It could not be started, or hangs.
    Gone,
}

/// What both sides know.
#[derive(Debug)]
struct Shared {
    books: Arc<Destination>,
    in_flight: AtomicUsize,
    failing: AtomicBool,
    /// Records that can be read.
    readable: AtomicBool,
    /// Batches that could not be written.
    returned: Mutex<Vec<Batch>>,
    /// There is something to read.
    changed: Notify,
    /// There is room for more, or something came back.
    room: Notify,
}

/// A record that was read, on its way to the destination. Dropped without a settlement it stays where it was.
#[derive(Debug)]
pub struct Loan {
    /// The request.
    pub batch: Batch,
    ticket: Ticket,
    /// When it was made, milliseconds since 1970.
    sealed: u64,
    _held: Arc<()>,
    shared: Arc<Shared>,
}

impl Loan {
    fn new(lent: Lent, held: Arc<()>, shared: &Arc<Shared>) -> Self {
        let batch = Batch { body: lent.body, items: lent.items, sealed: Instant::now() };
        Self { batch, ticket: lent.ticket, sealed: lent.sealed, _held: held, shared: shared.clone() }
    }

    /// Whether it is older than what `limits` keep.
    pub fn is_expired(&self, limits: &Limits) -> bool {
        self.sealed < limits.oldest(keeper::now())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Whoever waits for something to read may have found it taken.
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Bytes that were handed over are on the disk.
    fn written(&self, items: u64, bytes: usize) {
        self.books.spooling.sub(items);
        self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
        self.changed.notify_one();
        self.room.notify_one();
    }

    /// A batch could not be written; it is on its way until somebody takes it back.
    fn returned(&self, batch: Batch) {
        lock(&self.returned).push(batch);
        self.room.notify_one();
    }

    fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    fn book(&self, store: &Store) {
        self.books.spool_items.set(store.items());
        self.books.spool_bytes.set(store.bytes());
        self.readable.store(!store.is_empty(), Ordering::Relaxed);
    }
}

impl Spool {
    /// Opens what is kept for `signal`, and books what is found. Files are read and written from the first command on, by
    /// a thread that is started then.
    ///
    /// # Errors
    /// If the folder is not usable.
    pub fn open(directory: &Directory, limits: Limits, books: Arc<Destination>) -> Result<Self, SpoolError> {
        let signal = books.name();
        let folder = directory.sub(signal)?;
        let (store, given) =
            Store::open(folder, limits, keeper::now()).map_err(|error| directory.failure(signal, error))?;
        let (full, expired) = (given.full, given.expired);
        books.recovered.add(store.items() + full + expired);
        books.lost(Reason::SpoolFull, full);
        books.lost(Reason::SpoolExpired, expired);
        books.count(Reason::SpoolDamaged, given.damaged_bytes);
        if store.items() > 0 || given != store::Given::default() {
            let (items, bytes) = (store.items(), store.bytes());
            tracing::info!(signal, items, bytes, full, expired, damaged = given.damaged_bytes, "found in the spool");
        }
        let shared = Arc::new(Shared {
            books,
            in_flight: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            readable: AtomicBool::new(false),
            returned: Mutex::default(),
            changed: Notify::new(),
            room: Notify::new(),
        });
        shared.book(&store);
        let thread = Mutex::new(Thread::Later(Box::new((store, directory.clone()))));
        Ok(Self(Arc::new(Inner { shared, thread, limits })))
    }

    /// Limits of size and age.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Hands a batch over to be kept. Never waits.
    ///
    /// # Errors
    /// The batch itself, if the disk is slower than what comes, or fails. `all`: however much is on its way already.
    pub fn offer(&self, batch: Batch, all: bool) -> Result<(), Batch> {
        let shared = &self.0.shared;
        let bytes = batch.body.len();
        let on_its_way = shared.in_flight.load(Ordering::Relaxed);
        let full = on_its_way > 0 && on_its_way + bytes > IN_FLIGHT && !all;
        if full || shared.failing.load(Ordering::Relaxed) {
            return Err(batch);
        }
        shared.in_flight.fetch_add(bytes, Ordering::Relaxed);
        shared.books.spooling.add(batch.items);
        self.send(Command::Append(batch)).map_err(|command| {
            let Command::Append(batch) = command else { unreachable!("what comes back is what was sent") };
            shared.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            shared.books.spooling.sub(batch.items);
            batch
        })
    }

    /// Takes what could not be written; whoever calls this books it.
    pub fn take_returned(&self) -> Vec<Batch> {
        let batches = std::mem::take(&mut *lock(&self.0.shared.returned));
        for batch in &batches {
            self.0.shared.in_flight.fetch_sub(batch.body.len(), Ordering::Relaxed);
            self.0.shared.books.spooling.sub(batch.items);
        }
        batches
    }

    /// Resolves when more may be handed over, or something could not be written.
    pub async fn room(&self) {
        self.0.shared.room.notified().await;
    }

    /// Whether there is something to read.
    pub fn is_readable(&self) -> bool {
        self.0.shared.readable.load(Ordering::Relaxed)
    }

    /// Resolves when something was written.
    pub async fn changed(&self) {
        self.0.shared.changed.notified().await;
    }

    /// Reads the oldest; `None` if there is nothing, or somebody else has it.
    pub async fn lend(&self) -> Option<Loan> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Lend(reply)).ok()?;
        answer.await.ok().flatten()
    }

    /// Books what became of a record, and goes on behind it.
    pub fn settle(&self, loan: Loan, settlement: Settlement) {
        // Without a thread it is read again at the next start.
        let _ = self.send(Command::Settle(loan.ticket, loan.batch.items, settlement));
    }

    /// Waits until everything that was handed over is on the disk, until `deadline` at most; then what is not is counted
    /// as lost.
    pub async fn flush(&self, deadline: Instant) {
        let (reply, answer) = oneshot::channel();
        let flushed = self.send(Command::Flush(reply)).is_ok() && timeout_at(deadline, answer).await.is_ok();
        if !flushed {
            // It hangs in a call of the system: nobody waits for it.
            *lock(&self.0.thread) = Thread::Gone;
            let books = &self.0.shared.books;
            let items = books.spooling.get();
            books.spooling.sub(items);
            books.lost(Reason::ExportAtStop, items);
        }
    }

    fn send(&self, command: Command) -> Result<(), Command> {
        let mut thread = lock(&self.0.thread);
        if let Thread::Later(_) = *thread
            && let Thread::Later(start) = std::mem::replace(&mut *thread, Thread::Gone)
        {
            let (store, directory) = *start;
            let (commands, following) = mpsc::channel();
            let keeper = Keeper::new(store, self.0.shared.clone(), directory);
            let name = format!("spool-{}", self.0.shared.books.name());
            match std::thread::Builder::new().name(name).spawn(move || keeper.run(&following)) {
                Ok(handle) => *thread = Thread::Runs(commands, handle),
                Err(error) => tracing::error!("the spool is not used, as its thread cannot be started: {error}"),
            }
        }
        match &*thread {
            Thread::Runs(commands, _) => commands.send(command).map_err(|mpsc::SendError(command)| command),
            _ => Err(command),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Thread::Runs(commands, handle) = std::mem::replace(thread, Thread::Gone) {
            drop(commands);
            // It ends as soon as it has followed every command; who comes next then finds the folder free.
            let _ = handle.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
