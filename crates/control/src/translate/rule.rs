//! One rule of an AuthorizationPolicy becomes one rule of the message, or nothing.
//!
//! What only an HTTP proxy can see cannot be checked here, so the stricter reading holds:
//! an ALLOW rule that asks for it is dropped; of a DENY rule the rest is enforced, and
//! when there is no rest the rule has no effect.

use ipnetwork::IpNetwork;
use mesh::proto::security as proto;
use mesh::proto::security::string_match::MatchType;

use super::policy::RuleProblem;
use super::spec::{From, List, Operation, Rule, Source, To, When};

/// A rule as far as the transport layer can enforce it.
pub(super) enum Lowered {
    /// All of it.
    Whole(proto::Rule),
    /// Without its HTTP parts.
    Partly(proto::Rule),
    /// Nothing is left.
    Dropped,
}

pub(super) fn lower(
    action: proto::Action,
    namespace: &str,
    rule: Rule,
) -> Result<Lowered, RuleProblem> {
    let mut parts = Vec::new();
    if let Some(from) = rule.from.filter(|list| !list.is_empty()) {
        let entry = |from: From| source(namespace, from.source.unwrap_or_default());
        parts.push(from.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(to) = rule.to.filter(|list| !list.is_empty()) {
        let entry = |to: To| operation(to.operation.unwrap_or_default());
        parts.push(to.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?);
    }
    for condition in rule.when.unwrap_or_default() {
        parts.push(vec![when(condition)?]);
    }
    Ok(combine(action, parts))
}

/// One alternative in a `from`, `to` or `when`.
struct Entry {
    one: proto::Match,
    needs_http: bool,
}

/// `parts` are the clauses: lists of alternatives.
fn combine(action: proto::Action, parts: Vec<Vec<Entry>>) -> Lowered {
    let needs_http = parts.iter().flatten().any(|entry| entry.needs_http);
    if !needs_http {
        let clause = |part: Vec<Entry>| proto::Clause {
            matches: part.into_iter().map(|entry| entry.one).collect(),
        };
        return Lowered::Whole(proto::Rule { clauses: parts.into_iter().map(clause).collect() });
    }
    if action == proto::Action::Allow {
        return Lowered::Dropped;
    }
    let clauses: Vec<_> = parts.into_iter().filter_map(without_http).collect();
    // A rule without clauses would match everything.
    if clauses.is_empty() { Lowered::Dropped } else { Lowered::Partly(proto::Rule { clauses }) }
}

/// A clause without the alternatives of which only the HTTP part said anything; `None` if
/// these were all.
fn without_http(part: Vec<Entry>) -> Option<proto::Clause> {
    let nothing_left = |entry: &Entry| entry.needs_http && entry.one == proto::Match::default();
    let matches: Vec<_> =
        part.into_iter().filter(|entry| !nothing_left(entry)).map(|entry| entry.one).collect();
    (!matches.is_empty()).then_some(proto::Clause { matches })
}

fn source(namespace: &str, source: Source) -> Result<Entry, RuleProblem> {
    let needs_http = source.needs_http();
    let account = |text: String| service_account(namespace, &text);
    let one = proto::Match {
        principals: texts(source.principals),
        not_principals: texts(source.not_principals),
        namespaces: texts(source.namespaces),
        not_namespaces: texts(source.not_namespaces),
        source_ips: each(source.ip_blocks, |it| range(&it))?,
        not_source_ips: each(source.not_ip_blocks, |it| range(&it))?,
        service_accounts: each(source.service_accounts, account)?,
        not_service_accounts: each(source.not_service_accounts, account)?,
        ..proto::Match::default()
    };
    Ok(Entry { one, needs_http })
}

fn operation(operation: Operation) -> Result<Entry, RuleProblem> {
    let needs_http = operation.needs_http();
    let one = proto::Match {
        destination_ports: each(operation.ports, |it| port(&it))?,
        not_destination_ports: each(operation.not_ports, |it| port(&it))?,
        ..proto::Match::default()
    };
    Ok(Entry { one, needs_http })
}

fn when(condition: When) -> Result<Entry, RuleProblem> {
    let When { key, values, not_values } = condition;
    if values.as_ref().is_none_or(Vec::is_empty) && not_values.as_ref().is_none_or(Vec::is_empty) {
        return Err(RuleProblem::NoValues(key));
    }
    let mut one = proto::Match::default();
    match key.as_str() {
        "source.ip" => {
            one.source_ips = each(values, |it| range(&it))?;
            one.not_source_ips = each(not_values, |it| range(&it))?;
        }
        "source.namespace" => {
            one.namespaces = texts(values);
            one.not_namespaces = texts(not_values);
        }
        "source.principal" => {
            one.principals = texts(values);
            one.not_principals = texts(not_values);
        }
        "destination.ip" => {
            one.destination_ips = each(values, |it| range(&it))?;
            one.not_destination_ips = each(not_values, |it| range(&it))?;
        }
        "destination.port" => {
            one.destination_ports = each(values, |it| port(&it))?;
            one.not_destination_ports = each(not_values, |it| port(&it))?;
        }
        _ => {
            return Ok(Entry { one, needs_http: true });
        }
    }
    Ok(Entry { one, needs_http: false })
}

fn texts(list: List) -> Vec<proto::StringMatch> {
    list.unwrap_or_default().into_iter().map(|it| text(&it)).collect()
}

/// A star at the front is looked for first: `*x*` is whatever ends in `x*`.
fn text(text: &str) -> proto::StringMatch {
    let kind = if text == "*" {
        MatchType::Presence(proto::Empty {})
    } else if let Some(suffix) = text.strip_prefix('*') {
        MatchType::Suffix(suffix.to_owned())
    } else if let Some(prefix) = text.strip_suffix('*') {
        MatchType::Prefix(prefix.to_owned())
    } else {
        MatchType::Exact(text.to_owned())
    };
    proto::StringMatch { match_type: Some(kind) }
}

/// An address or a range; host bits are allowed.
fn range(text: &str) -> Result<proto::Address, RuleProblem> {
    let range: IpNetwork = text.parse().map_err(|_| RuleProblem::Range(text.to_owned()))?;
    let address = match range {
        IpNetwork::V4(v4) => v4.ip().octets().to_vec(),
        IpNetwork::V6(v6) => v6.ip().octets().to_vec(),
    };
    Ok(proto::Address { address, length: range.prefix().into() })
}

fn port(text: &str) -> Result<u32, RuleProblem> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.into()),
        _ => Err(RuleProblem::Port(text.to_owned())),
    }
}

/// `namespace/name`, or the name of one in the policy's namespace.
fn service_account(own: &str, text: &str) -> Result<proto::ServiceAccountMatch, RuleProblem> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(RuleProblem::ServiceAccount(text.to_owned()));
    }
    Ok(proto::ServiceAccountMatch {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
    })
}

/// Converts all values or gives the first problem.
fn each<T>(
    list: List,
    convert: impl Fn(String) -> Result<T, RuleProblem>,
) -> Result<Vec<T>, RuleProblem> {
    list.unwrap_or_default().into_iter().map(convert).collect()
}
