//! Service accounts, and the path that mints their tokens.

use crate::kube_api::resource::{
    ALL_VERBS, NameRule, Resource, Scope, StatusWrites, Subresource, Verb, any_change, any_place,
    no_check, no_defaults,
};
use crate::kube_api::schema::Types;
use crate::kube_api::table::{AGE, NAME};

/// What the store files service accounts under.
pub(crate) const STORAGE: &str = "serviceaccounts";

pub(crate) const SERVICE_ACCOUNTS: Resource = Resource {
    group: "",
    version: "v1",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short_names: &["sa"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "token",
        kind: "TokenRequest",
        group_version: Some(("authentication.k8s.io", "v1")),
        verbs: &[Verb::Create],
    }],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Plain,
    names: NameRule::Subdomain,
    types: Types::BuiltIn,
    fields: &[],
    columns: &[NAME, AGE],
    defaults: no_defaults,
    check: no_check,
    check_change: any_change,
    admit: any_place,
};
