//! Which request of a program of tokio another one is made for: where that is seen, in which programs.
//!
//! In: processes and their executables. Out: probes where tasks are woken and made, as long as a process uses the file, and where
//! a thread has the number of its task, told to the kernel side (`probes/tokio_link.h`). `code` looks at one file.

mod code;

use std::{collections::HashMap, fs::File, os::unix::fs::MetadataExt as _};

use self::code::Found;
use super::{
    helper::Helper,
    linked::{Linked, State},
    order::Part,
    python::Pythons,
    users::Users,
};
use crate::discovery::ProcFs;

/// As the forwarder is told.
pub(super) const RUNTIME: &str = "tokio";
/// Files that are known at once.
const MAX_FILES: usize = 1024;
/// Attachments are numbered apart from those of libraries, of single processes and of CPython.
const FIRST: u32 = 3 << 29;
const NO_SPAWN: &str =
    "where its runtime makes tasks is not seen, as in one of a single thread: what spawned tasks ask for is not linked";

/// Whether requests of this program would be linked, or why not, or not all. `None`: it is no program of tokio.
pub(super) fn linkable(file: &File) -> Option<Result<(), String>> {
    Some(match code::find(file)? {
        Ok(Found { spawns: true, .. }) => Ok(()),
        Ok(_) => Err(format!("linked in part: {NO_SPAWN}")),
        Err(why) => Err(why.to_string()),
    })
}

struct Attached {
    found: Found,
    number: u32,
    users: Users,
}

/// All programs of tokio.
pub(super) struct Tokios {
    noted: Linked,
    /// By device and inode; `None`: nothing is to be seen in it.
    files: HashMap<(u64, u64), Option<Attached>>,
    /// Processes that were looked at, and the file of those that are linked.
    programs: HashMap<u32, Option<(u64, u64)>>,
    next: u32,
}

impl Tokios {
    pub(super) fn new(noted: Linked) -> Self {
        Self { noted, files: HashMap::new(), programs: HashMap::new(), next: 0 }
    }

    /// Looks at a process, once.
    pub(super) fn look(
        &mut self,
        (procfs, helper): (&ProcFs, &Helper),
        pid: u32,
        executable: &str,
        table: &mut Pythons,
    ) {
        if self.programs.contains_key(&pid) {
            return;
        }
        self.programs.insert(pid, None);
        let Ok(file) = File::open(procfs.path(pid, "exe")) else { return };
        let Ok(key) = file.metadata().map(|data| (data.dev(), data.ino())) else { return };
        let Some(place) = self.place(helper, (pid, executable), key, &file) else { return };
        if !table.add_tokio(pid, place) {
            return self.noted.refuse(
                pid,
                executable,
                RUNTIME,
                "too many programs are linked at once, or it runs CPython",
            );
        }
        self.programs.insert(pid, Some(key));
    }

    /// Where threads have the number of their task, with stops in the file.
    fn place(&mut self, helper: &Helper, (pid, executable): (u32, &str), key: (u64, u64), file: &File) -> Option<u64> {
        if let Some(known) = self.files.get_mut(&key) {
            let attached = known.as_mut()?;
            attached.users.add(pid);
            return Some(attached.found.place);
        }
        if self.files.len() >= MAX_FILES {
            // What is stopped in stays known.
            self.files.retain(|_, file| file.is_some());
        }
        self.files.insert(key, None);
        let refuse = |reason: &str| self.noted.refuse(pid, executable, RUNTIME, reason);
        let found = match code::find(file)? {
            Ok(found) => found,
            Err(why) => {
                refuse(&why.to_string());
                return None;
            }
        };
        let number = FIRST | self.next;
        tracing::debug!(pid, stops = ?found.stops, place = found.place.cast_signed(), "stops for links of tokio");
        if let Err(refusal) = helper.can(Part::Tokio).and_then(|()| helper.attach(number, found.stops.clone(), file)) {
            refuse(&refusal.to_string());
            return None;
        }
        self.next = self.next.wrapping_add(1) & ((1 << 29) - 1);
        let (version, place) = (found.version.clone(), found.place);
        tracing::info!(pid, executable, version, "linking requests of tokio");
        match found.spawns {
            true => self.noted.note(executable, RUNTIME, State::Linked),
            false => {
                tracing::info!(pid, executable, but = NO_SPAWN, "requests of tokio are linked in part");
                self.noted.note(executable, RUNTIME, State::Partly(NO_SPAWN));
            }
        }
        let mut users = Users::default();
        users.add(pid);
        self.files.insert(key, Some(Attached { found, number, users }));
        Some(place)
    }

    /// The process is observed no more, or is another program.
    pub(super) fn leave(&mut self, pid: u32) {
        if let Some(Some(key)) = self.programs.remove(&pid)
            && let Some(Some(attached)) = self.files.get_mut(&key)
        {
            attached.users.leave(pid);
        }
    }

    /// Detaches what nobody has used for a while.
    pub(super) fn detach_unused(&mut self, helper: Option<&Helper>) {
        self.files.retain(|_, file| {
            let Some(attached) = file.as_ref().filter(|attached| attached.users.are_gone()) else { return true };
            if let Some(helper) = helper {
                helper.detach(attached.number);
            }
            false
        });
    }
}
