//! At most one line a minute for each kind of trouble, with how many it stands for.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Time between two lines of a kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets one event a minute of each kind through.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    kinds: HashMap<&'static str, (Instant, u64)>,
}

impl RateLimit {
    /// `Some(n)` if a line is due; it stands for itself and `n` events that were held back.
    pub(super) fn due(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        match self.kinds.get_mut(kind) {
            Some((last, held)) if now.duration_since(*last) < PAUSE => {
                *held += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                self.kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_of_each_kind() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        assert_eq!(limit.due("a", start), Some(0));
        assert_eq!(limit.due("a", start), None);
        assert_eq!(limit.due("b", start), Some(0));
        assert_eq!(limit.due("a", start + Duration::from_secs(59)), None);
        assert_eq!(limit.due("a", start + Duration::from_secs(60)), Some(2));
        assert_eq!(limit.due("a", start + Duration::from_secs(61)), None);
    }
}
