//! PURE. How long a peer may leave a PING unanswered.

use std::time::Duration;

use tokio::time::Instant;

/// A peer that sends but does not answer is believed for so many deadlines. A PONG may
/// wait behind megabytes in both directions; but whoever sends for ever and reads nothing
/// would otherwise hold all that waits to be sent to it for ever. With 20 s, links from
/// about half a megabit per second on keep their tunnels under any load.
const DEADLINES: u32 = 10;

/// When time is over we may have been kept from reading ourselves: what waits in the
/// socket is looked at first.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// An open question.
#[derive(Debug)]
pub(super) struct Silence {
    asked: Instant,
    deadline: Duration,
    /// Bytes that had come from the peer, and when this was last seen to change.
    heard: u64,
    heard_at: Instant,
    /// The end that has been announced.
    looked_for: Option<Instant>,
}

/// What to think of a peer that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet, before this time.
    Wait(Instant),
    /// It is gone, or as good as that.
    Silent,
}

impl Silence {
    pub(super) fn new(heard: u64, now: Instant, deadline: Duration) -> Self {
        Self { asked: now, deadline, heard, heard_at: now, looked_for: None }
    }

    /// So much has come by now.
    pub(super) fn hear(&mut self, heard: u64, now: impl FnOnce() -> Instant) {
        if heard != self.heard {
            (self.heard, self.heard_at) = (heard, now());
        }
    }

    pub(super) fn verdict(&mut self, now: Instant) -> Verdict {
        let end = (self.heard_at + self.deadline).min(self.asked + self.deadline * DEADLINES);
        if now < end {
            return Verdict::Wait(end);
        }
        if self.looked_for == Some(end) {
            return Verdict::Silent;
        }
        self.looked_for = Some(end);
        Verdict::Wait(now + LAST_LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// When it is over for a peer of which something came at these seconds, as a timer
    /// that does what it is told finds out.
    fn over(mut heard: impl Iterator<Item = u64>) -> Duration {
        let asked = Instant::now();
        let mut silence = Silence::new(7, asked, DEADLINE);
        let (mut now, mut count) = (asked + DEADLINE, 7);
        let mut next = heard.next();
        loop {
            while let Some(at) = next.map(|at| asked + seconds(at)).filter(|at| *at <= now) {
                count += 1;
                silence.hear(count, || at);
                next = heard.next();
            }
            silence.hear(count, || unreachable!("nothing new"));
            match silence.verdict(now) {
                Verdict::Wait(until) => now = until,
                Verdict::Silent => return now - asked,
            }
        }
    }

    #[test]
    fn whoever_is_heard_is_alive_but_not_for_ever_without_an_answer() {
        assert_eq!(over([].into_iter()), seconds(20) + LAST_LOOK);
        assert_eq!(over([3, 19].into_iter()), seconds(39) + LAST_LOOK);
        assert_eq!(over([19, 38, 50].into_iter()), seconds(70) + LAST_LOOK);
        assert_eq!(over([19, 40].into_iter()), seconds(39) + LAST_LOOK, "too late");
        assert_eq!(over(0..100_000), seconds(200) + LAST_LOOK);
    }

    #[test]
    fn what_came_while_we_did_not_look_counts() {
        let asked = Instant::now();
        let mut silence = Silence::new(0, asked, DEADLINE);
        let late = asked + seconds(90);
        let Verdict::Wait(look) = silence.verdict(late) else { panic!("nobody has looked") };
        silence.hear(1, || look);
        assert_eq!(silence.verdict(look), Verdict::Wait(look + DEADLINE));
    }
}
