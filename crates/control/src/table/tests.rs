use mesh::proto::security::Authorization;
use mesh::proto::workload::Workload;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::facts::{Life, PeerFacts, PodFacts, PodNetwork, PolicyFacts};
use crate::testing::{names, pod};
use mesh::proto::workload::{Address, address};

/// A table whose lists are complete, and empty.
pub(super) fn complete() -> Table {
    let mut table = Table::new(names());
    table.pods_listed(vec![]);
    table.nodes_listed(vec![]);
    table.services_listed(vec![]);
    table.slices_listed(vec![]);
    table.policies_listed(&[]);
    table.peers_listed(&[]);
    table
}

pub(super) fn labelled(namespace: &str, name: &str, app: &str) -> PodFacts {
    PodFacts { labels: [("app".to_owned(), app.to_owned())].into(), ..pod(namespace, name) }
}

fn policy_facts(key: &str, spec: Value) -> PolicyFacts {
    PolicyFacts { key: PolicyKey::parse(key).unwrap(), dry_run: None, spec }
}

fn selecting(app: &str, action: &str) -> Value {
    json!({ "selector": { "matchLabels": { "app": app } }, "action": action })
}

pub(super) fn workload_of(table: &Table, pod: &str) -> Option<Workload> {
    let world = table.snapshot().unwrap();
    let resource = world.addresses.get(&format!("Kubernetes//Pod/{pod}"))?;
    match Address::decode(&*resource.content).unwrap().r#type {
        Some(address::Type::Workload(workload)) => Some(workload),
        other => panic!("a workload, not {other:?}"),
    }
}

fn listed_by(table: &Table, pod: &str) -> Vec<String> {
    workload_of(table, pod).unwrap().authorization_policies
}

fn authorization(table: &Table, key: &str) -> Option<Authorization> {
    let world = table.snapshot().unwrap();
    let resource = world.authorizations.get(key)?;
    Some(Authorization::decode(&*resource.content).unwrap())
}

#[test]
fn nothing_is_shown_before_all_lists_are_complete() {
    for last in Kind::ALL {
        let mut table = Table::new(names());
        table.pod_seen(pod("shop", "a"));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != last).chain([last]) {
            assert!(table.snapshot().is_none(), "{last:?} may still be missing");
            match kind {
                Kind::Pods => table.pods_listed(vec![pod("shop", "a")]),
                Kind::Nodes => table.nodes_listed(vec![]),
                Kind::Services => table.services_listed(vec![]),
                Kind::Slices => table.slices_listed(vec![]),
                Kind::Policies => drop(table.policies_listed(&[])),
                Kind::Peers => drop(table.peers_listed(&[])),
            }
        }
        assert_eq!(table.snapshot().unwrap().addresses.iter().count(), 1);
    }
}

#[test]
fn a_cluster_without_the_policy_type_has_no_policies() {
    let mut table = Table::new(names());
    table.pods_listed(vec![]);
    table.nodes_listed(vec![]);
    table.services_listed(vec![]);
    table.slices_listed(vec![]);
    table.no_policies_exist();
    table.no_peers_exist();
    assert!(table.snapshot().is_some());
}

#[test]
fn a_workload_comes_changes_and_goes_with_its_pod() {
    let mut table = complete();
    table.pod_seen(PodFacts { addresses: vec![], ..pod("shop", "a") });
    assert_eq!(workload_of(&table, "shop/a"), None);
    table.pod_seen(pod("shop", "a"));
    assert!(workload_of(&table, "shop/a").is_some());
    table.pod_seen(PodFacts { network: PodNetwork::Host, ..pod("shop", "a") });
    assert_eq!(workload_of(&table, "shop/a").unwrap().network_mode, 1);
    table.pod_seen(PodFacts { life: Life::Ended, ..pod("shop", "a") });
    assert_eq!(workload_of(&table, "shop/a"), None);
    table.pod_seen(pod("shop", "a"));
    table.pod_gone("shop/a");
    assert_eq!(workload_of(&table, "shop/a"), None);
    table.pod_gone("shop/a");
}

#[test]
fn a_new_list_takes_away_what_is_not_in_it() {
    let mut table = complete();
    table.pods_listed(vec![pod("shop", "a"), pod("shop", "b")]);
    table.policies_listed(&[policy_facts("shop/p", json!({}))]);
    table.pods_listed(vec![pod("shop", "b")]);
    table.policies_listed(&[]);
    assert_eq!(workload_of(&table, "shop/a"), None);
    assert!(workload_of(&table, "shop/b").is_some());
    assert_eq!(authorization(&table, "shop/p"), None);
}

#[test]
fn what_has_not_changed_keeps_its_version() {
    let mut table = complete();
    table.pods_listed(vec![pod("shop", "a"), pod("shop", "b")]);
    let before = table.snapshot().unwrap();
    table.pods_listed(vec![pod("shop", "a"), pod("shop", "b")]);
    table.pod_seen(PodFacts { reach: crate::facts::Reach::Tunnel, ..pod("shop", "b") });
    let after = table.snapshot().unwrap();
    let changed: Vec<_> =
        after.addresses.changed_since(&before.addresses).map(|(uid, _)| uid.to_string()).collect();
    assert_eq!(changed, ["Kubernetes//Pod/shop/b"]);
}

#[test]
fn a_policy_is_listed_by_the_workloads_that_it_selects() {
    let mut table = complete();
    for (namespace, name, app) in
        [("shop", "cart-1", "cart"), ("shop", "web-1", "web"), ("other", "cart-2", "cart")]
    {
        table.pod_seen(labelled(namespace, name, app));
    }
    table.policy_seen(&policy_facts("shop/p", selecting("cart", "DENY")));
    table.policy_seen(&policy_facts("root/r", selecting("cart", "DENY")));
    table.policy_seen(&policy_facts("shop/all", json!({ "action": "DENY" })));
    assert_eq!(listed_by(&table, "shop/cart-1"), ["root/r", "shop/p"]);
    assert_eq!(listed_by(&table, "shop/web-1"), [""; 0]);
    assert_eq!(listed_by(&table, "other/cart-2"), ["root/r"]);
    // A pod that comes later, and one whose labels change.
    table.pod_seen(labelled("shop", "cart-3", "cart"));
    table.pod_seen(labelled("shop", "web-1", "cart"));
    assert_eq!(listed_by(&table, "shop/cart-3"), ["root/r", "shop/p"]);
    assert_eq!(listed_by(&table, "shop/web-1"), ["root/r", "shop/p"]);
    // A selector that changes, and a policy that goes.
    table.policy_seen(&policy_facts("shop/p", selecting("none", "DENY")));
    table.policy_gone(&PolicyKey::parse("root/r").unwrap());
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
    assert_eq!(listed_by(&table, "other/cart-2"), [""; 0]);
}

#[test]
fn a_policy_that_is_not_sent_is_not_listed() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    table.policy_seen(&policy_facts("shop/p", selecting("cart", "DENY")));
    let outcome = table.policy_seen(&policy_facts("shop/p", selecting("cart", "AUDIT")));
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
    assert_eq!(authorization(&table, "shop/p"), None);
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
}

#[test]
fn a_malformed_policy_leaves_the_last_good_one_in_force() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    let good = policy_facts("shop/p", selecting("cart", "DENY"));
    let bad = policy_facts("shop/p", selecting("cart", "DENIE"));
    table.policy_seen(&good);
    let in_force = authorization(&table, "shop/p");
    let outcome = table.policy_seen(&bad);
    assert!(matches!(outcome, Outcome::Kept(_)), "{outcome:?}");
    let outcomes = table.policies_listed(&[bad, policy_facts("shop/q", json!({}))]);
    assert!(matches!(outcomes[..], [Outcome::Kept(_), Outcome::Sent { .. }]), "{outcomes:?}");
    assert!(in_force.is_some());
    assert_eq!(authorization(&table, "shop/p"), in_force);
    assert_eq!(listed_by(&table, "shop/cart-1"), ["shop/p"]);
    table.policy_gone(&PolicyKey::parse("shop/p").unwrap());
    assert_eq!(authorization(&table, "shop/p"), None);
}

#[test]
fn a_policy_that_never_was_well_formed_denies_what_it_is_about() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    table.pod_seen(labelled("shop", "web-1", "web"));
    let bad = |app| policy_facts("shop/p", selecting(app, "DENIE"));
    let outcome = table.policy_seen(&bad("cart"));
    assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
    let denial = authorization(&table, "shop/p").unwrap();
    assert_eq!(denial.action(), mesh::proto::security::Action::Deny);
    assert_eq!(denial.rules, [mesh::proto::security::Rule::default()], "it matches everything");
    assert_eq!(listed_by(&table, "shop/cart-1"), ["shop/p"]);
    assert_eq!(listed_by(&table, "shop/web-1"), [""; 0]);
    // Malformed otherwise: the denial follows, it is no version worth keeping.
    table.policy_seen(&bad("web"));
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
    assert_eq!(listed_by(&table, "shop/web-1"), ["shop/p"]);
    // Not one of ours any more, then corrected, then gone.
    let outcome = table.policy_seen(&policy_facts("shop/p", json!({ "action": "CUSTOM", "x": 1 })));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(authorization(&table, "shop/p"), None);
    table.policy_seen(&bad("cart"));
    let outcome = table.policy_seen(&policy_facts("shop/p", selecting("cart", "ALLOW")));
    assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    assert_eq!(authorization(&table, "shop/p").unwrap().action, 0);
    table.policy_gone(&PolicyKey::parse("shop/p").unwrap());
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
}

fn peer_facts(key: &str, spec: Value) -> PeerFacts {
    let key = PolicyKey::parse(key).unwrap();
    PeerFacts { key, created: "2026-01-01T00:00:00Z".into(), spec }
}

#[test]
fn p19_workloads_list_the_denial_that_holds_for_them() {
    const STRICT: &str = "root/istio_converted_static_strict";
    const OWN: &str = "shop/converted_peer_authentication_ports";
    let strict = json!({ "mtls": { "mode": "STRICT" } });
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    table.pod_seen(labelled("other", "web-1", "web"));
    assert_eq!(authorization(&table, STRICT), None);
    table.peer_seen(&peer_facts("root/mesh", strict));
    assert!(authorization(&table, STRICT).is_some());
    assert_eq!(listed_by(&table, "shop/cart-1"), [STRICT]);
    assert_eq!(listed_by(&table, "other/web-1"), [STRICT]);
    let open = json!({ "mtls": { "mode": "PERMISSIVE" } });
    table.peer_seen(&peer_facts("other/open", open));
    assert_eq!(listed_by(&table, "other/web-1"), [""; 0]);
    let ports = json!({
        "selector": { "matchLabels": { "app": "cart" } },
        "portLevelMtls": { "80": { "mode": "PERMISSIVE" } },
    });
    table.peer_seen(&peer_facts("shop/ports", ports));
    assert_eq!(listed_by(&table, "shop/cart-1"), [OWN]);
    assert!(authorization(&table, OWN).is_some());
    table.pod_seen(labelled("shop", "cart-2", "cart"));
    assert_eq!(listed_by(&table, "shop/cart-2"), [OWN]);
    // Nothing to except the port from.
    table.peer_gone(&PolicyKey::parse("root/mesh").unwrap());
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
    assert_eq!(authorization(&table, OWN), None);
    table.peers_listed(&[]);
    assert_eq!(authorization(&table, STRICT), None);
}

#[test]
fn a_malformed_peer_authentication_counts_as_strict_unless_it_was_good() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    let bad = peer_facts("shop/p", json!({ "mtls": { "mode": "STRICKT" } }));
    let outcome = table.peer_seen(&bad);
    assert!(matches!(outcome, PeerOutcome::Strict(_)), "{outcome:?}");
    assert_eq!(listed_by(&table, "shop/cart-1"), ["root/istio_converted_static_strict"]);
    let open = json!({ "mtls": { "mode": "PERMISSIVE" } });
    table.peer_seen(&peer_facts("shop/p", open));
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
    let outcome = table.peer_seen(&bad);
    assert!(matches!(outcome, PeerOutcome::Kept(_)), "{outcome:?}");
    assert_eq!(listed_by(&table, "shop/cart-1"), [""; 0]);
}
