//! Which of several streams is heard.
//!
//! In: streams that begin, each with the run of the agent that it is of. Out: one turn at a time, in their order; who has to end, and why.
//! Another agent that comes takes the place of the one before, which is asked to hand over first. A run that was asked does not
//! get another turn: it would take the place back, and tell again what the other has told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex as Lock, PoisonError},
};

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// Runs that were asked to finish and are remembered. Each is a process that would still have to run.
const REMEMBERED: usize = 64;

/// What all streams share.
#[derive(Debug, Default)]
pub(super) struct Turns {
    newest: watch::Sender<Newest>,
    /// Held by the stream that is heard.
    turn: Arc<Mutex<()>>,
    replaced: Lock<VecDeque<u64>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Newest {
    number: u64,
    run: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Place {
    own: Newest,
    newest: watch::Receiver<Newest>,
    turn: Arc<Mutex<()>>,
}

/// Who has come after a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The same run, which has left this stream behind.
    Same,
    /// Another agent.
    Other,
}

impl Turns {
    /// A stream of this run begins; `None`: another agent has taken the place of that.
    pub(super) fn begin(&self, run: u64) -> Option<Place> {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        if replaced.contains(&run) {
            return None;
        }
        let mut own = Newest::default();
        self.newest.send_modify(|newest| {
            if newest.number != 0 && newest.run != run {
                replaced.push_back(newest.run);
                if replaced.len() > REMEMBERED {
                    replaced.pop_front();
                }
            }
            own = Newest { number: newest.number + 1, run };
            *newest = own;
        });
        Some(Place { own, newest: self.newest.subscribe(), turn: self.turn.clone() })
    }
}

impl Place {
    /// Waits until the streams before are over. The turn ends when what it gives is dropped.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Resolves when another stream has come after this one.
    pub(super) async fn next(&mut self) -> Next {
        let own = self.own;
        let next = self.newest.wait_for(|newest| newest.number != own.number).await.map(|next| *next);
        match next {
            Ok(next) if next.run == own.run => Next::Same,
            Ok(_) => Next::Other,
            // Nobody can come any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether no other has come since.
    pub(super) fn is_newest(&self) -> bool {
        self.newest.borrow().number == self.own.number
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_has_its_turn_when_the_one_before_is_over() {
        let turns = Turns::default();
        let mut old = turns.begin(1).unwrap();
        let turn = old.turn().await;
        let new = turns.begin(2).unwrap();
        assert_eq!(old.next().await, Next::Other);
        tokio::select! {
            biased;
            _turn = new.turn() => panic!("two turns at a time"),
            () = std::future::ready(()) => {}
        }
        drop(turn);
        let _turn = new.turn().await;
        assert!(new.is_newest() && !old.is_newest());
    }

    #[tokio::test]
    async fn who_was_replaced_does_not_come_back_and_who_broke_off_does() {
        let turns = Turns::default();
        let mut first = turns.begin(1).unwrap();
        let again = turns.begin(1).unwrap();
        assert_eq!(first.next().await, Next::Same);
        assert!(again.is_newest());
        assert!(turns.begin(2).is_some());
        assert!(turns.begin(1).is_none());
        assert!(turns.begin(2).is_some());
        for run in 3..200 {
            assert!(turns.begin(run).is_some());
            assert!(turns.begin(run - 1).is_none());
        }
        assert!(turns.replaced.lock().unwrap().len() <= REMEMBERED);
    }
}
