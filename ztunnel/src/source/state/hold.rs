//! Removals that look like a mistake of the control plane.
//!
//! A control plane that lost its own state, or starts with an empty cache, tells its
//! clients that nearly everything is gone. Believed, that takes the whole mesh down. So:
//!
//! ```text
//!                more than half of a large state goes
//! (nothing) ──────────────────────────────────────────► withheld ── sent again, or after a
//!     ▲                                                    │  │      reconnect not mentioned
//!     │◄───────────────── in use as before ────────────────┼──┘
//!     │                                                    │ patience is over: ask again
//!     └◄──────────────── removed ◄── told once more ───────┘ by opening another stream
//! ```
//!
//! Asking again works because a new stream begins by naming everything that we hold: a
//! control plane answers with what of that is gone.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::held::Name;

/// A state of fewer resources is small enough to vanish within one response.
const LARGE: usize = 100;

/// What to do about a response that removes more than half of a large state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassRemoval {
    /// Keep what it removes in use until the control plane has said it again after this
    /// time.
    Hold(Duration),
    /// Believe it at once.
    Apply,
}

/// Removals of one type that are not believed yet.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    names: HashSet<Name>,
    since: Option<Instant>,
}

impl Withheld {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// It was sent again, or is removed for good.
    pub(super) fn release(&mut self, name: &str) {
        self.names.remove(name);
        if self.names.is_empty() {
            self.since = None;
        }
    }

    /// Keeps only what `told` says.
    pub(super) fn retain(&mut self, told: impl Fn(&str) -> bool) {
        self.names.retain(|name| told(name));
        if self.names.is_empty() {
            self.since = None;
        }
    }

    /// When the control plane is to be asked again.
    pub(super) fn due(&self, rule: MassRemoval) -> Option<Instant> {
        match rule {
            MassRemoval::Hold(time) => self.since.map(|since| since + time),
            MassRemoval::Apply => None,
        }
    }

    /// Which of the `going` may go now; the others are withheld from now on. `total` is
    /// how many there are.
    pub(super) fn judge(
        &mut self,
        rule: MassRemoval,
        going: Vec<Name>,
        total: usize,
        now: Instant,
    ) -> Vec<Name> {
        let over = self.due(rule).is_some_and(|due| now >= due);
        let (mut believed, doubted): (Vec<_>, Vec<_>) =
            going.into_iter().partition(|name| over && self.names.contains(name));
        believed.iter().for_each(|name| self.release(name));
        let left = total - believed.len();
        let new = doubted.iter().filter(|name| !self.names.contains(*name)).count();
        let suspicious = left >= LARGE && (self.names.len() + new) * 2 > left;
        if rule == MassRemoval::Apply || !suspicious {
            doubted.iter().for_each(|name| self.release(name));
            believed.extend(doubted);
        } else if !doubted.is_empty() {
            self.since = self.since.or(Some(now));
            self.names.extend(doubted);
        }
        believed
    }
}
