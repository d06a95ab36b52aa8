//! A tunnel ends with the certificate by which its client proved who it is.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep};

/// Tells the time of day.
pub(in crate::proxy) type Clock = fn() -> SystemTime;

/// The time of day may be set, and machines sleep: it is looked at once more so often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What to do with a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The certificate is not valid any more: take no new streams.
    Drain,
    /// The streams have had their time.
    Cut,
}

/// Waits for the end of one certificate.
#[derive(Debug)]
pub(super) struct Expiry {
    until: SystemTime,
    clock: Clock,
    grace: Duration,
    timer: Pin<Box<Sleep>>,
    next: Option<Due>,
}

impl Expiry {
    /// Streams that are open at the end may go on for `grace`.
    pub(super) fn new(until: SystemTime, clock: Clock, grace: Duration) -> Self {
        let timer = Box::pin(sleep(pause(until, clock()).unwrap_or_default()));
        Self { until, clock, grace, timer, next: Some(Due::Drain) }
    }

    /// Each step once, and then nothing. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Due {
        loop {
            let Some(step) = self.next else { return std::future::pending().await };
            self.timer.as_mut().await;
            if step == Due::Cut {
                self.next = None;
                return step;
            }
            match pause(self.until, (self.clock)()) {
                Some(pause) => self.timer.as_mut().reset(Instant::now() + pause),
                None => {
                    self.next = Some(Due::Cut);
                    self.timer.as_mut().reset(Instant::now() + self.grace);
                    return step;
                }
            }
        }
    }
}

/// How long to wait before the next look; `None` when it is over.
fn pause(until: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = until.duration_since(now).ok().filter(|left| !left.is_zero());
    left.map(|left| left.min(LOOK_AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_at_the_end_and_never_far_away() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        for (left, expected) in [
            (Duration::from_secs(50_000), Some(LOOK_AGAIN)),
            (Duration::from_millis(1), Some(Duration::from_millis(1))),
            (Duration::ZERO, None),
        ] {
            assert_eq!(pause(until, until - left), expected);
        }
        assert_eq!(pause(until, until + Duration::from_secs(1)), None, "a clock that was set");
    }

    #[tokio::test]
    async fn first_it_drains_and_then_it_cuts() {
        let past = || SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let mut expiry = Expiry::new(past(), past, Duration::from_millis(10));
        assert_eq!(expiry.next().await, Due::Drain);
        assert_eq!(expiry.next().await, Due::Cut);
        let more = tokio::time::timeout(Duration::from_millis(50), expiry.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}
