//! How a pod differs from what it should be.

use std::fmt;

use super::Missing;

/// One difference between a pod and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// In the table.
    Ruleset(capture::Drift),
    /// In the policy route.
    PolicyRoute(Missing),
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
        }
    }
}

/// Several differences in one line.
#[must_use]
pub fn list(drifts: &[Drift]) -> String {
    drifts.iter().map(Drift::to_string).collect::<Vec<_>>().join("; ")
}
