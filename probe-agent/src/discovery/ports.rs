//! A set of TCP ports.
//!
//! In: ranges of the configuration. Out: membership in constant time, and the words of the bit set for the kernel.

use spantap_config::PortRange;

const WORDS: usize = 65_536 / 64;

/// Every port is in it or not: 65,536 bits.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PortSet {
    words: Box<[u64]>,
}

impl Default for PortSet {
    fn default() -> Self {
        Self { words: vec![0; WORDS].into_boxed_slice() }
    }
}

impl std::fmt::Debug for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..=u16::MAX).filter(|&port| self.contains(port))).finish()
    }
}

impl PortSet {
    /// Adds all ports of an inclusive range.
    pub(crate) fn insert(&mut self, range: PortRange) {
        for port in range.first..=range.last {
            if let Some(word) = self.words.get_mut(usize::from(port) / 64) {
                *word |= 1 << (port % 64);
            }
        }
    }

    /// Whether `port` is in it.
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.words.get(usize::from(port) / 64).is_some_and(|word| word & (1 << (port % 64)) != 0)
    }

    /// Whether there is none.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// 1,024 words: port `p` is bit `p % 64` of word `p / 64`.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_exactly_what_was_put_in() {
        let mut set = PortSet::default();
        assert!(set.is_empty());
        set.insert(PortRange { first: 80, last: 80 });
        set.insert(PortRange { first: 8000, last: 8999 });
        set.insert(PortRange { first: 65_535, last: 65_535 });
        let held: Vec<u16> = (0..=u16::MAX).filter(|&port| set.contains(port)).collect();
        let expected: Vec<u16> = [80].into_iter().chain(8000..=8999).chain([65_535]).collect();
        assert_eq!(held, expected);
        assert_eq!(set.words().iter().map(|word| word.count_ones()).sum::<u32>(), 1002);
        assert_eq!(set.words().first().copied(), Some(0));
        assert_eq!(set.words().get(1).copied(), Some(1 << 16));
    }
}
