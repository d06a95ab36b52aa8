//! PURE. How soon what somebody took away may be put back, and whether people are told.
//!
//! While our entry is away pods start outside the mesh, so the pauses stay short; but
//! somebody who undoes each of our writes at once must not keep the node busy. Times are
//! passed in and count from any beginning.

use std::time::Duration;

use super::plan::{Settings, View};

/// So often in a row it is put back at once.
const FREE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a fight it is forgotten.
const CALM: Duration = Duration::from_secs(60);
const FIRST_SILENCE: Duration = Duration::from_secs(30);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// What people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It happened.
    Once,
    /// It happens again and again: so often by now.
    Contested(u32),
    /// They know.
    Nothing,
}

/// What was taken away lately.
#[derive(Clone, Debug, Default)]
pub struct Fights {
    count: u32,
    last: Option<Duration>,
    silence: Option<(Duration, Duration)>,
}

impl Fights {
    /// Somebody has undone what we wrote.
    pub fn undone(&mut self, now: Duration) -> Tell {
        if self.last.is_none_or(|last| now.saturating_sub(last) >= CALM) {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        if self.count <= FREE {
            return Tell::Once;
        }
        let length = match self.silence {
            Some((since, length)) if now.saturating_sub(since) < length => return Tell::Nothing,
            Some((_, length)) => (length * 2).min(LONGEST_SILENCE),
            None => FIRST_SILENCE,
        };
        self.silence = Some((now, length));
        Tell::Contested(self.count)
    }

    /// How long to wait before it is put back.
    #[must_use]
    pub fn rest(&self, now: Duration) -> Duration {
        let Some(last) = self.last.filter(|_| self.count > FREE) else { return Duration::ZERO };
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.count - FREE - 1).min(10));
        pause.min(LONGEST_PAUSE).saturating_sub(now.saturating_sub(last))
    }
}

/// What was done to our file or entry, and by whom as far as that shows.
pub(super) fn culprit(name: &str, view: &View, settings: &Settings) -> String {
    let what = match view.files.get(name) {
        None => "was removed",
        Some(_) if name == settings.own => "was changed",
        Some(_) => "lost our plugin's entry",
    };
    let aside = view.others.iter().find(|other| other.starts_with(name));
    let by = match aside {
        Some(aside) if aside.ends_with(".cilium_bak") => {
            format!(" by Cilium, which moved it to {aside}: set cni.exclusive=false there")
        }
        Some(aside) => format!(" by somebody who moved it to {aside}"),
        None => " by another writer".to_owned(),
    };
    format!("network configuration {name} {what}{by}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undone as soon as it was put back; the pauses in milliseconds, and what was told.
    fn storm(fights: &mut Fights, now: &mut Duration, count: u32) -> (Vec<u128>, Vec<Tell>) {
        let one = |_| {
            let told = fights.undone(*now);
            let rest = fights.rest(*now);
            *now += rest;
            (rest.as_millis(), told)
        };
        (0..count).map(one).unzip()
    }

    #[test]
    fn a_coincidence_is_put_back_at_once_and_a_fight_more_and_more_slowly() {
        let (mut fights, mut now) = (Fights::default(), Duration::ZERO);
        let (pauses, told) = storm(&mut fights, &mut now, 12);
        assert_eq!(pauses, [0, 0, 0, 0, 0, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        assert_eq!(told[..6], [[Tell::Once; 5].as_slice(), &[Tell::Contested(6)]].concat());
        let again = told[6..].iter().filter(|told| **told != Tell::Nothing).count();
        assert_eq!(again, 0, "in 22 seconds: {told:?}");
    }

    #[test]
    fn people_are_told_less_and_less_often() {
        let (mut fights, mut now) = (Fights::default(), Duration::ZERO);
        let (_, told) = storm(&mut fights, &mut now, 120);
        let told = told.iter().filter(|told| matches!(told, Tell::Contested(_))).count();
        assert_eq!(told, 5, "after 0, 30, 90, 210 and 450 seconds");
    }

    #[test]
    fn a_calm_minute_ends_the_fight() {
        let (mut fights, mut now) = (Fights::default(), Duration::ZERO);
        storm(&mut fights, &mut now, 12);
        now += CALM;
        assert_eq!(storm(&mut fights, &mut now, 1), (vec![0], vec![Tell::Once]));
    }

    #[test]
    fn time_that_passes_counts() {
        let (mut fights, mut now) = (Fights::default(), Duration::ZERO);
        storm(&mut fights, &mut now, 12);
        assert_eq!(fights.undone(now), Tell::Nothing);
        assert_eq!(fights.rest(now + Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(fights.rest(now + Duration::from_secs(9)), Duration::ZERO);
    }
}
