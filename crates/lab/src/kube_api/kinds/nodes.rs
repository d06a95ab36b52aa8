//! Nodes: registered by whoever plays the kubelet.

use serde_json::{Value, json};

use crate::kube_api::meta;
use crate::kube_api::resource::{
    ALL_VERBS, NameRule, Resource, Scope, StatusWrites, any_change, any_place, no_check,
    no_defaults, status_of,
};
use crate::kube_api::schema::Types;
use crate::kube_api::table::{AGE, Column, NAME, Row};

/// What the store files nodes under.
pub(crate) const STORAGE: &str = "nodes";

pub(crate) const NODES: Resource = Resource {
    group: "",
    version: "v1",
    plural: "nodes",
    singular: "node",
    kind: "Node",
    short_names: &["no"],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[status_of("Node")],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Subresource,
    names: NameRule::Subdomain,
    types: Types::BuiltIn,
    fields: &[],
    columns: COLUMNS,
    defaults: no_defaults,
    check: no_check,
    check_change: any_change,
    admit: any_place,
};

const COLUMNS: &[Column] = &[NAME, Column::text("Status", 0, ready), AGE];

fn ready(row: &Row) -> Value {
    let conditions = row.object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    match ready.map(|condition| meta::text(condition, "/status")) {
        Some("True") => json!("Ready"),
        Some(_) => json!("NotReady"),
        None => json!("Unknown"),
    }
}
