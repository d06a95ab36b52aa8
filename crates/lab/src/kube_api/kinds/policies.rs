//! Istio's `AuthorizationPolicy` and `PeerAuthentication`. Their form is checked here to the last field: a misspelt one
//! that is silently dropped would turn "allow this caller" into "allow every caller".

use serde_json::Value;

use crate::kube_api::meta;
use crate::kube_api::resource::{
    ALL_VERBS, NameRule, Resource, Scope, StatusWrites, any_change, any_place, no_defaults,
};
use crate::kube_api::schema::Types;
use crate::kube_api::shape::{self, Shape};
use crate::kube_api::status::Cause;
use crate::kube_api::table::{AGE, Column, NAME, Row};

pub(crate) const AUTHORIZATION_POLICIES: Resource = Resource {
    group: "security.istio.io",
    version: "v1",
    plural: "authorizationpolicies",
    singular: "authorizationpolicy",
    kind: "AuthorizationPolicy",
    short_names: &["ap"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "authorizationpolicies",
    form: None,
    status: StatusWrites::Plain,
    names: NameRule::Subdomain,
    types: Types::Custom,
    fields: &[],
    columns: &[NAME, Column::text("Action", 0, action), AGE],
    defaults: no_defaults,
    check,
    check_change: any_change,
    admit: any_place,
};

pub(crate) const PEER_AUTHENTICATIONS: Resource = Resource {
    plural: "peerauthentications",
    singular: "peerauthentication",
    kind: "PeerAuthentication",
    short_names: &["pa"],
    storage: "peerauthentications",
    columns: &[
        NAME,
        Column::text("Mode", 0, |row| meta::text(row.object, "/spec/mtls/mode").into()),
        AGE,
    ],
    check: |peer| shape::check(&PEER_SHAPE, peer),
    ..AUTHORIZATION_POLICIES
};

const MTLS: Shape =
    Shape::Closed(&[("mode", Shape::OneOf(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]))]);

const PEER_SHAPE: Shape = Shape::Closed(&[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", Shape::Open(&[])),
    (
        "spec",
        Shape::Closed(&[
            ("selector", Shape::Closed(&[("matchLabels", Shape::TextMap)])),
            ("mtls", MTLS),
            ("portLevelMtls", Shape::Open(&[])),
        ]),
    ),
    ("status", Shape::Open(&[])),
]);

const SOURCE: Shape = Shape::Closed(&[
    ("principals", Shape::Texts),
    ("notPrincipals", Shape::Texts),
    ("requestPrincipals", Shape::Texts),
    ("notRequestPrincipals", Shape::Texts),
    ("namespaces", Shape::Texts),
    ("notNamespaces", Shape::Texts),
    ("serviceAccounts", Shape::Texts),
    ("notServiceAccounts", Shape::Texts),
    ("ipBlocks", Shape::Texts),
    ("notIpBlocks", Shape::Texts),
    ("remoteIpBlocks", Shape::Texts),
    ("notRemoteIpBlocks", Shape::Texts),
]);

const OPERATION: Shape = Shape::Closed(&[
    ("hosts", Shape::Texts),
    ("notHosts", Shape::Texts),
    ("ports", Shape::List(&Shape::PortText)),
    ("notPorts", Shape::List(&Shape::PortText)),
    ("methods", Shape::Texts),
    ("notMethods", Shape::Texts),
    ("paths", Shape::Texts),
    ("notPaths", Shape::Texts),
]);

const CONDITION: Shape =
    Shape::Closed(&[("key", Shape::Text), ("values", Shape::Texts), ("notValues", Shape::Texts)]);

const RULE: Shape = Shape::Closed(&[
    ("from", Shape::List(&Shape::Closed(&[("source", SOURCE)]))),
    ("to", Shape::List(&Shape::Closed(&[("operation", OPERATION)]))),
    ("when", Shape::List(&CONDITION)),
]);

const TARGET: Shape = Shape::Closed(&[
    ("group", Shape::Text),
    ("kind", Shape::Text),
    ("name", Shape::Text),
    ("namespace", Shape::Text),
]);

const SPEC: Shape = Shape::Closed(&[
    ("selector", Shape::Closed(&[("matchLabels", Shape::TextMap)])),
    ("targetRef", TARGET),
    ("targetRefs", Shape::List(&TARGET)),
    ("rules", Shape::List(&RULE)),
    ("action", Shape::OneOf(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
    ("provider", Shape::Closed(&[("name", Shape::Text)])),
]);

const SHAPE: Shape = Shape::Closed(&[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", Shape::Open(&[])),
    ("spec", SPEC),
    ("status", Shape::Open(&[])),
]);

fn check(policy: &Value) -> Vec<Cause> {
    let mut causes = shape::check(&SHAPE, policy);
    let rules = policy.pointer("/spec/rules").and_then(Value::as_array);
    for (rule, conditions) in rules.into_iter().flatten().map(|rule| &rule["when"]).enumerate() {
        for (index, condition) in conditions.as_array().into_iter().flatten().enumerate() {
            if meta::text(condition, "/key").is_empty() {
                let field = format!("spec.rules[{rule}].when[{index}].key");
                causes.push(Cause::required(field, "a condition needs a key"));
            }
        }
    }
    causes
}

fn action(row: &Row) -> Value {
    let action = meta::text(row.object, "/spec/action");
    (if action.is_empty() { "ALLOW" } else { action }).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_well_formed_policy_passes() {
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "deny"},
            "spec": {
                "selector": {"matchLabels": {"app": "server"}}, "action": "DENY",
                "rules": [
                    {"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}],
                     "to": [{"operation": {"ports": ["8080"]}}],
                     "when": [{"key": "source.namespace", "values": ["a"]}]},
                    {},
                ],
            },
        });
        assert_eq!(check(&policy), []);
        assert_eq!(check(&json!({"metadata": {}, "spec": {}})), []);
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            (json!({"spec": {"action": "BLOCK"}}), "spec.action"),
            (json!({"spec": {"rules": {}}}), "spec.rules"),
            (json!({"spec": {"rules": [{"form": []}]}}), "spec.rules[0].form"),
            (
                json!({"spec": {"rules": [{"from": [{"source": {"principal": ["a"]}}]}]}}),
                "spec.rules[0].from[0].source.principal",
            ),
            (
                json!({"spec": {"rules": [{"from": [{"source": {"principals": "a"}}]}]}}),
                "spec.rules[0].from[0].source.principals",
            ),
            (
                json!({"spec": {"rules": [{"to": [{"operation": {"ports": [8080]}}]}]}}),
                "spec.rules[0].to[0].operation.ports[0]",
            ),
            (
                json!({"spec": {"rules": [{"to": [{"operation": {"ports": ["70000"]}}]}]}}),
                "spec.rules[0].to[0].operation.ports[0]",
            ),
            (
                json!({"spec": {"rules": [{"when": [{"values": ["x"]}]}]}}),
                "spec.rules[0].when[0].key",
            ),
            (
                json!({"spec": {"selector": {"matchLabels": {"a": 1}}}}),
                "spec.selector.matchLabels.a",
            ),
            (json!({"rules": []}), "rules"),
        ];
        for (policy, field) in cases {
            let causes = check(&policy);
            assert!(causes.iter().any(|cause| cause.field == field), "{policy}: {causes:?}");
        }
    }
}
