//! Namespaces: they hold the other objects and delete them when they go.

use serde_json::Value;

use crate::kube_api::meta;
use crate::kube_api::resource::{
    ALL_VERBS, NameRule, Resource, Scope, StatusWrites, any_change, any_place, no_check,
};
use crate::kube_api::schema::Types;
use crate::kube_api::table::{AGE, Column, NAME};

/// What the store files namespaces under.
pub(crate) const STORAGE: &str = "namespaces";

/// The namespaces that every cluster has.
pub(crate) const LASTING: [&str; 2] = ["default", "kube-system"];

pub(crate) const NAMESPACES: Resource = Resource {
    group: "",
    version: "v1",
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short_names: &["ns"],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Server,
    names: NameRule::Label,
    types: Types::BuiltIn,
    fields: &["status.phase"],
    columns: COLUMNS,
    defaults,
    check: no_check,
    check_change: any_change,
    admit: any_place,
};

const COLUMNS: &[Column] =
    &[NAME, Column::text("Status", 0, |row| meta::text(row.object, "/status/phase").into()), AGE];

fn defaults(namespace: &mut Value) {
    let name = meta::name(namespace).to_owned();
    let labels = meta::metadata_mut(namespace).entry("labels").or_insert(Value::Null);
    if labels.is_null() || labels.is_object() {
        meta::map_mut(labels).insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    namespace["status"] = serde_json::json!({ "phase": "Active" });
}
