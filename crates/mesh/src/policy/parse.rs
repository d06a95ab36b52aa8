//! From the message to the policy: afterwards nothing about it can be wrong any more.

use ipnetwork::IpNetwork;

use super::matcher::{Clause, Field, Match, Rule, Rules, ServiceAccount, Text};
use super::{Action, Enforcement, Policy, PolicyKey, Scope};
use crate::proto::security as proto;
use crate::workload::parse_address;

/// What is wrong with a policy resource; only that resource is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be named.
    #[error("policy {namespace:?}/{name:?}: the name is empty or a part holds a slash")]
    Name {
        /// Namespace found.
        namespace: String,
        /// Name found.
        name: String,
    },
    /// A scope of a later version.
    #[error("policy {policy}: scope {scope} is not known")]
    Scope {
        /// Which policy.
        policy: PolicyKey,
        /// Number found.
        scope: i32,
    },
    /// An action of a later version.
    #[error("policy {policy}: action {action} is not known")]
    Action {
        /// Which policy.
        policy: PolicyKey,
        /// Number found.
        action: i32,
    },
    /// A text matcher of no kind, or of one from a later version.
    #[error("policy {policy}: a matcher in {field} has no known kind")]
    Matcher {
        /// Which policy.
        policy: PolicyKey,
        /// Where in it.
        field: &'static str,
    },
    /// An address of neither 4 nor 16 bytes.
    #[error("policy {policy}: address of {length} bytes in {field}, 4 or 16 expected")]
    Address {
        /// Which policy.
        policy: PolicyKey,
        /// Where in it.
        field: &'static str,
        /// Bytes found.
        length: usize,
    },
    /// A prefix longer than the address.
    #[error("policy {policy}: prefix length {length} in {field} is longer than the address")]
    PrefixLength {
        /// Which policy.
        policy: PolicyKey,
        /// Where in it.
        field: &'static str,
        /// Length found.
        length: u32,
    },
    /// No TCP port.
    #[error("policy {policy}: {port} in {field} is no port")]
    Port {
        /// Which policy.
        policy: PolicyKey,
        /// Where in it.
        field: &'static str,
        /// Number found.
        port: u32,
    },
}

impl TryFrom<proto::Authorization> for Policy {
    type Error = PolicyError;

    fn try_from(message: proto::Authorization) -> Result<Self, Self::Error> {
        let Some(key) = PolicyKey::new(&message.namespace, &message.name) else {
            let proto::Authorization { namespace, name, .. } = message;
            return Err(PolicyError::Name { namespace, name });
        };
        let Some(scope) = Scope::parse(message.scope) else {
            return Err(PolicyError::Scope { policy: key, scope: message.scope });
        };
        let action = match proto::Action::try_from(message.action) {
            Ok(proto::Action::Allow) => Action::Allow,
            Ok(proto::Action::Deny) => Action::Deny,
            Err(_) => {
                return Err(PolicyError::Action { policy: key, action: message.action });
            }
        };
        let enforcement = if message.dry_run { Enforcement::DryRun } else { Enforcement::Enforced };
        let rules = Parser { key: &key, action }.rules(message.rules)?;
        Ok(Self { key, scope, action, enforcement, rules })
    }
}

/// Which policy is being read; errors name it.
struct Parser<'a> {
    key: &'a PolicyKey,
    action: Action,
}

impl Parser<'_> {
    fn rules(&self, rules: Vec<proto::Rule>) -> Result<Rules, PolicyError> {
        let rule = |rule: proto::Rule| Ok(Rule(each(rule.clauses, |it| self.clause(it))?));
        Ok(Rules(each(rules, rule)?))
    }

    fn clause(&self, clause: proto::Clause) -> Result<Clause, PolicyError> {
        Ok(Clause(each(clause.matches, |it| self.one_match(it))?))
    }

    fn one_match(&self, message: proto::Match) -> Result<Match, PolicyError> {
        // No extension is known here. What it restricts cannot be checked, so the
        // stricter reading holds: an ALLOW match is lost, a DENY match loses the
        // restriction.
        if !message.extensions.is_empty() && self.action == Action::Allow {
            return Ok(Match::default());
        }
        let text = |field| move |it: proto::StringMatch| self.text(field, it);
        let range = |field| move |it: proto::Address| self.range(field, &it);
        let port = |field| move |it: u32| self.port(field, it);
        let account = |it: proto::ServiceAccountMatch| Ok(self.account(it));
        Ok(Match {
            namespaces: Field {
                any_of: each(message.namespaces, text("namespaces"))?,
                none_of: each(message.not_namespaces, text("not_namespaces"))?,
            },
            principals: Field {
                any_of: each(message.principals, text("principals"))?,
                none_of: each(message.not_principals, text("not_principals"))?,
            },
            service_accounts: Field {
                any_of: each(message.service_accounts, account)?,
                none_of: each(message.not_service_accounts, account)?,
            },
            source_ips: Field {
                any_of: each(message.source_ips, range("source_ips"))?,
                none_of: each(message.not_source_ips, range("not_source_ips"))?,
            },
            destination_ips: Field {
                any_of: each(message.destination_ips, range("destination_ips"))?,
                none_of: each(message.not_destination_ips, range("not_destination_ips"))?,
            },
            destination_ports: Field {
                any_of: each(message.destination_ports, port("destination_ports"))?,
                none_of: each(message.not_destination_ports, port("not_destination_ports"))?,
            },
        })
    }

    fn text(&self, field: &'static str, message: proto::StringMatch) -> Result<Text, PolicyError> {
        use proto::string_match::MatchType;
        match message.match_type {
            Some(MatchType::Exact(text)) => Ok(Text::Exact(text)),
            Some(MatchType::Prefix(text)) => Ok(Text::Prefix(text)),
            Some(MatchType::Suffix(text)) => Ok(Text::Suffix(text)),
            Some(MatchType::Presence(_)) => Ok(Text::Presence),
            None => Err(PolicyError::Matcher { policy: self.key.clone(), field }),
        }
    }

    fn range(
        &self,
        field: &'static str,
        message: &proto::Address,
    ) -> Result<IpNetwork, PolicyError> {
        let policy = || self.key.clone();
        let bytes = &message.address;
        let address = parse_address(bytes).ok_or_else(|| PolicyError::Address {
            policy: policy(),
            field,
            length: bytes.len(),
        })?;
        let error =
            || PolicyError::PrefixLength { policy: policy(), field, length: message.length };
        let mut length = u8::try_from(message.length).map_err(|_| error())?;
        if bytes.len() == 16 && address.is_ipv4() {
            // ::ffff:a.b.c.d/n: connections are compared in their IPv4 form, so the range
            // must be of that form too. One that reaches beyond the mapped addresses has
            // none.
            length = length.checked_sub(96).ok_or_else(error)?;
        }
        let range = IpNetwork::new(address, length).map_err(|_| error())?;
        // Host bits are allowed and mean nothing.
        IpNetwork::new(range.network(), length).map_err(|_| error())
    }

    fn port(&self, field: &'static str, port: u32) -> Result<u16, PolicyError> {
        u16::try_from(port).map_err(|_| PolicyError::Port { policy: self.key.clone(), field, port })
    }

    /// Without a namespace the account is one of the policy's own.
    fn account(&self, message: proto::ServiceAccountMatch) -> ServiceAccount {
        let namespace = if message.namespace.is_empty() {
            self.key.namespace().to_owned()
        } else {
            message.namespace
        };
        ServiceAccount { namespace, name: message.service_account }
    }
}

/// Converts all elements or gives the first error.
fn each<T, U>(
    list: Vec<T>,
    convert: impl Fn(T) -> Result<U, PolicyError>,
) -> Result<Vec<U>, PolicyError> {
    list.into_iter().map(convert).collect()
}
