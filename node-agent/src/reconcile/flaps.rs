//! PURE. How soon a pod may be repaired again, and whether people are told again.
//!
//! Somebody in the pod undoes what we do, and does it again. Where the pod is open
//! meanwhile, a pause is a hole: there it ends at a second, which is what one pod may cost
//! the node at most (a repair takes some twenty milliseconds). Where the pod is closed
//! meanwhile, nothing leaks, and the pauses grow to half a minute. People are told of the
//! first repairs, then that the pod flaps, then less and less often.

use std::time::Duration;

use tokio::time::Instant;

/// What a difference does to the pod until it is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Traffic may pass in clear text.
    Opens,
    /// Traffic does not pass.
    Closes,
}

/// What people are told of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// What was repaired.
    Repair,
    /// That it happens again and again: so many repairs without a calm minute in between.
    Flapping(u32),
    /// Nothing: they know.
    Nothing,
}

/// So many repairs are a coincidence: they are made at once, and each is told.
const FREE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(125);
const LONGEST_OPEN: Duration = Duration::from_secs(1);
const LONGEST_CLOSED: Duration = Duration::from_secs(30);
/// After so long without a repair a pod does not flap any more.
const CALM: Duration = Duration::from_secs(60);
const FIRST_SILENCE: Duration = Duration::from_secs(10);
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// The recent repairs of one pod.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    opens: Streak,
    closes: Streak,
    silence: Option<Silence>,
}

#[derive(Debug, Default)]
struct Streak {
    count: u32,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Silence {
    since: Instant,
    length: Duration,
}

impl Flaps {
    /// How long the next repair has to wait.
    pub(super) fn rest(&self, harm: Harm, now: Instant) -> Duration {
        let (streak, longest) = match harm {
            Harm::Opens => (&self.opens, LONGEST_OPEN),
            Harm::Closes => (&self.closes, LONGEST_CLOSED),
        };
        let Some(last) = streak.last.filter(|_| streak.count >= FREE) else {
            return Duration::ZERO;
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << (streak.count - FREE).min(10));
        pause.min(longest).saturating_sub(now.saturating_duration_since(last))
    }

    /// A repair is made now.
    pub(super) fn repair(&mut self, harm: Harm, now: Instant) -> Tell {
        let calm = |streak: &Streak| streak.last.is_none_or(|last| now - last >= CALM);
        if calm(&self.opens) && calm(&self.closes) {
            *self = Self::default();
        }
        let streak = match harm {
            Harm::Opens => &mut self.opens,
            Harm::Closes => &mut self.closes,
        };
        streak.count = streak.count.saturating_add(1);
        streak.last = Some(now);
        let count = self.opens.count.saturating_add(self.closes.count);
        if count <= FREE { Tell::Repair } else { self.speak(count, now) }
    }

    fn speak(&mut self, count: u32, now: Instant) -> Tell {
        let length = match &self.silence {
            Some(silence) if now - silence.since < silence.length => return Tell::Nothing,
            Some(silence) => (silence.length * 2).min(LONGEST_SILENCE),
            None => FIRST_SILENCE,
        };
        self.silence = Some(Silence { since: now, length });
        Tell::Flapping(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs as soon as it is allowed, `count` times; the pauses in milliseconds, and what
    /// was told.
    fn storm(
        flaps: &mut Flaps,
        harm: Harm,
        now: &mut Instant,
        count: u32,
    ) -> (Vec<u128>, Vec<Tell>) {
        let one = |_| {
            let rest = flaps.rest(harm, *now);
            *now += rest;
            (rest.as_millis(), flaps.repair(harm, *now))
        };
        (0..count).map(one).unzip()
    }

    #[test]
    fn pauses_grow_up_to_a_second_where_the_pod_is_open_and_further_where_it_is_closed() {
        let mut now = Instant::now();
        let cases = [
            (Harm::Opens, vec![0, 0, 0, 125, 250, 500, 1000, 1000, 1000, 1000, 1000, 1000]),
            (Harm::Closes, vec![0, 0, 0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000]),
        ];
        for (harm, expected) in cases {
            let mut flaps = Flaps::default();
            assert_eq!(storm(&mut flaps, harm, &mut now, 12).0, expected, "{harm:?}");
            assert_eq!(flaps.rest(harm, now + CALM), Duration::ZERO);
        }
    }

    #[test]
    fn a_long_pause_where_it_is_closed_does_not_keep_it_open() {
        let (mut flaps, mut now) = (Flaps::default(), Instant::now());
        storm(&mut flaps, Harm::Closes, &mut now, 12);
        assert_eq!(flaps.rest(Harm::Opens, now), Duration::ZERO);
    }

    #[test]
    fn people_are_told_less_and_less_often() {
        let (mut flaps, mut now) = (Flaps::default(), Instant::now());
        let (_, told) = storm(&mut flaps, Harm::Opens, &mut now, 40);
        assert_eq!(told[..4], [Tell::Repair, Tell::Repair, Tell::Repair, Tell::Flapping(4)]);
        let flapping = |tell: &&Tell| matches!(tell, Tell::Flapping(_));
        assert_eq!(told.iter().filter(flapping).count(), 3, "after 0, 10 and 30 seconds: {told:?}");
        assert_eq!(
            storm(&mut flaps, Harm::Opens, &mut now, 600).1.iter().filter(flapping).count(),
            4
        );
    }

    #[test]
    fn a_calm_minute_makes_good() {
        let (mut flaps, mut now) = (Flaps::default(), Instant::now());
        storm(&mut flaps, Harm::Opens, &mut now, 12);
        now += CALM;
        assert_eq!(
            storm(&mut flaps, Harm::Opens, &mut now, 2),
            (vec![0, 0], vec![Tell::Repair; 2])
        );
    }
}
