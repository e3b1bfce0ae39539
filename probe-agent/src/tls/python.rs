//! Which request of CPython's asyncio another one is made for: where that is seen, in which programs.
//!
//! In: processes and the files that they map. Out: probes on CPython and its modules as long as a process uses them, and where
//! its fields lie, told to the kernel side (`probes/python_link.h`). `core` looks at one file, `made` at the functions that make
//! contexts, `table` is what the kernel side reads. A program without asyncio is left alone.

mod core;
mod made;
mod table;

use std::{collections::HashMap, fs::File};

pub use self::table::Table;
use self::{
    core::{CALL_SOON, Core, Unlinkable},
    table::Entry,
};
use super::{
    helper::Helper,
    library,
    linked::{Linked, State},
    mapped::{self, Key, Mapped},
    order::{Function, Part, Stop},
    stops, symbols,
    users::Users,
};
use crate::discovery::{ProcFs, ReadError};

/// Files that are known at once, and of one process.
const MAX_FILES: usize = 256;
const FILES_OF_PROCESS: usize = 8;
/// Attachments are numbered apart from those of libraries and of single processes.
const FIRST: u32 = 1 << 30;
/// As the forwarder is told.
pub(super) const RUNTIME: &str = "CPython";
const STRIPPED: &str =
    "its _asyncio has no symbol call_soon: servers with a task for each connection (aiohttp) are not linked";
const BUFFERS: &str = "__pyx_f_6uvloop_4loop_8UVStream__buffer_write";
const WRITES: &str = "__pyx_f_6uvloop_4loop_8UVStream__exec_write";
/// Since 0.23 a stream writes at once what it is given, in the context of who gives it: what is sent is seen to be sent there. Before
/// that it wrote at the end of the loop's turn, in none.
const WRITES_AT_ONCE: &str = "__pyx_f_6uvloop_4loop_8UVStream_write";

/// What a file is.
#[derive(Debug, Clone)]
enum Kind {
    /// CPython itself.
    Core(Core),
    /// `_asyncio`. Without the symbol, servers with one task for each connection have no links.
    Asyncio,
    Uvloop,
}

struct Attached {
    kind: Kind,
    /// `None`: nothing had to be stopped at.
    number: Option<u32>,
    users: Users,
}

/// Whether requests of this process are linked, or why not; `None`: it has no CPython with asyncio.
pub(super) fn linkable(procfs: &ProcFs, pid: u32) -> Result<Option<Result<(), String>>, ReadError> {
    let maps = procfs.maps(pid)?;
    let mapped = mapped::python(&maps, FILES_OF_PROCESS);
    let is = |begin: &'static [u8]| mapped.iter().filter(move |mapped| mapped.name().starts_with(begin));
    let open = |mapped: &Mapped| library::open_mapped(procfs, pid, mapped).ok();
    let found = is(b"libpython3").chain(is(b"python")).find_map(|mapped| core::find(&open(mapped)?));
    let module = is(b"_asyncio.").next();
    let has_calls = |file: &File| symbols::find(file, &[CALL_SOON]).is_some_and(|found| found.contains_key(CALL_SOON));
    Ok(match (found, module) {
        (Some(Ok(core)), None) if core.has_asyncio && core.has_calls => Some(Ok(())),
        (Some(Ok(core)), None) if core.has_asyncio => Some(Err(STRIPPED.to_owned())),
        (Some(Ok(_)), Some(module)) => {
            Some(open(module).filter(has_calls).map(drop).ok_or_else(|| STRIPPED.to_owned()))
        }
        (Some(Err(why)), Some(_)) => Some(Err(why.to_string())),
        _ => None,
    })
}

/// All programs of CPython.
pub(super) struct Pythons {
    table: Table,
    noted: Linked,
    /// Files that are stopped in; `None`: there is nothing to stop at.
    files: HashMap<Key, Option<Attached>>,
    /// What each program was told with; `None`: it is not linked, which was said.
    programs: HashMap<u32, Option<Entry>>,
    next: u32,
}

impl Pythons {
    pub(super) fn new(table: Table, noted: Linked) -> Self {
        Self { table, noted, files: HashMap::new(), programs: HashMap::new(), next: 0 }
    }

    /// Looks at a process: what it did not map before may be mapped now.
    pub(super) fn look(&mut self, (procfs, helper): (&ProcFs, &Helper), pid: u32, executable: &str, maps: &[u8]) {
        if self.programs.get(&pid).is_some_and(Option::is_none) {
            return;
        }
        let mapped = mapped::python(maps, FILES_OF_PROCESS);
        let is = |begin: &'static [u8]| mapped.iter().filter(move |mapped| mapped.name().starts_with(begin));
        let (mut core, mut uvloop, mut asyncio) = (None, false, is(b"_asyncio.").next().is_some());
        // The interpreter before its modules: what they tell leads to nothing without it.
        for file in is(b"libpython3").chain(is(b"python")) {
            if core.is_none()
                && let Some((found, has_asyncio)) = self.core((procfs, helper), pid, executable, file, asyncio)
            {
                asyncio |= has_asyncio;
                core = Some((found, file.range.0));
            }
        }
        let Some((core, code)) = core.filter(|_| asyncio) else { return };
        for file in is(b"_asyncio.") {
            self.module((procfs, helper), pid, executable, file, Kind::Asyncio);
        }
        for file in is(b"loop.").filter(|file| file.path.windows(8).any(|part| part == b"/uvloop/")) {
            if !self.module((procfs, helper), pid, executable, file, Kind::Uvloop) {
                return self.refuse(pid, executable, "its uvloop has no symbols of UVStream");
            }
            uvloop = true;
        }
        let entry = Entry::of(&core, code, uvloop);
        if self.programs.get(&pid) == Some(&Some(entry)) {
            return;
        }
        if !self.table.set(pid, entry) {
            return self.refuse(pid, executable, "too many programs of CPython are linked at once");
        }
        if self.programs.insert(pid, Some(entry)).flatten().is_none_or(|before| before.uvloop != uvloop) {
            let version = format!("3.{}", core.minor);
            tracing::info!(pid, executable, version, uvloop, "linking requests of CPython's asyncio");
            self.noted.note(executable, RUNTIME, State::Linked);
        }
    }

    /// Tells of a program of tokio, which has its place among these; `false`: there is none, or it is one of these as well.
    pub(super) fn add_tokio(&mut self, pid: u32, place: u64) -> bool {
        !matches!(self.programs.get(&pid), Some(Some(_))) && self.table.set(pid, Entry::of_tokio(place))
    }

    fn refuse(&mut self, pid: u32, executable: &str, reason: &str) {
        self.noted.refuse(pid, executable, RUNTIME, reason);
        self.table.clear(pid);
        self.programs.insert(pid, None);
    }

    fn say_stripped(&self, pid: u32, executable: &str) {
        tracing::info!(pid, executable, but = STRIPPED, "requests of CPython are linked in part");
        self.noted.note(executable, RUNTIME, State::Partly(STRIPPED));
    }

    /// CPython in this file, and whether it has `_asyncio` in itself. Stopped in only if its program uses that.
    fn core(
        &mut self,
        (procfs, helper): (&ProcFs, &Helper),
        pid: u32,
        executable: &str,
        mapped: &Mapped,
        asyncio: bool,
    ) -> Option<(Core, bool)> {
        if let Some(known) = self.files.get_mut(&mapped.key) {
            let Attached { kind: Kind::Core(core), users, .. } = known.as_mut()? else { return None };
            users.add(pid);
            return Some((core.clone(), core.has_asyncio));
        }
        let file = library::open_mapped(procfs, pid, mapped).ok()?;
        let core = match core::find(&file) {
            None => {
                self.remember(mapped, None);
                return None;
            }
            Some(Err(why)) if asyncio => {
                self.refuse(pid, executable, &why.to_string());
                return None;
            }
            Some(Err(Unlinkable::Version | Unlinkable::Missing(_) | Unlinkable::Layout(_))) => return None,
            Some(Ok(core)) => core,
        };
        if !asyncio && !core.has_asyncio {
            return None;
        }
        let mut stops = stops::plan(&file, &core.places);
        stops.extend(made::stops(&file, &core.makers));
        if core.has_asyncio && !core.has_calls {
            self.say_stripped(pid, executable);
        }
        let is_attached = self.attach(helper, (pid, executable), mapped, &file, (Kind::Core(core.clone()), stops));
        is_attached.then(|| (core.clone(), core.has_asyncio))
    }

    /// Whether what the module tells is told.
    fn module(
        &mut self,
        (procfs, helper): (&ProcFs, &Helper),
        pid: u32,
        executable: &str,
        mapped: &Mapped,
        kind: Kind,
    ) -> bool {
        if let Some(known) = self.files.get_mut(&mapped.key) {
            let Some(attached) = known else { return false };
            attached.users.add(pid);
            return true;
        }
        let Ok(file) = library::open_mapped(procfs, pid, mapped) else { return false };
        let wanted: &[(&str, Function)] = match kind {
            Kind::Uvloop => &[(BUFFERS, Function::PyBuffers), (WRITES, Function::PyWrites)],
            _ => &[(CALL_SOON, Function::PyCalls)],
        };
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).chain([WRITES_AT_ONCE]).collect();
        let found = symbols::find(&file, &names).unwrap_or_default();
        if matches!(kind, Kind::Uvloop) && found.contains_key(WRITES_AT_ONCE) {
            return self.attached(mapped, pid, kind, None);
        }
        let places: Vec<_> = wanted.iter().filter_map(|(name, of)| Some((*of, *found.get(name)?))).collect();
        if places.len() < wanted.len() {
            if matches!(kind, Kind::Asyncio) {
                self.say_stripped(pid, executable);
            }
            self.remember(mapped, None);
            return false;
        }
        let stops = stops::plan(&file, &places);
        self.attach(helper, (pid, executable), mapped, &file, (kind, stops))
    }

    fn attach(
        &mut self,
        helper: &Helper,
        (pid, executable): (u32, &str),
        mapped: &Mapped,
        file: &File,
        (kind, stops): (Kind, Vec<Stop>),
    ) -> bool {
        let number = FIRST | self.next;
        self.next = self.next.wrapping_add(1) & (FIRST - 1);
        tracing::debug!(pid, file = %String::from_utf8_lossy(&mapped.path), ?stops, "stops for links of CPython");
        match helper.can(Part::Python).and_then(|()| helper.attach(number, stops, file)) {
            Ok(()) => self.attached(mapped, pid, kind, Some(number)),
            Err(refusal) => {
                self.noted.refuse(pid, executable, RUNTIME, &refusal.to_string());
                self.remember(mapped, None);
                false
            }
        }
    }

    fn attached(&mut self, mapped: &Mapped, pid: u32, kind: Kind, number: Option<u32>) -> bool {
        let mut users = Users::default();
        users.add(pid);
        self.remember(mapped, Some(Attached { kind, number, users }))
    }

    /// Always `true`: for what is attached.
    fn remember(&mut self, mapped: &Mapped, attached: Option<Attached>) -> bool {
        if self.files.len() >= MAX_FILES {
            // What is stopped in stays known.
            self.files.retain(|_, file| file.is_some());
        }
        self.files.insert(mapped.key.clone(), attached);
        true
    }

    /// The process is observed no more, or is another program.
    pub(super) fn leave(&mut self, pid: u32) {
        self.table.clear(pid);
        self.programs.remove(&pid);
        for attached in self.files.values_mut().flatten() {
            attached.users.leave(pid);
        }
    }

    /// Detaches what nobody has used for a while.
    pub(super) fn detach_unused(&mut self, helper: Option<&Helper>) {
        self.files.retain(|_, file| {
            let Some(attached) = file else { return true };
            if !attached.users.are_gone() {
                return true;
            }
            if let (Some(helper), Some(number)) = (helper, attached.number) {
                helper.detach(number);
            }
            false
        });
    }
}
