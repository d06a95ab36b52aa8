//! How long to wait between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Attempts this far apart do not flood a log.
const RARE: Duration = Duration::from_secs(1);

/// Doubles from a first wait to a longest one. Each wait is shortened at random by up to
/// a fifth, so that the nodes of a cluster do not come back all at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// How long to wait now; the next wait is longer.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait - wait.mul_f64(0.2 * random_fraction())
    }

    /// Is this attempt worth a warning? The first one is, and each once they are rare; the
    /// flurry between them says nothing new.
    #[must_use]
    pub fn worth_telling(&self) -> bool {
        self.next == self.first || self.next >= RARE
    }

    /// Something worked: start anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between 0 and 1. The standard library seeds each hasher state differently, which is
/// random enough for spreading load.
fn random_fraction() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_secs(15));
        let mut backoff = Backoff::new(first, longest);
        let mut expected = first;
        for _ in 0..14 {
            let wait = backoff.wait();
            assert!(wait <= expected && wait >= expected.mul_f64(0.79), "{wait:?} {expected:?}");
            expected = (expected * 2).min(longest);
        }
        assert_eq!(expected, longest);
        backoff.reset();
        assert!(backoff.wait() <= first);
    }

    #[test]
    fn those_who_failed_together_do_not_come_back_together() {
        let longest = Duration::from_secs(15);
        let waits = (0..100).map(|_| Backoff::new(longest, longest).wait());
        let mut tenths = [0; 10];
        for wait in waits {
            let saved = (longest - wait).as_secs_f64() / longest.mul_f64(0.2).as_secs_f64();
            tenths[((saved * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| *count < 50), "they are not spread: {tenths:?}");
    }

    #[test]
    fn the_first_and_the_rare_attempts_are_worth_telling() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let told: Vec<_> = (0..7)
            .map(|_| {
                let told = backoff.worth_telling();
                backoff.wait();
                told
            })
            .collect();
        assert_eq!(told, [true, false, false, false, true, true, true]);
    }
}
