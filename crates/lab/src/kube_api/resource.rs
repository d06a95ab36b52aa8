//! The table of what this API serves. Adding a resource is one row (and its columns and checks).

use serde_json::Value;

use super::kinds;
use super::schema::Types;
use super::status::{Cause, Refusal};
use super::store::Store;
use super::table::Column;

/// What may be done with a resource; the words are those of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// Where objects of a resource live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespaced,
}

/// Which write may change `.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusWrites {
    /// Only the `/status` subresource.
    Subresource,
    /// Only this server itself.
    Server,
    /// The object has no status, or one like any other field.
    Plain,
}

/// Which names objects of a resource may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// One DNS label, 63 characters.
    Label,
    /// Labels joined by dots, 253 characters.
    Subdomain,
}

/// Two versions of one resource share their objects: how this version's form relates to the
/// stored one. Both functions only rename fields, so they also work on a part of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) show: fn(&Value) -> Value,
    pub(crate) store: fn(&Value) -> Value,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) scope: Scope,
    pub(crate) verbs: &'static [Verb],
    /// Name, kind and group/version of the kind, verbs.
    pub(crate) subresources: &'static [Subresource],
    /// What the store files the objects under.
    pub(crate) storage: &'static str,
    /// `None`: objects are shown as they are stored.
    pub(crate) form: Option<Form>,
    pub(crate) status: StatusWrites,
    pub(crate) names: NameRule,
    /// How lists merge in patches.
    pub(crate) types: Types,
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub(crate) fields: &'static [&'static str],
    pub(crate) columns: &'static [Column],
    /// Fills in what a client may leave out, on create.
    pub(crate) defaults: fn(&mut Value),
    /// What is wrong with the object by itself.
    pub(crate) check: fn(&Value) -> Vec<Cause>,
    /// What is wrong with this change (old, new).
    pub(crate) check_change: fn(&Value, &Value) -> Vec<Cause>,
    /// What is wrong with creating it here and now (namespace, object), and what only the
    /// cluster can fill in.
    pub(crate) admit: fn(&Store, &str, &mut Value) -> Result<(), Refusal>,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Resource) -> bool {
        std::ptr::eq(self, other)
    }
}

/// A path below one object.
#[derive(Debug)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Group and version of `kind` where they differ from the resource's.
    pub(crate) group_version: Option<(&'static str, &'static str)>,
    pub(crate) verbs: &'static [Verb],
}

impl Resource {
    /// `v1` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// The name messages use: `pods`, `authorizationpolicies.security.istio.io`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub(crate) fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The object as clients of this version see it.
    pub(crate) fn show(&self, stored: &Value) -> Value {
        self.form.map_or_else(|| stored.clone(), |form| (form.show)(stored))
    }

    /// The object as it is kept.
    pub(crate) fn to_stored(&self, shown: &Value) -> Value {
        self.form.map_or_else(|| shown.clone(), |form| (form.store)(shown))
    }
}

/// `v1` for the core group, else `group/version`.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The row for a group, version and plural name.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// All resources, in the order in which discovery lists them.
pub(crate) static RESOURCES: &[Resource] = &[
    kinds::pods::PODS,
    kinds::namespaces::NAMESPACES,
    kinds::service_accounts::SERVICE_ACCOUNTS,
    kinds::services::SERVICES,
    kinds::endpoint_slices::ENDPOINT_SLICES,
    kinds::nodes::NODES,
    kinds::events::CORE,
    kinds::events::EVENTS_V1,
    kinds::policies::AUTHORIZATION_POLICIES,
    kinds::policies::PEER_AUTHENTICATIONS,
    kinds::token_reviews::TOKEN_REVIEWS,
];

/// The verbs of a resource that can do everything.
pub(crate) const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// The `/status` path of a kind.
pub(crate) const fn status_of(kind: &'static str) -> Subresource {
    Subresource {
        name: "status",
        kind,
        group_version: None,
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    }
}

/// Nothing to fill in.
pub(crate) fn no_defaults(_: &mut Value) {}

/// Nothing to check.
pub(crate) fn no_check(_: &Value) -> Vec<Cause> {
    Vec::new()
}

/// Every change is fine.
pub(crate) fn any_change(_: &Value, _: &Value) -> Vec<Cause> {
    Vec::new()
}

/// Every place is fine.
pub(crate) fn any_place(_: &Store, _: &str, _: &mut Value) -> Result<(), Refusal> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_and_only_once() {
        for resource in RESOURCES {
            let found = find(resource.group, resource.version, resource.plural).unwrap();
            assert_eq!(found, resource, "{}", resource.qualified());
        }
        assert!(find("", "v1", "secrets").is_none());
    }
}
