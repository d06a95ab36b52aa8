//! PURE. When the connections of a pod that are older than its rules are to be ended.

use std::time::{Duration, Instant, SystemTime};

/// How far the connections older than a capture are from their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aging {
    /// When the pod was captured, or by rules that capture more than those before.
    pub since: SystemTime,
    /// How often older connections were looked for and ended since the rules came.
    pub passes: u8,
}

/// Looks after which no connection older than the rules can be left.
const PASSES: u8 = 2;

/// Which connections may have been opened past ztunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Those that the pod had before these rules.
    Before,
    /// Those of a time in which somebody had changed the rules. Their time counts from the
    /// capture, as that of others does.
    Meanwhile,
    /// None: nothing had run before.
    Nothing,
}

impl Aging {
    /// From when on, where rules came `now`.
    #[must_use]
    pub fn after(before: Option<Self>, opened: Opened, now: SystemTime) -> Self {
        match opened {
            Opened::Before => Self { since: now, passes: 0 },
            Opened::Meanwhile => {
                Self { since: before.map_or(now, |before| before.since), passes: 0 }
            }
            Opened::Nothing => Self { since: now, passes: PASSES },
        }
    }

    /// Older connections were ended once more.
    #[must_use]
    pub fn passed(self) -> Self {
        Self { passes: self.passes.saturating_add(1), ..self }
    }

    /// No connection older than the rules is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.passes >= PASSES
    }
}

/// An action that fails and must not keep others from being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// How often it has failed on end.
    pub times: u32,
    /// When it did last.
    pub since: Instant,
}

impl PutOff {
    /// It has failed, at this time.
    #[must_use]
    pub fn again(before: Option<Self>, since: Instant) -> Self {
        let times = before.map_or(0, |before| before.times);
        Self { times: times.saturating_add(1), since }
    }

    /// How long it is left alone still: twice as long each time, a minute at most.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        let whole = Duration::from_secs(1 << self.times.saturating_sub(1).min(6));
        whole.min(Duration::from_secs(60)).saturating_sub(now.saturating_duration_since(self.since))
    }
}
