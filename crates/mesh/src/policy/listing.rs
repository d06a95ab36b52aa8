//! A policy's rules as people read them.

use ipnetwork::IpNetwork;

use super::Policy;
use super::matcher::{Clause, Field, Match, Text};

/// What a text is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextListing<'a> {
    /// It is this.
    Exact(&'a str),
    /// It begins so.
    Prefix(&'a str),
    /// It ends so.
    Suffix(&'a str),
    /// There is one.
    Presence,
}

/// What a field must be and what it must not be. An empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldListing<T> {
    /// One of these.
    pub any_of: Vec<T>,
    /// None of these.
    pub none_of: Vec<T>,
}

/// One match: all fields must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchListing<'a> {
    /// Namespace of the client.
    pub namespaces: FieldListing<TextListing<'a>>,
    /// Identity of the client, without `spiffe://`.
    pub principals: FieldListing<TextListing<'a>>,
    /// Namespace and service account of the client.
    pub service_accounts: FieldListing<(&'a str, &'a str)>,
    /// Address of the client.
    pub source_ips: FieldListing<IpNetwork>,
    /// Address of the workload.
    pub destination_ips: FieldListing<IpNetwork>,
    /// Port of the application.
    pub destination_ports: FieldListing<u16>,
}

impl Policy {
    /// Its rules, of which one must match; in each all clauses, and in a clause one match.
    #[must_use]
    pub fn listing(&self) -> Vec<Vec<Vec<MatchListing<'_>>>> {
        self.rules.0.iter().map(|rule| rule.0.iter().map(clause).collect()).collect()
    }
}

fn clause(clause: &Clause) -> Vec<MatchListing<'_>> {
    clause.0.iter().map(list).collect()
}

fn list(one: &Match) -> MatchListing<'_> {
    MatchListing {
        namespaces: field(&one.namespaces, text),
        principals: field(&one.principals, text),
        service_accounts: field(&one.service_accounts, |it| (&*it.namespace, &*it.name)),
        source_ips: field(&one.source_ips, |range| *range),
        destination_ips: field(&one.destination_ips, |range| *range),
        destination_ports: field(&one.destination_ports, |port| *port),
    }
}

fn field<'a, T, U>(field: &'a Field<T>, show: impl Fn(&'a T) -> U) -> FieldListing<U> {
    FieldListing {
        any_of: field.any_of.iter().map(&show).collect(),
        none_of: field.none_of.iter().map(&show).collect(),
    }
}

fn text(text: &Text) -> TextListing<'_> {
    match text {
        Text::Exact(text) => TextListing::Exact(text),
        Text::Prefix(text) => TextListing::Prefix(text),
        Text::Suffix(text) => TextListing::Suffix(text),
        Text::Presence => TextListing::Presence,
    }
}
