//! L4 authorization: who may reach a workload.
//!
//! ```text
//! Authorization message ──parse──► Policy ──► PolicySet ──decide(workload, connection)──► Decision
//!                                    └ Rules: OR of rules, AND of clauses, OR of matches
//! ```

mod decide;
mod key;
mod listing;
mod matcher;
#[cfg(test)]
mod oracle_tests;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use decide::PolicySet;
pub use decide::{Decision, Denial, UnknownPolicy};
pub use key::PolicyKey;
pub use listing::{FieldListing, MatchListing, TextListing};
pub use parse::PolicyError;

use std::net::SocketAddr;

use crate::identity::Identity;
use crate::proto::security as proto;
use matcher::{Facts, Rules};

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Global,
    /// Those of the policy's namespace.
    Namespace,
    /// Those that list it.
    Selected,
}

impl Scope {
    /// Reads the number in a message; `None` for one of a later version.
    pub(crate) fn parse(number: i32) -> Option<Self> {
        match proto::Scope::try_from(number) {
            Ok(proto::Scope::Global) => Some(Self::Global),
            Ok(proto::Scope::Namespace) => Some(Self::Namespace),
            Ok(proto::Scope::WorkloadSelector) => Some(Self::Selected),
            Err(_) => None,
        }
    }
}

/// What a policy does with a connection that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it through, and by that deny what no ALLOW policy matches.
    Allow,
    /// Refuse it, whatever others say.
    Deny,
}

/// Does a policy decide, or does it only say what it would decide?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// It decides.
    Enforced,
    /// It is never enforced; whoever holds the connection logs what it would have done.
    DryRun,
}

/// A parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    key: PolicyKey,
    scope: Scope,
    action: Action,
    enforcement: Enforcement,
    rules: Rules,
}

impl Policy {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> &PolicyKey {
        &self.key
    }

    /// Which workloads it applies to.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What it does with a connection that it matches.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether it decides at all.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// Does one of its rules match? Says nothing about scope or enforcement: decisions
    /// come from [`View::authorize`](crate::View::authorize), this is for what a dry run
    /// would have done.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        self.rules.match_facts(&Facts::of(connection))
    }
}

/// An inbound connection, as the destination's node sees it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address.
    pub source: SocketAddr,
    /// Who the client proved to be; `None` for plaintext.
    pub identity: Option<Identity>,
    /// The workload's address and the application's port.
    pub destination: SocketAddr,
}
