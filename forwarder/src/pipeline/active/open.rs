//! How many requests each process has open, by what is known of them.
//!
//! In: requests by their serial number. Out: numbers by process, and which of them have changed. At most [`MAX_OPEN`] requests
//! and [`MAX_KINDS`] kinds of them at a time.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    metric::series::OpenRequest,
    model::{ProcessId, ProcessRef, UnixNs},
};

/// Requests that are counted at once: no fewer than the table of connections keeps open.
const MAX_OPEN: usize = 131_072;
/// Kinds of requests, of all processes, that are told apart by the host that they name. Beyond, by method and scheme only, of
/// which there are some twenty.
const MAX_KINDS: usize = 8192;

/// Where a request is counted.
#[derive(Debug, Clone, Copy)]
struct Place {
    process: ProcessId,
    /// Of the run of requests of this process: it may have been forgotten since, and begun anew.
    run: u32,
    kind: u32,
}

#[derive(Debug)]
struct Of {
    process: ProcessRef,
    run: u32,
    /// Since when it has had requests that are counted.
    since: UnixNs,
    index: hashbrown::HashMap<Arc<OpenRequest>, u32>,
    kinds: Slab<(Arc<OpenRequest>, u64)>,
    changed: bool,
}

/// Open requests.
#[derive(Debug, Default)]
pub(super) struct Open {
    places: FxHashMap<u64, Place>,
    processes: FxHashMap<ProcessId, Of>,
    changed: Vec<ProcessId>,
    /// Kinds of all processes.
    kinds: usize,
    runs: u32,
    newest: u64,
}

impl Open {
    /// A request of `process` begins; `now` tells the time.
    pub(super) fn opened(
        &mut self,
        serial: u64,
        process: &ProcessRef,
        mut request: OpenRequest,
        now: impl Fn() -> UnixNs,
    ) {
        if self.places.len() >= MAX_OPEN {
            return;
        }
        self.newest = self.newest.max(serial);
        let runs = &mut self.runs;
        let of = self.processes.entry(process.id).or_insert_with(|| {
            *runs = runs.wrapping_add(1);
            let (index, kinds) = Default::default();
            Of { process: process.clone(), run: *runs, since: now(), index, kinds, changed: false }
        });
        if !Arc::ptr_eq(&of.process, process) {
            of.process = process.clone();
        }
        if self.kinds >= MAX_KINDS && !of.index.contains_key(&request) {
            (request.server, request.port) = (None, None);
        }
        let kind = match of.index.get(&request) {
            Some(kind) => *kind,
            None => {
                let request = Arc::new(request);
                let kind = of.kinds.insert((request.clone(), 0)) as u32;
                of.index.insert(request, kind);
                self.kinds += 1;
                kind
            }
        };
        if let Some((_, number)) = of.kinds.get_mut(kind as usize) {
            *number += 1;
        }
        note(of, &mut self.changed);
        self.places.insert(serial, Place { process: process.id, run: of.run, kind });
    }

    /// It has ended, or counts no more. One that is not known never counted.
    pub(super) fn closed(&mut self, serial: u64) {
        if let Some(place) = self.places.remove(&serial) {
            self.leave(place);
        }
    }

    fn leave(&mut self, place: Place) {
        let Some(of) = self.processes.get_mut(&place.process).filter(|of| of.run == place.run) else { return };
        if let Some((_, number)) = of.kinds.get_mut(place.kind as usize) {
            *number = number.saturating_sub(1);
        }
        note(of, &mut self.changed);
    }

    /// Those up to `serial` count no more.
    pub(super) fn drop_up_to(&mut self, serial: u64) {
        let over: Vec<u64> = self.places.keys().copied().filter(|known| *known <= serial).collect();
        over.into_iter().for_each(|serial| self.closed(serial));
    }

    /// Forgets a process; its requests count no more.
    pub(super) fn process_ended(&mut self, process: ProcessId) {
        if let Some(of) = self.processes.remove(&process) {
            self.kinds = self.kinds.saturating_sub(of.kinds.len());
        }
    }

    /// The newest request that was counted.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Kinds of requests that are told apart now.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> usize {
        self.kinds
    }

    /// All are to be told again.
    pub(super) fn tell_all(&mut self) {
        self.processes.values_mut().for_each(|of| note(of, &mut self.changed));
    }

    /// Processes whose numbers have changed since they were told.
    pub(super) fn changed(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.changed)
    }

    /// The process, if it has requests that are counted or were since they were told.
    pub(super) fn process(&self, id: ProcessId) -> Option<ProcessRef> {
        self.processes.get(&id).map(|of| of.process.clone())
    }

    /// Numbers of a process, and since when there are any.
    pub(super) fn of(&self, id: ProcessId) -> (impl Iterator<Item = (&OpenRequest, u64)>, UnixNs) {
        let of = self.processes.get(&id);
        let kinds = of.into_iter().flat_map(|of| of.kinds.iter().map(|(_, (request, number))| (&**request, *number)));
        (kinds, of.map_or(UnixNs(0), |of| of.since))
    }

    /// Its numbers have been told.
    pub(super) fn told(&mut self, id: ProcessId) {
        let Some(of) = self.processes.get_mut(&id) else { return };
        of.changed = false;
        let before = of.kinds.len();
        let Of { kinds, index, .. } = of;
        kinds.retain(|_, (request, number)| {
            if *number == 0 {
                index.remove(request);
            }
            *number > 0
        });
        self.kinds = self.kinds.saturating_sub(before - kinds.len());
        if kinds.is_empty() {
            self.processes.remove(&id);
        }
    }
}

fn note(of: &mut Of, changed: &mut Vec<ProcessId>) {
    if !std::mem::replace(&mut of.changed, true) {
        changed.push(of.process.id);
    }
}
