//! Reading TLS: the libraries of selected processes, and probes on their functions.
//!
//! In: which processes are selected, and what the kernel side saw of their TLS. Out: probes attached to libraries with
//! OpenSSL's interface, to GnuTLS and to programs with Go's `crypto/tls`; what is not read, and why.
//!
//! `keeper` is the thread that knows processes and libraries · `mapped` finds libraries in a memory map · `library` looks at
//! one file, `symbols` finds its functions by their `names` (or in a `debug_file`), `go` those of Go's own library · `stops` chooses where they are stopped at, knowing of
//! each `instruction` what it does and where functions end (`bounds`) · `cipher` sees to programs whose library works in memory ·
//! `helper` and `attacher` are the two ends of the process that may attach, `order` is what they say · `filter` is what is left to
//! that process · `python` sees to links of asyncio, `node` finds where those of Node are seen, `tokio` sees to those of tokio · `elf` is read by `go` and `python` · `users` are
//! the processes of a file · `report` says what is not read, `linked` what is not linked.

mod attacher;
mod bounds;
mod cipher;
mod debug_file;
mod elf;
mod filter;
mod go;
mod helper;
mod instruction;
mod keeper;
mod library;
mod linked;
mod mapped;
mod names;
mod node;
mod order;
mod python;
mod report;
mod stops;
mod symbols;
mod tokio;
mod users;

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use ::tokio::sync::oneshot;
pub use attacher::{Programs, run as attach};
pub use go::Results;
pub use helper::Helper;
pub(crate) use linked::{Linkable, linkable};
pub use order::{PROGRAMS, Part};
pub use python::Table as LinkedTable;
use spantap_proto::v1;

use crate::discovery::ProcFs;

/// What the thread has to tell.
type Told = Arc<Mutex<Vec<v1::TlsProgram>>>;

/// Notes that wait for the thread: twice as many as there are selected processes at most.
const NOTES: usize = 32_768;

/// What the thread hears.
enum Note {
    /// A process is observed, or has become another program.
    Selected { pid: u32, executable: String },
    /// It is observed no more.
    Gone { pid: u32 },
    /// A socket of it speaks TLS.
    Speaks { pid: u32 },
    /// Its TLS library works in memory.
    InMemory { pid: u32 },
    /// And nobody read it; `untied`: the process makes calls that belong to no socket.
    Unread { pid: u32, untied: bool },
    /// Somebody wants to know when the notes before this one are dealt with.
    Settled(oneshot::Sender<()>),
}

/// Whether Go's `crypto/tls` in this program can be read.
pub(crate) fn reads_go(file: &std::fs::File) -> bool {
    matches!(go::find(file), Some(Ok(_)))
}

/// Links inside of programs are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    /// Of tokio as well.
    pub tokio: bool,
}

impl Links {
    /// What is to be linked.
    pub(crate) fn parts(wanted: Option<Self>) -> impl Iterator<Item = Part> {
        let is_wanted = move |part| wanted.is_some_and(|links| links.tokio || part != Part::Tokio);
        Part::LINKS.into_iter().filter(move |part| is_wanted(*part))
    }
}

/// The running thread; without one nothing is read and nothing told.
#[derive(Debug, Default)]
pub struct Tls {
    notes: Option<mpsc::SyncSender<Note>>,
    told: Told,
    linked: linked::Linked,
}

impl Tls {
    /// Starts it. `links`: it also sees to which request of a runtime's others are made for.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn start(
        procfs: ProcFs,
        (helper, results, table): (Helper, Option<Results>, Option<LinkedTable>),
        links: Option<Links>,
    ) -> io::Result<Self> {
        let (notes, heard) = mpsc::sync_channel(NOTES);
        let told = Told::default();
        let linked = linked::Linked::default();
        let keeper = keeper::Keeper::new(
            procfs,
            (helper, results, table),
            told.clone(),
            links.map(|links| (linked.clone(), links)),
        );
        thread::Builder::new().name("tls".to_owned()).spawn(move || keeper.run(&heard))?;
        Ok(Self { notes: Some(notes), told, linked })
    }

    /// Whether anything is read.
    pub fn is_on(&self) -> bool {
        self.notes.is_some()
    }

    fn note(&self, note: impl FnOnce() -> Note) {
        if let Some(notes) = &self.notes {
            // Never waits. A process whose note was dropped is not looked at; its connections count as encrypted.
            if notes.try_send(note()).is_err() {
                tracing::debug!("too much at once about TLS");
            }
        }
    }

    /// A process is observed, or has become another program.
    pub fn selected(&self, pid: u32, executable: &str) {
        self.note(|| Note::Selected { pid, executable: executable.to_owned() });
    }

    /// A process is observed no more.
    pub fn gone(&self, pid: u32) {
        self.note(|| Note::Gone { pid });
    }

    /// A socket of the process speaks TLS.
    pub fn speaks(&self, pid: u32) {
        self.note(|| Note::Speaks { pid });
    }

    /// The TLS library of the process works in memory.
    pub fn in_memory(&self, pid: u32) {
        self.note(|| Note::InMemory { pid });
    }

    /// A connection of the process was not read.
    pub fn unread(&self, pid: u32, untied: bool) {
        self.note(|| Note::Unread { pid, untied });
    }

    /// Resolves when all processes that were told of until now have been looked at, and the libraries that they have are attached; at once
    /// if nothing is read.
    pub fn settled(&self) -> impl Future<Output = ()> + use<> {
        let (sender, settled) = oneshot::channel();
        self.note(|| Note::Settled(sender));
        // Dropped: there is nobody to ask.
        async { _ = settled.await }
    }

    /// Which programs are linked, and which not, so far.
    pub fn linked(&self) -> Vec<v1::LinkedProgram> {
        self.linked.programs()
    }

    /// What is known so far of TLS, by program.
    pub fn programs(&self) -> Vec<v1::TlsProgram> {
        self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
