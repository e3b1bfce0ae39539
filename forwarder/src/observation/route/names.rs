//! Texts of routes, each known by a number that stays what it means, whatever is configured anew.
//!
//! In: texts. Out: their numbers, at most [`LIMIT`] of them, and the way back without a lock.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use hashbrown::HashMap;

use super::RouteId;

/// Routes of all services in the life of the program. Each is kept to its end: series and queues refer to it.
pub const LIMIT: usize = 16_384;
/// Places for nodes of all trees of learned paths (`learned`).
const NODES: usize = 131_072;
const BLOCK: usize = 256;

type Block = Box<[OnceLock<Box<str>>]>;

/// The texts. Read from several threads (scrapes), written by one.
#[derive(Debug)]
pub struct Names {
    blocks: [OnceLock<Block>; LIMIT / BLOCK],
    known: Mutex<HashMap<Box<str>, u32>>,
    nodes: AtomicUsize,
}

impl Default for Names {
    fn default() -> Self {
        Self { blocks: [const { OnceLock::new() }; LIMIT / BLOCK], known: Mutex::default(), nodes: AtomicUsize::new(0) }
    }
}

impl Names {
    /// Number of `text`; `None` if it is new and there is no room.
    pub fn id(&self, text: &str) -> Option<RouteId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.get(text) {
            return Some(RouteId(*id));
        }
        let at = known.len();
        let block = self.blocks.get(at / BLOCK)?.get_or_init(|| (0..BLOCK).map(|_| OnceLock::new()).collect());
        let id = u32::try_from(at).ok()?;
        block.get(at % BLOCK)?.set(text.into()).ok()?;
        known.insert(text.into(), id);
        Some(RouteId(id))
    }

    /// The text of `id`; empty for a number that was never given.
    pub fn text(&self, id: RouteId) -> &str {
        let at = id.0 as usize;
        let block = self.blocks.get(at / BLOCK).and_then(OnceLock::get);
        block.and_then(|b| b.get(at % BLOCK)).and_then(OnceLock::get).map_or("", |text| text)
    }

    /// Takes the place of one node; false if there is none left.
    pub(super) fn take_node(&self) -> bool {
        let taken = self.nodes.fetch_add(1, Ordering::Relaxed) < NODES;
        if !taken {
            self.give_back(1);
        }
        taken
    }

    /// Gives the places of `nodes` back.
    pub(super) fn give_back(&self, nodes: usize) {
        self.nodes.fetch_sub(nodes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_bounded() {
        let names = Names::default();
        let first = names.id("/a");
        assert_eq!((first, names.id("/b")), (Some(RouteId(0)), Some(RouteId(1))));
        assert_eq!((names.id("/a"), names.text(RouteId(0)), names.text(RouteId(1))), (first, "/a", "/b"));
        assert_eq!(names.text(RouteId(2)), "");
        let given = (0..2 * LIMIT).filter(|n| names.id(&n.to_string()).is_some()).count();
        assert_eq!((given, names.id("/new"), names.id("/a")), (LIMIT - 2, None, first));
        assert_eq!(names.text(RouteId(u32::MAX)), "");
        assert_eq!(names.text(RouteId(LIMIT as u32 - 1)), (LIMIT - 3).to_string());
    }
}
