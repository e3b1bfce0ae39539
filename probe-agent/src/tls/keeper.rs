//! Keeps the TLS libraries of selected processes attached, each once, as long as one of them uses it.
//!
//! In: which processes are selected, which speak TLS, which of their connections nobody read. Out: attached probes; a line in
//! the log for each library; what is not read, and why. Runs in a thread of its own: files may lie where reading takes long.

use std::{
    collections::{HashMap, HashSet},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{
    Note, Told,
    cipher::Ciphers,
    helper::{Helper, Refusal},
    library::{self, Readable, Unreadable},
    mapped,
    report::{self, Report},
    stops,
};
use crate::discovery::ProcFs;

/// When a process is looked at after it was selected: libraries are mapped when it starts, and by dlopen later. Later still
/// it is looked at when it speaks TLS.
const LOOKS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(2),
    Duration::from_secs(15),
];
/// Libraries stay attached for so long after the last process that used them: short programs follow each other.
const LINGER: Duration = Duration::from_secs(60);
const MAX_MAPS: u64 = 1 << 20;
const MAX_LIBRARIES: usize = 256;
const LIBRARIES_OF_PROCESS: usize = 8;
const MAX_EXECUTABLES: usize = 4096;

/// Device and inode.
type Key = (Vec<u8>, u64);

struct Library {
    name: String,
    /// Number of the attachment, or why there is none.
    state: Result<u32, Unreadable>,
    users: HashSet<u32>,
    unused_since: Option<Instant>,
}

struct Watched {
    executable: String,
    began: Instant,
    /// Looks that are done.
    looks: usize,
    libraries: Vec<Key>,
}

/// The thread's state.
pub(super) struct Keeper {
    procfs: ProcFs,
    helper: Option<Helper>,
    told: Told,
    processes: HashMap<u32, Watched>,
    libraries: HashMap<Key, Library>,
    /// Executables that have no library in them.
    plain: HashSet<Key>,
    ciphers: Ciphers,
    next: u32,
}

impl Keeper {
    pub(super) fn new(procfs: ProcFs, helper: Helper, told: Told) -> Self {
        Self {
            procfs,
            helper: Some(helper),
            told,
            processes: HashMap::new(),
            libraries: HashMap::new(),
            plain: HashSet::new(),
            ciphers: Ciphers::default(),
            next: 1,
        }
    }

    /// Works until the other end of `notes` is gone.
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let due = self.due();
            let now = Instant::now();
            match notes.recv_timeout(due.map_or(LINGER, |due| due.saturating_duration_since(now)).min(LINGER)) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_where_due();
            self.detach_unused();
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Selected { pid, executable } => {
                self.leave(pid);
                let watched = Watched { executable, began: Instant::now(), looks: 0, libraries: Vec::new() };
                self.processes.insert(pid, watched);
            }
            Note::Gone { pid } => {
                self.leave(pid);
                self.ciphers.leave(self.helper.as_ref(), pid);
            }
            Note::Speaks { pid } => self.look(pid),
            Note::InMemory { pid } => {
                self.ciphers.works_in_memory(pid);
                self.look(pid);
            }
            Note::Unread { pid, untied } => self.unread(pid, untied),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.processes.values().filter_map(Watched::due).min()
    }

    fn look_where_due(&mut self) {
        let now = Instant::now();
        let due = |watched: &Watched| watched.due().is_some_and(|due| due <= now);
        let pids: Vec<u32> = self.processes.iter().filter(|(_, watched)| due(watched)).map(|(pid, _)| *pid).collect();
        for pid in pids {
            if let Some(watched) = self.processes.get_mut(&pid) {
                watched.looks += 1;
            }
            self.look(pid);
        }
    }

    fn look(&mut self, pid: u32) {
        if !self.processes.contains_key(&pid) {
            return;
        }
        // A process that ends meanwhile is no news.
        let Ok(maps) = self.procfs.read(pid, "maps", MAX_MAPS) else { return };
        for mapped in mapped::openssl(&maps, LIBRARIES_OF_PROCESS) {
            let name = String::from_utf8_lossy(&mapped.path).into_owned();
            let procfs = self.procfs.clone();
            self.uses(pid, mapped.key.clone(), name, || library::mapped(&procfs, pid, &mapped));
        }
        // Before the program's own file, which may take some time to look through.
        self.look_at_cipher(pid, &maps, None);
        if let Some(key) = self.look_at_executable(pid) {
            self.look_at_cipher(pid, &maps, Some(&key));
        }
    }

    fn look_at_cipher(&mut self, pid: u32, maps: &[u8], executable: Option<&Key>) {
        let name = self.processes.get(&pid).map(|watched| watched.executable.as_str()).unwrap_or_default();
        if let (Some(helper), true) = (&self.helper, self.ciphers.wanted(pid, name, maps)) {
            self.ciphers.look(&self.procfs, helper, pid, maps, executable);
        }
    }

    /// Gives the key of its file if a library is linked into it.
    fn look_at_executable(&mut self, pid: u32) -> Option<Key> {
        use std::os::unix::fs::MetadataExt as _;
        let file = library::open_executable(&self.procfs, pid).ok()?;
        let facts = file.metadata().ok()?;
        // Of maps no device is written so: the two do not meet.
        let key = (format!("exe {}", facts.dev()).into_bytes(), facts.ino());
        if self.plain.contains(&key) {
            return None;
        }
        let mut readable = None;
        if !self.libraries.contains_key(&key) {
            readable = library::executable(file);
            if readable.is_none() {
                if self.plain.len() >= MAX_EXECUTABLES {
                    self.plain.clear();
                }
                self.plain.insert(key);
                return None;
            }
        }
        let name = self.processes.get(&pid).map(|watched| watched.executable.clone()).unwrap_or_default();
        self.uses(pid, key.clone(), name, || readable.unwrap_or(Err(Unreadable::Symbols)));
        Some(key)
    }

    /// The process uses a library; attaches to it if nobody used it before.
    fn uses(&mut self, pid: u32, key: Key, name: String, open: impl FnOnce() -> Result<Readable, Unreadable>) {
        if !self.libraries.contains_key(&key) {
            let state = match self.libraries.len() < MAX_LIBRARIES {
                true => open().and_then(|(file, mut places)| {
                    self.ciphers.take(&key, &mut places);
                    self.attach(pid, &name, (file, places))
                }),
                false => Err(Unreadable::Many),
            };
            if let Err(reason) = &state {
                tracing::warn!(pid, library = name, %reason, "TLS of this library is not read");
            }
            let library = Library { name, state, users: HashSet::new(), unused_since: None };
            self.libraries.insert(key.clone(), library);
        }
        let Some(watched) = self.processes.get_mut(&pid) else { return };
        if !watched.libraries.contains(&key) {
            watched.libraries.push(key.clone());
        }
        if let Some(library) = self.libraries.get_mut(&key) {
            library.users.insert(pid);
            library.unused_since = None;
            let reason = library.state.as_ref().err().map(ToString::to_string);
            report::library(&self.told, &watched.executable, &library.name, reason);
        }
    }

    fn attach(&mut self, pid: u32, name: &str, (file, places): Readable) -> Result<u32, Unreadable> {
        let Some(helper) = &self.helper else {
            return Err(Unreadable::Refused("the process that attaches probes is gone".to_owned()));
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (began, functions) = (Instant::now(), places.len());
        let stops = stops::plan(&file, &places);
        tracing::debug!(library = name, ?stops, "stops in the functions of this TLS library");
        match helper.attach(number, stops, &file) {
            Ok(()) => {
                let ms = began.elapsed().as_millis() as u64;
                tracing::info!(pid, library = name, functions, ms, "reading TLS");
                Ok(number)
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Gone(_)) {
                    tracing::error!(%refusal, "no further TLS library is read");
                    self.helper = None;
                }
                Err(Unreadable::Refused(refusal.to_string()))
            }
        }
    }

    fn leave(&mut self, pid: u32) {
        let Some(watched) = self.processes.remove(&pid) else { return };
        for key in watched.libraries {
            let Some(library) = self.libraries.get_mut(&key) else { continue };
            library.users.remove(&pid);
            if library.users.is_empty() {
                library.unused_since = Some(Instant::now());
            }
        }
    }

    fn detach_unused(&mut self) {
        let now = Instant::now();
        let helper = &self.helper;
        self.libraries.retain(|_, library| {
            if library.unused_since.is_none_or(|since| now.duration_since(since) < LINGER) {
                return true;
            }
            if let (Some(helper), Ok(number)) = (helper, &library.state) {
                tracing::debug!(library = library.name, "no process uses this TLS library any more");
                if let Err(refusal) = helper.detach(*number) {
                    tracing::debug!(%refusal, "probes stay until the agent ends");
                }
            }
            false
        });
    }

    /// Nobody read a connection of this process.
    fn unread(&mut self, pid: u32, untied: bool) {
        let Some(watched) = self.processes.get(&pid) else { return };
        let libraries: Vec<&Library> = watched.libraries.iter().filter_map(|key| self.libraries.get(key)).collect();
        let report = Report::of(
            libraries.iter().map(|library| (library.name.as_str(), library.state.as_ref().err())),
            untied,
            || report::others(&self.procfs, pid),
        );
        report::connection(&self.told, pid, &watched.executable, report);
    }
}

impl Watched {
    fn due(&self) -> Option<Instant> {
        LOOKS.get(self.looks).map(|after| self.began + *after)
    }
}
