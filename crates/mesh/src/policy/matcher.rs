//! What a policy's rules say about one connection.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Connection;
use crate::identity::Identity;

/// What rules are matched against. Made once for a decision, so that the principal is
/// put together once, not per matcher.
pub(super) struct Facts<'a> {
    identity: Option<&'a Identity>,
    principal: Option<String>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl<'a> Facts<'a> {
    pub(super) fn of(connection: &'a Connection) -> Self {
        let identity = connection.identity.as_ref();
        Self {
            identity,
            principal: identity.map(Identity::principal),
            source: connection.source.ip().to_canonical(),
            destination: connection.destination.ip().to_canonical(),
            port: connection.destination.port(),
        }
    }

    /// The empty text when nobody proved an identity: unlike a principal, a namespace is
    /// always there to be compared.
    fn namespace(&self) -> &str {
        self.identity.map_or("", Identity::namespace)
    }
}

/// One must match; without any, nothing does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules(pub(super) Vec<Rule>);

/// All clauses must match; without any, everything does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule(pub(super) Vec<Clause>);

/// One match must match; without any, everything does. A clause is not the same with a
/// match that has no fields: that one never matches, so such matches are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause(pub(super) Vec<Match>);

impl Rules {
    pub(super) fn match_facts(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().any(|rule| rule.matches(facts))
    }
}

impl Rule {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|clause| clause.matches(facts))
    }
}

impl Clause {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one.matches(facts))
    }
}

/// Fields that are given must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) namespaces: Field<Text>,
    pub(super) principals: Field<Text>,
    pub(super) service_accounts: Field<ServiceAccount>,
    pub(super) source_ips: Field<IpNetwork>,
    pub(super) destination_ips: Field<IpNetwork>,
    pub(super) destination_ports: Field<u16>,
}

impl Match {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        !self.is_empty()
            && self.namespaces.holds(|text| text.matches(facts.namespace()))
            && self.principals.holds(|text| {
                facts.principal.as_deref().is_some_and(|principal| text.matches(principal))
            })
            && self
                .service_accounts
                .holds(|account| facts.identity.is_some_and(|identity| account.matches(identity)))
            && self.source_ips.holds(|range| range.contains(facts.source))
            && self.destination_ips.holds(|range| range.contains(facts.destination))
            && self.destination_ports.holds(|port| *port == facts.port)
    }

    fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.principals.is_empty()
            && self.service_accounts.is_empty()
            && self.source_ips.is_empty()
            && self.destination_ips.is_empty()
            && self.destination_ports.is_empty()
    }
}

/// What a field must be and what it must not be. An empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field<T> {
    pub(super) any_of: Vec<T>,
    pub(super) none_of: Vec<T>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { any_of: Vec::new(), none_of: Vec::new() }
    }
}

impl<T> Field<T> {
    fn holds(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&matches))
            && !self.none_of.iter().any(&matches)
    }

    fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }
}

/// What a text is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Presence,
}

impl Text {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::Presence => !value.is_empty(),
        }
    }
}

/// A service account of any trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ServiceAccount {
    fn matches(&self, identity: &Identity) -> bool {
        identity.namespace() == self.namespace && identity.service_account() == self.name
    }
}
