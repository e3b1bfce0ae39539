//! At most one line a minute for each kind of trouble, with how many it stands for.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Time between two lines of a kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets one event a minute of each kind through.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    kinds: HashMap<&'static str, (Instant, u64)>,
    /// What was last said of something that lasts.
    states: HashMap<&'static str, String>,
}

impl RateLimit {
    /// Whether `state` is another one than was last said of `kind`; nothing said yet, or [`RateLimit::over`], is another.
    pub(super) fn is_news(&mut self, kind: &'static str, state: &str) -> bool {
        let news = self.states.get(kind).is_none_or(|said| said != state);
        if news {
            self.states.insert(kind, state.to_owned());
        }
        news
    }

    /// What was said of `kind` is over; whether anything was.
    pub(super) fn over(&mut self, kind: &'static str) -> bool {
        self.states.remove(kind).is_some()
    }

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

    #[test]
    fn what_lasts_is_said_once() {
        let mut limit = RateLimit::default();
        assert!(!limit.over("a"));
        assert!(limit.is_news("a", "401") && !limit.is_news("a", "401") && limit.is_news("b", "401"));
        assert!(limit.is_news("a", "403"));
        assert!(limit.over("a") && !limit.over("a") && limit.is_news("a", "403"));
    }
}
