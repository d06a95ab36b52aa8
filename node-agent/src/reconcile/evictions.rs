//! PURE. Whether a pod that has started uncaptured may be evicted. Another one takes its place:
//! where that escapes as well, evicting would never end. So there must be a sign that the runtime
//! calls the plugin for pods of this namespace, and what takes an evicted pod's place and escapes
//! is a sign that it does not.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::install::Stands;

/// How long the runtime's last call is a sign that it calls.
const LATELY: Duration = Duration::from_secs(600);
/// So many pods of a node are evicted within [`WINDOW`].
const MOST: usize = 30;
const WINDOW: Duration = Duration::from_secs(600);

/// Why a pod is not evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spared {
    /// The runtime is not known to call the plugin: its configuration says so.
    NotInPlace(String),
    /// Nobody knows the configuration, and the runtime has not called of late.
    NotCalled,
    /// So many were evicted of late.
    Enough,
    /// Its namespace starts without the plugin.
    Excluded,
    /// It has taken the place of an evicted one, and has escaped as that has.
    Again,
}

impl Spared {
    /// Whether that may pass.
    pub(super) fn passes(&self) -> bool {
        !matches!(self, Self::Excluded | Self::Again)
    }
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPlace(why) => write!(f, "another one would start uncaptured too: {why}"),
            Self::NotCalled => write!(
                f,
                "another one might start uncaptured too: the container runtime has not called our \
                 plugin within {LATELY:?}"
            ),
            Self::Enough => write!(f, "{MOST} pods of this node were evicted within {WINDOW:?}"),
            Self::Excluded => f.write_str(
                "another one would start uncaptured too: our entry in the network configuration \
                 excludes its namespace",
            ),
            Self::Again => f.write_str(
                "it has taken the place of an evicted one and has started uncaptured as well: the \
                 container runtime does not call our plugin for pods of its namespace",
            ),
        }
    }
}

/// What was done and heard of late.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    called: Option<Instant>,
    /// The last call for a pod of a namespace in which pods were evicted, if any came since.
    evicted: HashMap<String, Evicted>,
    times: VecDeque<Instant>,
}

#[derive(Debug)]
struct Evicted {
    at: Instant,
    called: bool,
}

impl Evictions {
    /// The runtime calls for a pod of this namespace.
    pub(super) fn called(&mut self, namespace: &str, now: Instant) {
        self.called = Some(now);
        if let Some(evicted) = self.evicted.get_mut(namespace) {
            evicted.called = true;
        }
    }

    /// A pod of this namespace, heard of at `heard`, may be evicted; if so it is counted.
    pub(super) fn may(
        &mut self,
        namespace: &str,
        heard: Instant,
        stands: Stands,
        now: Instant,
    ) -> Result<(), Spared> {
        match stands {
            Stands::Not(why) => return Err(Spared::NotInPlace(why)),
            Stands::InPlace { excluded } if excluded.contains(namespace) => {
                return Err(Spared::Excluded);
            }
            Stands::InPlace { .. } => {}
            Stands::Unwatched => {
                let lately = |at: Instant| now.saturating_duration_since(at) < LATELY;
                if !self.called.is_some_and(lately) {
                    return Err(Spared::NotCalled);
                }
            }
        }
        let last = self.evicted.get(namespace);
        if last.is_some_and(|last| heard > last.at && !last.called) {
            return Err(Spared::Again);
        }
        self.times.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if self.times.len() >= MOST {
            return Err(Spared::Enough);
        }
        Ok(())
    }

    /// A pod of this namespace is evicted.
    pub(super) fn evicted(&mut self, namespace: &str, now: Instant) {
        self.times.push_back(now);
        // What came before says nothing of those that come now.
        self.evicted.insert(namespace.to_owned(), Evicted { at: now, called: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn in_place(excluded: &[&str]) -> Stands {
        Stands::InPlace { excluded: excluded.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_plugin_must_stand_in_the_configuration_for_this_namespace() {
        let (mut evictions, now) = (Evictions::default(), Instant::now());
        assert_eq!(evictions.may("shop", now, in_place(&["x"]), now), Ok(()));
        let not = Stands::Not("gone".into());
        assert_eq!(evictions.may("shop", now, not, now), Err(Spared::NotInPlace("gone".into())));
        let excluded = evictions.may("shop", now, in_place(&["shop"]), now).unwrap_err();
        assert!(excluded == Spared::Excluded && !excluded.passes());
    }

    #[test]
    fn where_nobody_knows_the_configuration_a_call_is_the_sign() {
        let (mut evictions, now) = (Evictions::default(), Instant::now());
        let may = |evictions: &mut Evictions, at| evictions.may("shop", now, Stands::Unwatched, at);
        assert_eq!(may(&mut evictions, now), Err(Spared::NotCalled));
        evictions.called("other", now);
        assert_eq!(may(&mut evictions, now + SECOND), Ok(()));
        assert_eq!(may(&mut evictions, now + LATELY), Err(Spared::NotCalled));
    }

    #[test]
    fn what_takes_the_place_of_an_evicted_pod_and_escapes_is_left() {
        let (mut evictions, start) = (Evictions::default(), Instant::now());
        let at = |second: u32| start + SECOND * second;
        evictions.evicted("shop", at(1));
        let may = |evictions: &mut Evictions, namespace, heard| {
            evictions.may(namespace, heard, in_place(&[]), at(9))
        };
        assert_eq!(may(&mut evictions, "shop", at(0)), Ok(()), "it was there before");
        assert_eq!(may(&mut evictions, "shop", at(2)), Err(Spared::Again));
        assert_eq!(may(&mut evictions, "other", at(2)), Ok(()));
        evictions.called("other", at(3));
        assert_eq!(may(&mut evictions, "shop", at(2)), Err(Spared::Again));
        evictions.called("shop", at(4));
        assert_eq!(may(&mut evictions, "shop", at(5)), Ok(()), "the plugin is called there");
    }

    #[test]
    fn a_node_is_not_emptied_at_once() {
        let (mut evictions, now) = (Evictions::default(), Instant::now());
        for _ in 0..MOST {
            assert_eq!(evictions.may("shop", now, in_place(&[]), now), Ok(()));
            evictions.evicted("shop", now);
        }
        assert_eq!(evictions.may("shop", now, in_place(&[]), now), Err(Spared::Enough));
        assert_eq!(evictions.may("shop", now, in_place(&[]), now + WINDOW), Ok(()));
    }
}
