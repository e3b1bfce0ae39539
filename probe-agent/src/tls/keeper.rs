//! Keeps the TLS libraries of selected processes attached, each once, as long as one of them uses it.
//!
//! In: which processes are selected, which speak TLS, which of their connections nobody read. Out: attached probes; a line in
//! the log for each library; what is not read, and why. Runs in a thread of its own: files may lie where reading takes long.
//!
//! `processes` knows the processes · `links` attaches to programs of Go, Node and CPython what links their requests. That comes after
//! all else: a request without its link is complete, one whose TLS is not read yet is not told.

mod links;
mod processes;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use links::{Later, Links};
use processes::{Processes, Watched};

use super::{
    Note, Told,
    cipher::Ciphers,
    go::{self, Results},
    helper::{Helper, Refusal},
    library::{self, Readable, Unreadable},
    linked::Linked,
    mapped::{self, Key},
    order::Function,
    python::Table,
    report::{self, Report},
    stops,
    users::{LINGER, Users},
};
use crate::discovery::ProcFs;

/// What is known of an unread process's libraries is looked up again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const MAX_LIBRARIES: usize = 256;
const LIBRARIES_OF_PROCESS: usize = 8;
const MAX_EXECUTABLES: usize = 4096;
/// After so many notes in a row one thing that waits is done although more notes have come.
const NOTES_IN_A_ROW: u32 = 64;

struct Library {
    name: String,
    /// Number of the attachment, or why there is none.
    state: Result<u32, Unreadable>,
    users: Users,
}

/// The thread's state.
pub(super) struct Keeper {
    procfs: ProcFs,
    helper: Option<Helper>,
    /// To tell the kernel side of Go's calls.
    results: Option<Results>,
    told: Told,
    processes: Processes,
    libraries: HashMap<Key, Library>,
    /// Executables that have no library in them.
    plain: HashSet<Key>,
    ciphers: Ciphers,
    links: Links,
    /// What waits until there is nothing else to do: at most a program for each library that was attached, a process once, and who asks.
    later: VecDeque<Later>,
    /// Of the last attachment.
    next: u32,
}

impl Keeper {
    pub(super) fn new(
        procfs: ProcFs,
        (helper, results, python): (Helper, Option<Results>, Option<Table>),
        told: Told,
        linked: Option<(Linked, super::Links)>,
    ) -> Self {
        Self {
            procfs,
            helper: Some(helper),
            results,
            told,
            processes: Processes::default(),
            libraries: HashMap::new(),
            plain: HashSet::new(),
            ciphers: Ciphers::default(),
            links: Links::new(linked, python),
            later: VecDeque::new(),
            next: 0,
        }
    }

    /// Works until the other end of `notes` is gone.
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        let mut in_a_row = 0;
        loop {
            let due = self.processes.due();
            let now = Instant::now();
            let wait = match self.later.is_empty() {
                true => due.map_or(LINGER, |due| due.saturating_duration_since(now)).min(LINGER),
                false => Duration::ZERO,
            };
            match notes.recv_timeout(wait) {
                Ok(note) => {
                    self.take(note);
                    in_a_row += 1;
                }
                Err(RecvTimeoutError::Timeout) => in_a_row = NOTES_IN_A_ROW,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if in_a_row >= NOTES_IN_A_ROW {
                in_a_row = 0;
                self.do_next();
            }
            for pid in self.processes.now_due() {
                self.look(pid);
            }
            self.processes.forget();
            self.detach_unused();
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Selected { pid, executable } => {
                self.leave(pid);
                self.processes.insert(pid, Watched::new(executable));
            }
            Note::Gone { pid } => {
                self.leave(pid);
                self.ciphers.leave(self.helper.as_ref(), pid);
            }
            Note::Speaks { pid } => {
                self.look(pid);
                // When its connections have ended, it may have too.
                if self.processes.get(pid).is_some_and(|watched| watched.libraries.is_empty()) {
                    self.look_for_others(pid);
                }
            }
            Note::InMemory { pid } => {
                self.ciphers.works_in_memory(pid);
                self.look(pid);
            }
            Note::Unread { pid, untied } => self.unread(pid, untied),
            Note::Settled(asker) => self.later.push_back(Later::Settled(asker)),
        }
    }

    /// Does the first thing that waits.
    fn do_next(&mut self) {
        let Some(next) = self.later.pop_front() else { return };
        match (next, &self.helper) {
            (Later::Program { pid, key, file }, Some(helper)) => {
                // Nobody may use it any more.
                if let Some(library) = self.libraries.get(&key) {
                    self.next = self.next.wrapping_add(1);
                    self.links.attach(helper, self.next, (pid, &library.name), &key, &file);
                }
            }
            (Later::Process { pid }, Some(helper)) => {
                if let Some(watched) = self.processes.get(pid)
                    && let Ok(maps) = self.procfs.maps(pid)
                {
                    self.links.look((&self.procfs, helper), pid, &watched.executable, &maps);
                }
            }
            (Later::Settled(asker), _) => _ = asker.send(()),
            (_, None) => {}
        }
    }

    fn look(&mut self, pid: u32) {
        if self.processes.get(pid).is_none() {
            return;
        }
        // A process that ends meanwhile is no news.
        let Ok(maps) = self.procfs.maps(pid) else { return };
        for mapped in mapped::libraries(&maps, LIBRARIES_OF_PROCESS) {
            let name = String::from_utf8_lossy(&mapped.path).into_owned();
            let procfs = self.procfs.clone();
            self.uses(pid, mapped.key.clone(), name, || library::mapped(&procfs, pid, &mapped));
        }
        // Before the program's own file, which may take some time to look through.
        self.look_at_cipher(pid, &maps, None);
        if let Some(key) = self.look_at_executable(pid) {
            self.look_at_cipher(pid, &maps, Some(&key));
        }
        if self.links.look_at_processes() && !self.later.iter().any(|later| later.is_of(pid)) {
            self.later.push_back(Later::Process { pid });
        }
    }

    fn look_at_cipher(&mut self, pid: u32, maps: &[u8], executable: Option<&Key>) {
        let name = self.processes.get(pid).map(|watched| watched.executable.as_str()).unwrap_or_default();
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
            readable = library::executable(&self.procfs, pid, file);
            if readable.is_none() {
                if self.plain.len() >= MAX_EXECUTABLES {
                    self.plain.clear();
                }
                self.plain.insert(key);
                return None;
            }
        }
        let name = self.processes.get(pid).map(|watched| watched.executable.clone()).unwrap_or_default();
        self.uses(pid, key.clone(), name, || readable.unwrap_or(Err(Unreadable::Symbols)));
        Some(key)
    }

    /// The process uses a library; attaches to it if nobody used it before.
    fn uses(&mut self, pid: u32, key: Key, name: String, open: impl FnOnce() -> Result<Readable, Unreadable>) {
        if !self.libraries.contains_key(&key) {
            let state = match self.libraries.len() < MAX_LIBRARIES {
                true => open().and_then(|(file, mut places)| {
                    self.ciphers.take(&key, &mut places);
                    let told = self.results.as_mut().is_some_and(|results| results.tell(&places));
                    go::choose(&mut places, told);
                    let attached = self.attach(pid, &name, (&file, &places));
                    if self.links.are_on() {
                        self.later.push_back(Later::Program { pid, key: key.clone(), file });
                    }
                    attached
                }),
                false => Err(Unreadable::Many),
            };
            if let Err(reason) = &state {
                tracing::warn!(pid, library = name, %reason, "TLS of this library is not read");
            }
            let library = Library { name, state, users: Users::default() };
            self.libraries.insert(key.clone(), library);
        }
        let Some(watched) = self.processes.get_mut(pid) else { return };
        if !watched.libraries.contains(&key) {
            watched.libraries.push(key.clone());
        }
        if let Some(library) = self.libraries.get_mut(&key) {
            library.users.add(pid);
            let reason = library.state.as_ref().err().map(ToString::to_string);
            report::library(&self.told, &watched.executable, &library.name, reason);
        }
    }

    fn attach(&mut self, pid: u32, name: &str, (file, places): (&File, &[(Function, u64)])) -> Result<u32, Unreadable> {
        let Some(helper) = &self.helper else {
            return Err(Unreadable::Refused("the process that attaches probes is gone".to_owned()));
        };
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let (began, functions) = (Instant::now(), places.len());
        let stops = stops::plan(file, places);
        tracing::debug!(library = name, ?stops, "stops in the functions of this TLS library");
        match helper.attach(number, stops, file) {
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
        self.links.leave(pid);
        for key in self.processes.leave(pid) {
            if let Some(library) = self.libraries.get_mut(&key) {
                library.users.leave(pid);
            }
        }
    }

    fn detach_unused(&mut self) {
        let helper = &self.helper;
        let links = &mut self.links;
        links.detach_unused(helper.as_ref());
        self.libraries.retain(|key, library| {
            if !library.users.are_gone() {
                return true;
            }
            if let Some(helper) = helper {
                if let Ok(number) = library.state {
                    tracing::debug!(library = library.name, "no process uses this TLS library any more");
                    helper.detach(number);
                }
                links.detach(helper, key);
            }
            false
        });
    }

    /// Looks which libraries an observed process has that are not read. Not for each connection: an executable may have 100 MB.
    fn look_for_others(&mut self, pid: u32) {
        let Some(watched) = self.processes.get_mut(pid) else { return };
        if watched.others.as_ref().is_none_or(|(since, _)| since.elapsed() >= LOOK_AGAIN) {
            watched.others = Some((Instant::now(), report::others(&self.procfs, pid)));
        }
    }

    /// Nobody read a connection of this process.
    fn unread(&mut self, pid: u32, untied: bool) {
        self.look_for_others(pid);
        let Some(watched) = self.processes.known(pid) else { return };
        let others = watched.others.as_ref().map(|(_, others)| others.as_slice());
        let libraries: Vec<&Library> = watched.libraries.iter().filter_map(|key| self.libraries.get(key)).collect();
        let report = Report::of(
            libraries.iter().map(|library| (library.name.as_str(), library.state.as_ref().err())),
            untied,
            others,
        );
        report::connection(&self.told, pid, &watched.executable, report);
    }
}
