//! Policies as Istio's dump has them.

use std::fmt::Display;

use mesh::{Action, Enforcement, FieldListing, MatchListing, Policy, Scope, TextListing};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyJson<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'static str,
    action: &'static str,
    rules: Vec<Vec<Vec<MatchJson<'a>>>>,
    dry_run: bool,
}

/// Lists that ask for nothing are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchJson<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<TextJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<TextJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<AccountJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<AccountJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<TextJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<TextJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ports: Vec<u16>,
}

#[derive(Serialize)]
enum TextJson<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Presence(()),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountJson<'a> {
    namespace: &'a str,
    service_account: &'a str,
}

impl<'a> PolicyJson<'a> {
    pub(super) fn of(policy: &'a Policy) -> Self {
        let clause = |clause: Vec<MatchListing<'a>>| clause.into_iter().map(one).collect();
        let rule = |rule: Vec<Vec<MatchListing<'a>>>| rule.into_iter().map(clause).collect();
        Self {
            name: policy.key().name(),
            namespace: policy.key().namespace(),
            scope: match policy.scope() {
                Scope::Global => "Global",
                Scope::Namespace => "Namespace",
                Scope::Selected => "WorkloadSelector",
            },
            action: match policy.action() {
                Action::Allow => "Allow",
                Action::Deny => "Deny",
            },
            rules: policy.listing().into_iter().map(rule).collect(),
            dry_run: policy.enforcement() == Enforcement::DryRun,
        }
    }
}

fn one(listing: MatchListing<'_>) -> MatchJson<'_> {
    let (namespaces, not_namespaces) = both(listing.namespaces, text);
    let (principals, not_principals) = both(listing.principals, text);
    let (service_accounts, not_service_accounts) = both(listing.service_accounts, account);
    let (source_ips, not_source_ips) = both(listing.source_ips, shown);
    let (destination_ips, not_destination_ips) = both(listing.destination_ips, shown);
    let ports = listing.destination_ports;
    MatchJson {
        namespaces,
        not_namespaces,
        service_accounts,
        not_service_accounts,
        principals,
        not_principals,
        source_ips,
        not_source_ips,
        destination_ips,
        not_destination_ips,
        destination_ports: ports.any_of,
        not_destination_ports: ports.none_of,
    }
}

fn both<T, U>(field: FieldListing<T>, show: fn(T) -> U) -> (Vec<U>, Vec<U>) {
    let FieldListing { any_of, none_of } = field;
    (any_of.into_iter().map(show).collect(), none_of.into_iter().map(show).collect())
}

fn text(text: TextListing<'_>) -> TextJson<'_> {
    match text {
        TextListing::Exact(text) => TextJson::Exact(text),
        TextListing::Prefix(text) => TextJson::Prefix(text),
        TextListing::Suffix(text) => TextJson::Suffix(text),
        TextListing::Presence => TextJson::Presence(()),
    }
}

fn account<'a>((namespace, service_account): (&'a str, &'a str)) -> AccountJson<'a> {
    AccountJson { namespace, service_account }
}

fn shown(value: impl Display) -> String {
    value.to_string()
}
