//! How a pod differs from what it should be.

use std::fmt;

use zds::ListenAt;

use super::Missing;

/// One difference between a pod and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// In the table.
    Ruleset(capture::Drift),
    /// In the policy route.
    PolicyRoute(Missing),
    /// A listener of ours was ended from outside.
    Listener(ListenAt),
}

/// What a full comparison of a pod has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How it differs from what it should be.
    pub drifts: Vec<Drift>,
    /// Policy rules of others, in words, that come before ours and may lead an application's
    /// answers past ztunnel. Nothing of ours differs for them, and nothing is repaired.
    pub overtaken: Vec<String>,
}

/// What differences are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The table: clear text may pass.
    Rules,
    /// The policy rule or route: nothing passes.
    PolicyRoute,
    /// A listener: nothing passes.
    Listener,
    /// What IPv6 needs, which was switched on after the capture.
    Ipv6,
}

impl Kind {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::PolicyRoute => "policy_route",
            Self::Listener => "listener",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Drift {
    /// Nothing of the table is left.
    #[must_use]
    pub fn table_is_gone() -> Self {
        let (place, deviation) = (capture::Place::Table, capture::Deviation::Missing);
        Self::Ruleset(capture::Drift { place, deviation })
    }

    /// What it is counted by, as long as nothing else is known.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ruleset(_) => Kind::Rules,
            Self::PolicyRoute(_) => Kind::PolicyRoute,
            Self::Listener(_) => Kind::Listener,
        }
    }

    /// Whether only IPv6 misses it.
    #[must_use]
    pub fn is_of_v6(&self) -> bool {
        matches!(self, Self::PolicyRoute(Missing::Rule("IPv6") | Missing::Route("IPv6")))
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ruleset(drift) => drift.fmt(f),
            Self::PolicyRoute(Missing::Rule(family)) => {
                write!(f, "{family} policy rule is missing")
            }
            Self::PolicyRoute(Missing::Route(family)) => {
                write!(f, "{family} route of marked packets is missing")
            }
            Self::Listener(at) => write!(f, "listener {at} was closed by somebody else"),
        }
    }
}

/// Several differences in one line.
#[must_use]
pub fn list(drifts: &[Drift]) -> String {
    drifts.iter().map(Drift::to_string).collect::<Vec<_>>().join("; ")
}
