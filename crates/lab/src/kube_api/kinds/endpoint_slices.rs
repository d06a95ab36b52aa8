//! EndpointSlices: the lab fills those of services with a selector, users write others.

use serde_json::{Value, json};

use crate::kube_api::meta;
use crate::kube_api::resource::{
    ALL_VERBS, NameRule, Resource, Scope, StatusWrites, any_place, no_defaults,
};
use crate::kube_api::schema::Types;
use crate::kube_api::shape::{self, Shape};
use crate::kube_api::status::Cause;
use crate::kube_api::table::{AGE, Column, NAME, Row};

/// What the store files slices under.
pub(crate) const STORAGE: &str = "endpointslices";

pub(crate) const ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    plural: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    short_names: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Plain,
    names: NameRule::Subdomain,
    types: Types::Slices,
    fields: &[],
    columns: &[
        NAME,
        Column::text("AddressType", 0, |row| meta::text(row.object, "/addressType").into()),
        Column::text("Ports", 0, ports),
        Column::text("Endpoints", 0, endpoints),
        AGE,
    ],
    defaults: no_defaults,
    check,
    check_change,
    admit: any_place,
};

const SHAPE: Shape = Shape::Open(&[
    ("addressType", Shape::OneOf(&["IPv4", "IPv6", "FQDN"])),
    (
        "endpoints",
        Shape::List(&Shape::Open(&[("addresses", Shape::Texts), ("nodeName", Shape::Text)])),
    ),
    ("ports", Shape::List(&Shape::Open(&[("name", Shape::Text), ("port", Shape::Port)]))),
]);

fn check(slice: &Value) -> Vec<Cause> {
    let mut causes = shape::check(&SHAPE, slice);
    if slice["addressType"].is_null() {
        causes.push(Cause::required("addressType", "must not be empty"));
    }
    let endpoints = slice["endpoints"].as_array();
    for (index, endpoint) in endpoints.into_iter().flatten().enumerate() {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            let field = format!("endpoints[{index}].addresses");
            causes.push(Cause::required(field, "at least one address is needed"));
        }
    }
    causes
}

fn check_change(old: &Value, new: &Value) -> Vec<Cause> {
    if old["addressType"] == new["addressType"] {
        return Vec::new();
    }
    vec![Cause::invalid("addressType", "cannot be changed")]
}

fn ports(row: &Row) -> Value {
    joined(row.object["ports"].as_array().into_iter().flatten().map(|it| it["port"].to_string()))
}

fn endpoints(row: &Row) -> Value {
    let all = row.object["endpoints"].as_array().into_iter().flatten();
    let addresses = all.filter_map(|it| it["addresses"].as_array()).flatten();
    joined(addresses.filter_map(Value::as_str).map(str::to_owned))
}

fn joined(texts: impl Iterator<Item = String>) -> Value {
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { json!("<unset>") } else { json!(texts.join(",")) }
}
