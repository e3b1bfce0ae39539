//! Whether an agent is heard.
//!
//! In: beginnings, messages and ends of streams. Out: for how long the newest has been silent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What all streams share.
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat(Arc<Mutex<Newest>>);

#[derive(Debug, Default)]
struct Newest {
    number: u64,
    /// `None`: it has ended.
    heard: Option<Instant>,
}

/// One stream, from its beginning until this is dropped.
#[derive(Debug)]
pub(super) struct Beat {
    all: Heartbeat,
    number: u64,
}

impl Heartbeat {
    /// A stream has begun; it takes the place of the one before.
    pub(super) fn begin(&self) -> Beat {
        let number = self.with(|newest| {
            *newest = Newest { number: newest.number + 1, heard: Some(Instant::now()) };
            newest.number
        });
        Beat { all: self.clone(), number }
    }

    /// Since when nothing was heard; `None` if there is no stream.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.with(|newest| newest.heard).map(|heard| heard.elapsed())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Newest) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Beat {
    /// A message has arrived.
    pub(super) fn heard(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, heard: Option<Instant>) {
        self.all.with(|newest| {
            if newest.number == self.number {
                newest.heard = heard;
            }
        });
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_stream_counts() {
        let all = Heartbeat::default();
        assert_eq!(all.silence(), None);
        let old = all.begin();
        let new = all.begin();
        assert!(all.silence().is_some());
        drop(old);
        assert!(all.silence().is_some());
        new.heard();
        drop(new);
        assert_eq!(all.silence(), None);
    }
}
