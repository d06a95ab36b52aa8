//! A policy in YAML.

use mesh::proto::security as proto;
use mesh::proto::security::string_match::MatchType;
use serde::Deserialize;

use super::text::range;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    name: String,
    namespace: String,
    scope: Scope,
    action: Action,
    #[serde(default)]
    dry_run: bool,
    /// Rules of clauses of matches.
    #[serde(default)]
    rules: Vec<Vec<Vec<Match>>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Scope {
    Global = 0,
    Namespace = 1,
    WorkloadSelector = 2,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Action {
    Allow = 0,
    Deny = 1,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Match {
    namespaces: Vec<Text>,
    not_namespaces: Vec<Text>,
    principals: Vec<Text>,
    not_principals: Vec<Text>,
    source_ips: Vec<String>,
    not_source_ips: Vec<String>,
    destination_ips: Vec<String>,
    not_destination_ips: Vec<String>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
    /// `namespace/name` each.
    service_accounts: Vec<String>,
    not_service_accounts: Vec<String>,
}

/// `text`, `*suffix`, `prefix*` or `*`; or a map that says which is meant.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Kind(Kind),
}

#[derive(Debug, Deserialize)]
enum Kind {
    #[serde(alias = "exact")]
    Exact(String),
    #[serde(alias = "prefix")]
    Prefix(String),
    #[serde(alias = "suffix")]
    Suffix(String),
}

impl Entry {
    pub(super) fn message(self) -> Result<proto::Authorization, String> {
        let rules = self.rules.into_iter().map(|clauses| {
            let clauses = clauses.into_iter().map(|matches| {
                let matches = matches.into_iter().map(Match::message);
                Ok(proto::Clause { matches: matches.collect::<Result<_, String>>()? })
            });
            Ok(proto::Rule { clauses: clauses.collect::<Result<_, String>>()? })
        });
        Ok(proto::Authorization {
            name: self.name,
            namespace: self.namespace,
            scope: self.scope as i32,
            action: self.action as i32,
            rules: rules.collect::<Result<_, String>>()?,
            dry_run: self.dry_run,
            extensions: Vec::new(),
        })
    }
}

impl Match {
    fn message(self) -> Result<proto::Match, String> {
        Ok(proto::Match {
            namespaces: texts(self.namespaces),
            not_namespaces: texts(self.not_namespaces),
            principals: texts(self.principals),
            not_principals: texts(self.not_principals),
            source_ips: ranges("sourceIps", &self.source_ips)?,
            not_source_ips: ranges("notSourceIps", &self.not_source_ips)?,
            destination_ips: ranges("destinationIps", &self.destination_ips)?,
            not_destination_ips: ranges("notDestinationIps", &self.not_destination_ips)?,
            destination_ports: self.destination_ports.into_iter().map(Into::into).collect(),
            not_destination_ports: self.not_destination_ports.into_iter().map(Into::into).collect(),
            service_accounts: accounts("serviceAccounts", &self.service_accounts)?,
            not_service_accounts: accounts("notServiceAccounts", &self.not_service_accounts)?,
            extensions: Vec::new(),
        })
    }
}

fn texts(texts: Vec<Text>) -> Vec<proto::StringMatch> {
    let each = texts.into_iter().map(|text| match text {
        Text::Kind(Kind::Exact(text)) => MatchType::Exact(text),
        Text::Kind(Kind::Prefix(text)) => MatchType::Prefix(text),
        Text::Kind(Kind::Suffix(text)) => MatchType::Suffix(text),
        Text::Plain(text) => plain(text),
    });
    each.map(|kind| proto::StringMatch { match_type: Some(kind) }).collect()
}

/// Stars mean what they mean in Istio's policies: one at the front is looked for first, so
/// `*x*` is whatever ends in `x*`.
fn plain(text: String) -> MatchType {
    if text == "*" {
        MatchType::Presence(proto::Empty {})
    } else if let Some(suffix) = text.strip_prefix('*') {
        MatchType::Suffix(suffix.to_owned())
    } else if let Some(prefix) = text.strip_suffix('*') {
        MatchType::Prefix(prefix.to_owned())
    } else {
        MatchType::Exact(text)
    }
}

fn ranges(key: &str, texts: &[String]) -> Result<Vec<proto::Address>, String> {
    let each = texts.iter().map(|text| {
        let (address, length) = range(key, text)?;
        Ok(proto::Address { address, length })
    });
    each.collect()
}

fn accounts(key: &str, texts: &[String]) -> Result<Vec<proto::ServiceAccountMatch>, String> {
    let each = texts.iter().map(|text| {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| format!("{key}: {text:?} is not namespace/name"))?;
        let (namespace, service_account) = (namespace.to_owned(), name.to_owned());
        Ok(proto::ServiceAccountMatch { namespace, service_account })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_read_as_istio_reads_them() {
        let prefix = |text: &str| MatchType::Prefix(text.to_owned());
        let suffix = |text: &str| MatchType::Suffix(text.to_owned());
        let cases = [
            ("*", MatchType::Presence(proto::Empty {})),
            ("td/ns/*", prefix("td/ns/")),
            ("*/sa/web", suffix("/sa/web")),
            ("*/sa/web*", suffix("/sa/web*")),
            ("**", suffix("*")),
            ("web", MatchType::Exact("web".to_owned())),
            ("", MatchType::Exact(String::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text.to_owned()), expected, "{text}");
        }
    }
}
