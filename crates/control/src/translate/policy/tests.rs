use mesh::PolicyKey;
use mesh::proto::security::string_match::MatchType;
use serde_json::{Value, json};

use super::*;
use crate::testing::names;

fn facts(key: &str, spec: Value) -> PolicyFacts {
    PolicyFacts { key: PolicyKey::parse(key).unwrap(), dry_run: None, spec }
}

fn sent(key: &str, spec: Value) -> SentPolicy {
    match policy(&names(), &facts(key, spec)).unwrap() {
        Translated::Sent(sent) => sent,
        Translated::NotSent(reason) => panic!("{key} is not sent: {reason}"),
    }
}

/// The single clause of the single rule of a policy with this rule.
fn clause(rule: &Value) -> Vec<proto::Match> {
    let sent = sent("shop/p", json!({ "rules": [rule] }));
    let [rule] = &sent.message.rules[..] else { panic!("one rule, not {:?}", sent.message) };
    let [clause] = &rule.clauses[..] else { panic!("one clause, not {rule:?}") };
    clause.matches.clone()
}

fn problem(spec: Value) -> String {
    policy(&names(), &facts("shop/p", spec)).unwrap_err().to_string()
}

fn exact(value: &str) -> proto::StringMatch {
    proto::StringMatch { match_type: Some(MatchType::Exact(value.into())) }
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u32) -> proto::Address {
    proto::Address { address: vec![a, b, c, d], length }
}

#[test]
fn p03_selector_and_namespace_give_the_scope() {
    use proto::Scope::{Global, Namespace, WorkloadSelector};
    let selector = json!({ "selector": { "matchLabels": { "app": "cart" } } });
    for (key, spec, scope) in [
        ("shop/p", json!({}), Namespace),
        ("root/p", json!({}), Global),
        ("shop/p", Value::Null, Namespace),
        ("shop/p", selector.clone(), WorkloadSelector),
        ("root/p", selector, WorkloadSelector),
        ("shop/p", json!({ "selector": {} }), WorkloadSelector),
    ] {
        let sent = sent(key, spec);
        assert_eq!(sent.message.scope(), scope, "{key}");
        assert_eq!(sent.selector.is_some(), scope == WorkloadSelector);
    }
}

#[test]
fn a_selector_asks_for_all_its_labels() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let selector = Selector(labels(&[("app", "cart"), ("tier", "back")]));
    assert!(selector.selects(&labels(&[("app", "cart"), ("tier", "back"), ("x", "y")])));
    assert!(!selector.selects(&labels(&[("app", "cart")])));
    assert!(!selector.selects(&labels(&[("app", "cart"), ("tier", "front")])));
    assert!(Selector(labels(&[])).selects(&labels(&[])));
}

#[test]
fn p04_what_is_for_a_waypoint_is_not_sent() {
    let (gateway, service) =
        (json!({ "kind": "Gateway", "name": "w" }), json!({ "kind": "Service", "name": "s" }));
    for spec in [
        json!({ "targetRefs": [gateway] }),
        json!({ "targetRef": gateway }),
        json!({ "action": "DENY", "rules": [{}], "targetRefs": [service] }),
    ] {
        let got = policy(&names(), &facts("shop/p", spec)).unwrap();
        assert_eq!(got, Translated::NotSent(NotSent::TargetRefs));
    }
    // Nothing is named, so it is about workloads.
    assert_eq!(sent("shop/p", json!({ "targetRefs": [] })).message.action(), proto::Action::Allow);
}

#[test]
fn p05_only_allow_and_deny_are_sent() {
    for (spec, action) in [
        (json!({ "action": "AUDIT" }), "AUDIT"),
        (json!({ "action": "CUSTOM", "provider": { "name": "opa" } }), "CUSTOM"),
    ] {
        let got = policy(&names(), &facts("shop/p", spec)).unwrap();
        assert_eq!(got, Translated::NotSent(NotSent::Action(action.into())));
    }
    assert_eq!(sent("shop/p", json!({})).message.action(), proto::Action::Allow);
    assert_eq!(sent("shop/p", json!({ "action": "DENY" })).message.action(), proto::Action::Deny);
}

#[test]
fn p06_p07_no_rules_and_an_empty_rule_are_different() {
    for spec in [json!({}), json!({ "rules": [] }), json!({ "rules": null })] {
        assert_eq!(sent("shop/p", spec).message.rules, []);
    }
    let everything = sent("shop/p", json!({ "rules": [{}] })).message;
    assert_eq!(everything.rules, [proto::Rule { clauses: vec![] }]);
}

#[test]
fn from_to_and_when_are_clauses_of_alternatives() {
    let sent = sent(
        "shop/p",
        json!({ "rules": [{
            "from": [
                { "source": { "principals": ["a"], "notNamespaces": ["n"] } },
                { "source": { "serviceAccounts": ["web", "front/web"] } },
            ],
            "to": [{ "operation": { "ports": ["80"], "notPorts": ["81"] } }],
            "when": [
                { "key": "source.ip", "values": ["10.0.0.0/8"] },
                { "key": "destination.port", "notValues": ["443"] },
            ],
        }] }),
    );
    let [rule] = &sent.message.rules[..] else { panic!("one rule") };
    let sizes: Vec<_> = rule.clauses.iter().map(|clause| clause.matches.len()).collect();
    assert_eq!(sizes, [2, 1, 1, 1]);
    let first = &rule.clauses[0].matches[0];
    assert_eq!(first.principals, [exact("a")]);
    assert_eq!(first.not_namespaces, [exact("n")]);
    let account = |namespace: &str| proto::ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: "web".into(),
    };
    assert_eq!(rule.clauses[0].matches[1].service_accounts, [account("shop"), account("front")]);
    assert_eq!(rule.clauses[1].matches[0].destination_ports, [80]);
    assert_eq!(rule.clauses[1].matches[0].not_destination_ports, [81]);
    assert_eq!(rule.clauses[2].matches[0].source_ips, [v4(10, 0, 0, 0, 8)]);
    assert_eq!(rule.clauses[3].matches[0].not_destination_ports, [443]);
    assert!(sent.narrowed.is_empty() && sent.dropped.is_empty());
}

#[test]
fn p12_stars() {
    use MatchType::{Exact, Prefix, Presence, Suffix};
    for (text, expected) in [
        ("*", Presence(proto::Empty {})),
        ("*x", Suffix("x".into())),
        ("x*", Prefix("x".into())),
        ("*x*", Suffix("x*".into())),
        ("x", Exact("x".into())),
        ("a*b", Exact("a*b".into())),
        ("**", Suffix("*".into())),
    ] {
        let matches = clause(&json!({ "from": [{ "source": { "namespaces": [text] } }] }));
        assert_eq!(matches[0].namespaces[0].match_type, Some(expected), "{text}");
    }
}

#[test]
fn addresses_and_ranges() {
    for (text, expected) in [
        ("10.0.0.1", v4(10, 0, 0, 1, 32)),
        ("10.0.0.1/8", v4(10, 0, 0, 1, 8)),
        ("0.0.0.0/0", v4(0, 0, 0, 0, 0)),
        ("::1", proto::Address { address: [[0; 15].as_slice(), &[1]].concat(), length: 128 }),
    ] {
        let matches = clause(&json!({ "from": [{ "source": { "ipBlocks": [text] } }] }));
        assert_eq!(matches[0].source_ips, [expected], "{text}");
    }
}

#[test]
fn p16_http_parts_make_an_allow_rule_go() {
    for rule in [
        json!({ "to": [{ "operation": { "methods": ["GET"] } }] }),
        json!({ "to": [{ "operation": { "ports": ["80"], "paths": ["/x"] } }] }),
        json!({ "from": [{ "source": { "requestPrincipals": ["*"] } }] }),
        json!({ "from": [{ "source": { "notRemoteIpBlocks": ["10.0.0.0/8"] } }] }),
        json!({ "from": [{ "source": { "principals": ["a"] } }],
                "when": [{ "key": "request.headers[x]", "values": ["y"] }] }),
    ] {
        let sent = sent("shop/p", json!({ "rules": [rule, {}] }));
        assert_eq!(sent.message.rules.len(), 1, "{rule}");
        assert_eq!((&sent.dropped[..], &sent.narrowed[..]), (&[0][..], &[][..]), "{rule}");
    }
}

#[test]
fn p16_of_a_deny_rule_the_rest_is_enforced() {
    let deny = |rule: &Value| sent("shop/p", json!({ "action": "DENY", "rules": [rule] }));
    let clauses = |sent: &SentPolicy| -> Vec<usize> {
        sent.message.rules[0].clauses.iter().map(|clause| clause.matches.len()).collect()
    };
    for (rule, expected) in [
        (json!({ "to": [{ "operation": { "ports": ["80"], "methods": ["GET"] } }] }), vec![1]),
        (
            json!({ "to": [{ "operation": { "ports": ["80"] } },
                           { "operation": { "methods": ["GET"] } }] }),
            vec![1],
        ),
        (
            json!({ "from": [{ "source": { "principals": ["a"] } }],
                    "to": [{ "operation": { "methods": ["GET"] } }] }),
            vec![1],
        ),
        (
            json!({ "from": [{ "source": { "principals": ["a"] } }],
                    "when": [{ "key": "request.auth.claims[x]", "values": ["y"] },
                             { "key": "source.namespace", "values": ["n"] }] }),
            vec![1, 1],
        ),
    ] {
        let sent = deny(&rule);
        assert_eq!(clauses(&sent), expected, "{rule}");
        assert_eq!(sent.narrowed, [0], "{rule}");
    }
    let nothing_left = deny(&json!({ "to": [{ "operation": { "methods": ["GET"] } }] }));
    assert_eq!(nothing_left.message.rules, [], "it must not become a rule that denies all");
    assert_eq!(nothing_left.dropped, [0]);
}

#[test]
fn p17_conditions_of_the_transport_layer() {
    for (key, value, expected) in [
        (
            "source.ip",
            "10.0.0.0/8",
            proto::Match { source_ips: vec![v4(10, 0, 0, 0, 8)], ..Default::default() },
        ),
        (
            "source.namespace",
            "n",
            proto::Match { namespaces: vec![exact("n")], ..Default::default() },
        ),
        (
            "source.principal",
            "p",
            proto::Match { principals: vec![exact("p")], ..Default::default() },
        ),
        (
            "destination.ip",
            "10.0.0.1",
            proto::Match { destination_ips: vec![v4(10, 0, 0, 1, 32)], ..Default::default() },
        ),
        (
            "destination.port",
            "80",
            proto::Match { destination_ports: vec![80], ..Default::default() },
        ),
    ] {
        let matches = clause(&json!({ "when": [{ "key": key, "values": [value] }] }));
        assert_eq!(matches, [expected], "{key}");
    }
}

#[test]
fn p20_the_dry_run_annotation_is_carried() {
    for (value, expected) in [(None, false), (Some("false"), false), (Some("true"), true)] {
        let facts = PolicyFacts { dry_run: value.map(str::to_owned), ..facts("shop/p", json!({})) };
        let Translated::Sent(sent) = policy(&names(), &facts).unwrap() else { panic!("sent") };
        assert_eq!(sent.message.dry_run, expected);
    }
    let facts = PolicyFacts { dry_run: Some("maybe".into()), ..facts("shop/p", json!({})) };
    assert!(policy(&names(), &facts).is_err());
}

#[test]
fn a_mistake_is_named_with_its_rule() {
    let source = |field: &str, value: &str| json!({ "rules": [{}, { "from": [{ "source": { field: [value] } }] }] });
    let ports =
        |value: &str| json!({ "rules": [{ "to": [{ "operation": { "ports": [value] } }] }] });
    for (spec, expected) in [
        (source("ipBlocks", "10.0.0.0/33"), "rules[1]: \"10.0.0.0/33\" is neither"),
        (source("ipBlocks", "fe80::1%eth0"), "rules[1]: \"fe80::1%eth0\" is neither"),
        (source("serviceAccounts", "a/b/c"), "rules[1]: service account \"a/b/c\""),
        (source("principal", "typo"), "rules[1]: it cannot be read: unknown field `principal`"),
        (ports("0"), "rules[0]: \"0\" is not a port"),
        (ports("http"), "rules[0]: \"http\" is not a port"),
        (ports("65536"), "rules[0]: \"65536\" is not a port"),
        (json!({ "rules": [{ "when": [{ "key": "source.ip" }] }] }), "rules[0]: condition"),
        (json!({ "rules": [3] }), "rules[0]: it cannot be read"),
        (json!({ "action": "DENIE" }), "action \"DENIE\" is none of"),
        (json!({ "rules": "all" }), "its spec cannot be read"),
        (json!(17), "its spec cannot be read"),
        (
            source("ipBlocks", "::ffff:10.0.0.0/90"),
            "the translation is not accepted: policy shop/p",
        ),
    ] {
        let text = problem(spec);
        assert!(text.starts_with(expected), "{text:?} should start with {expected:?}");
    }
}
