//! What is sent in place of a policy that cannot be read.
//!
//! Not to enforce it would let traffic pass that somebody meant to forbid. So everything
//! that it is about is denied, under its own name, where everybody who looks for the cause
//! finds it.

use mesh::proto::security as proto;
use serde::Deserialize;
use serde_json::Value;

use super::Names;
use super::policy::{Selector, SentPolicy, scope};
use super::spec::WorkloadSelector;
use crate::facts::PolicyFacts;

/// The denial; `None` when the policy is one that would not be enforced here anyway.
///
/// It is about the workloads of its selector. A selector that cannot be read either may
/// mean any of its namespace (of the mesh, in the root namespace), so these are denied.
pub(crate) fn deny_in_place_of(names: &Names, facts: &PolicyFacts) -> Option<SentPolicy> {
    let spec = &facts.spec;
    let elsewhere = matches!(spec["action"].as_str(), Some("AUDIT" | "CUSTOM"))
        || is_given(&spec["targetRef"])
        || is_given(&spec["targetRefs"]);
    if elsewhere {
        return None;
    }
    let selector = Option::<WorkloadSelector>::deserialize(&spec["selector"]).ok().flatten();
    let selector = selector.map(Selector::from);
    let namespace = facts.key.namespace();
    let message = proto::Authorization {
        name: facts.key.name().to_owned(),
        namespace: namespace.to_owned(),
        scope: scope(names, namespace, selector.as_ref()) as i32,
        action: proto::Action::Deny as i32,
        // A rule without clauses matches everything.
        rules: vec![proto::Rule::default()],
        dry_run: facts.dry_run.as_deref() == Some("true"),
        ..proto::Authorization::default()
    };
    Some(SentPolicy { message, selector, narrowed: Vec::new(), dropped: Vec::new() })
}

fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(targets) => !targets.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use mesh::PolicyKey;
    use mesh::proto::security::Scope;
    use serde_json::json;

    use super::*;
    use crate::testing::names;

    fn denial(key: &str, spec: Value) -> Option<SentPolicy> {
        let facts = PolicyFacts { key: PolicyKey::parse(key).unwrap(), dry_run: None, spec };
        deny_in_place_of(&names(), &facts)
    }

    #[test]
    fn the_scope_is_what_can_be_read_of_it() {
        let labels = json!({ "matchLabels": { "app": "cart" } });
        for (key, spec, scope) in [
            ("shop/p", json!({ "rules": 3 }), Scope::Namespace),
            ("shop/p", json!({ "rules": 3, "selector": labels }), Scope::WorkloadSelector),
            ("shop/p", json!({ "selector": { "matchLabels": [] } }), Scope::Namespace),
            ("shop/p", json!("all of it"), Scope::Namespace),
            ("root/p", json!({ "rulez": [] }), Scope::Global),
            ("root/p", json!({ "rulez": [], "selector": labels }), Scope::WorkloadSelector),
        ] {
            let denial = denial(key, spec.clone()).unwrap();
            assert_eq!(denial.message.scope(), scope, "{spec}");
            assert_eq!(denial.selector.is_some(), scope == Scope::WorkloadSelector, "{spec}");
            assert_eq!(denial.message.action(), proto::Action::Deny);
            assert_eq!(denial.message.rules, [proto::Rule::default()]);
            mesh::Policy::try_from(denial.message).unwrap();
        }
    }

    #[test]
    fn what_would_not_be_enforced_here_is_not_denied() {
        for spec in [
            json!({ "action": "AUDIT", "rules": 3 }),
            json!({ "action": "CUSTOM", "rules": 3 }),
            json!({ "targetRefs": [{ "kind": "Gateway" }], "rules": 3 }),
            json!({ "targetRef": {}, "rules": 3 }),
        ] {
            assert_eq!(denial("shop/p", spec.clone()), None, "{spec}");
        }
    }

    #[test]
    fn a_dry_run_stays_one() {
        let key = PolicyKey::parse("shop/p").unwrap();
        let facts = PolicyFacts { key, dry_run: Some("true".into()), spec: json!(3) };
        assert!(deny_in_place_of(&names(), &facts).unwrap().message.dry_run);
    }
}
