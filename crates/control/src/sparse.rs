//! Log lines that strangers can cause, a few of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that pass in each [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// Counts lines, so that whoever is refused as fast as it can does not fill the log.
#[derive(Debug, Default)]
pub(crate) struct Sparse(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    passed: u32,
    left_out: u64,
}

impl Sparse {
    /// Whether a line may be written; if so, how many were left out before it.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            (state.since, state.passed) = (Some(now), 0);
        }
        if state.passed == LINES {
            state.left_out += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let (sparse, begin) = (Sparse::default(), Instant::now());
        let passed = (0..1000).filter_map(|_| sparse.pass(begin)).collect::<Vec<_>>();
        assert_eq!(passed, [0; 10]);
        assert_eq!(sparse.pass(begin + PERIOD), Some(990));
        assert_eq!(sparse.pass(begin + PERIOD), Some(0));
    }
}
