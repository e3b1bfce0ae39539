//! The spools of both signals.
//!
//! In: the folder that was opened at the start, the books of a signal. Out: the one spool of that signal, for each exporter
//! that it has: what the old one leaves at a change of configuration, the new one sends.

use std::sync::Arc;

use spantap_config::Spool as Configured;

use crate::{
    export::spool::{Directory, Limits, Spool, SpoolError},
    telemetry::destination::Destination,
};

pub(super) struct Spools {
    folder: Option<(Directory, Limits)>,
    /// By the name of the signal.
    opened: Vec<(&'static str, Spool)>,
}

impl Spools {
    /// None at all if there is no folder or nothing is configured.
    pub(super) fn new(folder: Option<&Directory>, of: Option<&Configured>) -> Self {
        let limits = of.map(|of| Limits { max_bytes: of.max_bytes, max_age: of.max_age });
        Self { folder: folder.cloned().zip(limits), opened: Vec::new() }
    }

    /// The spool of the signal that `books` are of, opened when it is first asked for.
    pub(super) fn of(&mut self, books: &Arc<Destination>) -> Result<Option<Spool>, SpoolError> {
        let Some((folder, limits)) = &self.folder else { return Ok(None) };
        if let Some((_, known)) = self.opened.iter().find(|(signal, _)| *signal == books.name()) {
            return Ok(Some(known.clone()));
        }
        let spool = Spool::open(folder, *limits, books.clone())?;
        self.opened.push((books.name(), spool.clone()));
        Ok(Some(spool))
    }
}
