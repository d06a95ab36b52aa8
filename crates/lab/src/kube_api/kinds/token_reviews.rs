//! Token reviews: asked and answered in one request, never stored.

use crate::kube_api::resource::{
    NameRule, Resource, Scope, StatusWrites, Verb, any_change, any_place, no_check, no_defaults,
};
use crate::kube_api::schema::Types;
use crate::kube_api::table::NAME;

pub(crate) const TOKEN_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    version: "v1",
    plural: "tokenreviews",
    singular: "tokenreview",
    kind: "TokenReview",
    short_names: &[],
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    subresources: &[],
    storage: "tokenreviews",
    form: None,
    status: StatusWrites::Plain,
    names: NameRule::Subdomain,
    types: Types::BuiltIn,
    fields: &[],
    columns: &[NAME],
    defaults: no_defaults,
    check: no_check,
    check_change: any_change,
    admit: any_place,
};
