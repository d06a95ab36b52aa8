//! An AuthorizationPolicy's `spec` as users write it. Fields that are not known are
//! errors: a misspelt restriction that is passed over would make an ALLOW wider and a
//! DENY empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) selector: Option<WorkloadSelector>,
    pub(super) target_ref: Option<Value>,
    pub(super) target_refs: Option<Vec<Value>>,
    pub(super) action: Option<String>,
    /// Belongs to action CUSTOM, which is not sent.
    #[serde(rename = "provider")]
    pub(super) _provider: Option<Value>,
    /// Read one by one, so that an error can say which.
    pub(super) rules: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSelector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Rule {
    pub(super) from: Option<Vec<From>>,
    pub(super) to: Option<Vec<To>>,
    pub(super) when: Option<Vec<When>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct From {
    pub(super) source: Option<Source>,
}

/// Lists that may be absent or `null`.
pub(super) type List = Option<Vec<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Source {
    pub(super) principals: List,
    pub(super) not_principals: List,
    pub(super) namespaces: List,
    pub(super) not_namespaces: List,
    pub(super) ip_blocks: List,
    pub(super) not_ip_blocks: List,
    pub(super) service_accounts: List,
    pub(super) not_service_accounts: List,
    pub(super) request_principals: List,
    pub(super) not_request_principals: List,
    pub(super) remote_ip_blocks: List,
    pub(super) not_remote_ip_blocks: List,
}

impl Source {
    /// Does it ask for what only an HTTP proxy can see?
    pub(super) fn needs_http(&self) -> bool {
        any([
            &self.request_principals,
            &self.not_request_principals,
            &self.remote_ip_blocks,
            &self.not_remote_ip_blocks,
        ])
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct To {
    pub(super) operation: Option<Operation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Operation {
    pub(super) ports: List,
    pub(super) not_ports: List,
    pub(super) hosts: List,
    pub(super) not_hosts: List,
    pub(super) methods: List,
    pub(super) not_methods: List,
    pub(super) paths: List,
    pub(super) not_paths: List,
}

impl Operation {
    /// Does it ask for what only an HTTP proxy can see?
    pub(super) fn needs_http(&self) -> bool {
        any([
            &self.hosts,
            &self.not_hosts,
            &self.methods,
            &self.not_methods,
            &self.paths,
            &self.not_paths,
        ])
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct When {
    pub(super) key: String,
    pub(super) values: List,
    pub(super) not_values: List,
}

fn any<const N: usize>(lists: [&List; N]) -> bool {
    lists.iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}
