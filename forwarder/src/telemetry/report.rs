//! Log lines about losses: at most one a minute for each reason, with what was lost since the last.
//!
//! In: the loss counters, the time. Out: lines through `tracing`.

use std::time::Duration;

use tokio::time::Instant;

use crate::loss::{Losses, Reason};

/// Time between two lines of a reason.
const PAUSE: Duration = Duration::from_secs(60);

/// Remembers what was said.
#[derive(Debug)]
pub struct LossReporter {
    said: Vec<(u64, Option<Instant>)>,
}

impl Default for LossReporter {
    fn default() -> Self {
        Self { said: vec![(0, None); Reason::ALL.len()] }
    }
}

impl LossReporter {
    /// Reasons for which a line is due at `now`, with what was lost since the last line and in all.
    pub fn due(&mut self, losses: &Losses, now: Instant) -> Vec<(Reason, u64, u64)> {
        let mut due = Vec::new();
        for (reason, (count, last)) in Reason::ALL.iter().zip(&mut self.said) {
            let total = losses.get(*reason);
            if total > *count && last.is_none_or(|at| now.duration_since(at) >= PAUSE) {
                due.push((*reason, total - *count, total));
                (*count, *last) = (total, Some(now));
            }
        }
        due
    }

    /// Logs what is due.
    pub fn report(&mut self, losses: &Losses, now: Instant) {
        for (reason, lost, total) in self.due(losses, now) {
            tracing::warn!(reason = reason.name(), unit = reason.unit(), lost, total, "telemetry was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each_reason() {
        let (losses, mut reporter, start) = (Losses::default(), LossReporter::default(), Instant::now());
        assert!(reporter.due(&losses, start).is_empty());
        losses.count(Reason::ParseError, 2);
        assert_eq!(reporter.due(&losses, start), [(Reason::ParseError, 2, 2)]);
        losses.count(Reason::ParseError, 1);
        losses.count(Reason::Encrypted, 1);
        assert_eq!(reporter.due(&losses, start + Duration::from_secs(30)), [(Reason::Encrypted, 1, 1)]);
        assert_eq!(reporter.due(&losses, start + Duration::from_secs(60)), [(Reason::ParseError, 1, 3)]);
        assert!(reporter.due(&losses, start + Duration::from_secs(600)).is_empty());
    }
}
