//! Where results of Go's calls stand on the stack, told to the kernel side.
//!
//! In: places of functions of one program. Out: an entry for each in the map `tls_go_results`, which the kernel side knows by
//! the place in a page at which a program is stopped. Two programs that have different results at the same one (4,096 there
//! are) cannot both be read so: the second is stopped at its return instructions. Entries stay.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::Done;
use crate::{mapped::MappedWords, tls::order::Function};

const PAGE: u64 = 4096;
/// In an entry: the place is a jump that may begin the function anew.
const AT_JUMP: u32 = 1 << 31;
/// In an entry: of Read, which is not seen to begin.
const IS_ALL: u32 = 1 << 30;

/// The map, and what is in it.
pub struct Results {
    words: MappedWords,
    known: BTreeMap<u32, u32>,
}

impl Results {
    /// Entries of the map, one for each place in a page.
    pub const PLACES: usize = PAGE as usize;

    /// With the map's words, all 0.
    pub fn new(words: MappedWords) -> Self {
        Self { words, known: BTreeMap::new() }
    }

    /// Whether the kernel side knows the results of all these places now; `false` as well if there are none.
    pub(in crate::tls) fn tell(&mut self, places: &[(Function, u64)]) -> bool {
        let done: Vec<Done> =
            places.iter().filter(|(f, _)| *f == Function::GoDone).map(|(_, place)| Done::of(*place)).collect();
        match add(&mut self.known, &done) {
            Some(news) => news.into_iter().all(|(place, entry)| self.set(place, entry)),
            None => false,
        }
    }

    fn set(&self, place: u32, entry: u32) -> bool {
        let word = usize::try_from(place).ok().and_then(|place| self.words.get(place));
        word.map(|word| word.store(entry.into(), Ordering::Relaxed)).is_some()
    }
}

/// What is new; nothing is added, and `None` given, if one of them is known otherwise, or there are none.
fn add(known: &mut BTreeMap<u32, u32>, done: &[Done]) -> Option<Vec<(u32, u32)>> {
    let mut with = known.clone();
    for done in done {
        let place = u32::try_from(done.offset % PAGE).ok()?;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let entry = u32::from(done.result) | flag(done.at_jump, AT_JUMP) | flag(done.is_all, IS_ALL);
        if *with.entry(place).or_insert(entry) != entry {
            return None;
        }
    }
    let news = with.iter().filter(|(place, _)| !known.contains_key(place)).map(|(place, entry)| (*place, *entry));
    let news = news.collect();
    *known = with;
    (!done.is_empty()).then_some(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(offset: u64, result: u16) -> Done {
        Done { offset, result, at_jump: false, is_all: false }
    }

    #[test]
    fn a_place_has_one_result() {
        let mut known = BTreeMap::new();
        assert_eq!(add(&mut known, &[done(0x5ac626, 64), done(0x5ab546, 152)]), Some(vec![(0x546, 152), (0x626, 64)]));
        // Another program with the same ones.
        assert_eq!(add(&mut known, &[done(0x1626, 64), done(0x700, 152)]), Some(vec![(0x700, 152)]));
        // One with others: nothing of it is added.
        assert_eq!(add(&mut known, &[done(0x800, 8), done(0x2626, 72)]), None);
        assert_eq!(add(&mut known, &[done(0x900, 8), done(0x3900, 16)]), None);
        assert_eq!(add(&mut known, &[Done { at_jump: true, ..done(0x626, 64) }]), None);
        assert_eq!(known.len(), 3);
        assert_eq!(add(&mut known, &[]), None);
    }
}
