//! Programs of Go, Node, CPython and tokio whose requests are linked.
//!
//! In: programs that the keeper attaches to, processes that it looks at. Out: probes where Go and Node hand requests on, as long as a process
//! has the program, and what `python` and `tokio` do for theirs; a line in the log where it cannot be.

use std::{collections::HashMap, fs::File};

use ::tokio::sync::oneshot;

use super::{Helper, Key, go};
use crate::{
    discovery::ProcFs,
    tls::{
        linked::{Linked, State},
        node,
        order::{Part, Stop},
        python::{Pythons, Table},
        tokio::Tokios,
    },
};

/// What is done when the keeper has nothing else to do, in this order.
pub(super) enum Later {
    /// A program that was attached to may be one of Go or Node. `pid`: who brought it.
    Program { pid: u32, key: Key, file: File },
    /// A process may run CPython or tokio.
    Process { pid: u32 },
    /// Somebody wants to know when what came before is done.
    Settled(oneshot::Sender<()>),
}

impl Later {
    /// Whether it is to look at this process.
    pub(super) fn is_of(&self, process: u32) -> bool {
        matches!(self, Self::Process { pid } if *pid == process)
    }
}

/// All of them.
pub(super) struct Links {
    /// Where it is noted what becomes of programs; `None`: none are to be linked.
    noted: Option<Linked>,
    /// Numbers of the attachments to programs of Go.
    attached: HashMap<Key, u32>,
    /// Programs of CPython; `None`: they are not to be linked, or cannot be.
    pythons: Option<Pythons>,
    /// Programs of tokio; `None`: that was not asked for, or cannot be.
    tokios: Option<Tokios>,
}

impl Links {
    pub(super) fn new(wanted: Option<(Linked, crate::tls::Links)>, python: Option<Table>) -> Self {
        let noted = wanted.as_ref().map(|(noted, _)| noted.clone());
        let pythons = noted.clone().zip(python).map(|(noted, table)| Pythons::new(table, noted));
        let tokios = wanted.filter(|(_, links)| links.tokio && pythons.is_some());
        Self { noted, attached: HashMap::new(), pythons, tokios: tokios.map(|(noted, _)| Tokios::new(noted)) }
    }

    /// Whether programs of Go and Node are to be linked.
    pub(super) fn are_on(&self) -> bool {
        self.noted.is_some()
    }

    /// Whether processes are to be looked at, for CPython and tokio.
    pub(super) fn look_at_processes(&self) -> bool {
        self.pythons.is_some()
    }

    /// Sees to which request of this program others are made for, if it is one of Go or Node. `number`: of the attachment.
    pub(super) fn attach(&mut self, helper: &Helper, number: u32, (pid, name): (u32, &str), key: &Key, file: &File) {
        let Some(noted) = &self.noted else { return };
        let Some((part, stops)) = find(file) else { return };
        let runtime = if part == Part::Go { "Go" } else { "Node" };
        match stops.map(|stops| helper.can(part).and_then(|()| helper.attach(number, stops, file))) {
            Ok(Ok(())) => {
                tracing::info!(pid, executable = name, "linking requests of {runtime}");
                noted.note(name, runtime, State::Linked);
                self.attached.insert(key.clone(), number);
            }
            Ok(Err(refusal)) => noted.refuse(pid, name, runtime, &refusal.to_string()),
            Err(reason) => noted.refuse(pid, name, runtime, &reason),
        }
    }

    /// No process has the program any more.
    pub(super) fn detach(&mut self, helper: &Helper, key: &Key) {
        if let Some(number) = self.attached.remove(key) {
            helper.detach(number);
        }
    }

    /// Looks at a process with these maps.
    pub(super) fn look(&mut self, on: (&ProcFs, &Helper), pid: u32, executable: &str, maps: &[u8]) {
        if let Some(pythons) = &mut self.pythons {
            pythons.look(on, pid, executable, maps);
            if let Some(tokios) = &mut self.tokios {
                tokios.look(on, pid, executable, pythons);
            }
        }
    }

    /// The process is observed no more, or is another program.
    pub(super) fn leave(&mut self, pid: u32) {
        if let Some(pythons) = &mut self.pythons {
            pythons.leave(pid);
        }
        if let Some(tokios) = &mut self.tokios {
            tokios.leave(pid);
        }
    }

    /// Detaches what nobody has used for a while.
    pub(super) fn detach_unused(&mut self, helper: Option<&Helper>) {
        if let Some(pythons) = &mut self.pythons {
            pythons.detach_unused(helper);
        }
        if let Some(tokios) = &mut self.tokios {
            tokios.detach_unused(helper);
        }
    }
}

/// The runtime of a program, and its stops, or why there are none. `None`: it is of no runtime whose requests are linked here.
fn find(file: &File) -> Option<(Part, Result<Vec<Stop>, String>)> {
    if let Some(found) = go::links::find(file) {
        return Some((Part::Go, found.map_err(|reason| reason.to_string())));
    }
    let found = node::find(file)?.map_err(|reason| reason.to_string());
    Some((Part::Node, found))
}
