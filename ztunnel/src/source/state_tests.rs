use mesh::LocalWorkload;
use mesh::proto::workload as wds;
use prost_types::Any;

use super::*;

const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

fn any(url: &str, value: Vec<u8>) -> Option<Any> {
    Some(Any { type_url: url.to_owned(), value })
}

fn resource(name: &str, version: &str, body: Option<Any>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: body,
        ..Default::default()
    }
}

fn workload(name: &str, version: &str, ip: [u8; 4]) -> Resource {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    let message = wds::Workload {
        uid: uid.clone(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        addresses: vec![ip.to_vec()],
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(message)) };
    resource(&uid, version, any(ADDRESS_TYPE, address.encode_to_vec()))
}

/// A workload that wants a tunnel of a kind that we do not speak.
fn strange_workload(name: &str, ip: [u8; 4]) -> Resource {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    let message = wds::Workload {
        uid: uid.clone(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![ip.to_vec()],
        tunnel_protocol: 2,
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(message)) };
    resource(&uid, "1", any(ADDRESS_TYPE, address.encode_to_vec()))
}

/// A workload whose address has three bytes.
fn bad_workload(name: &str, version: &str) -> Resource {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    let message = wds::Workload {
        uid: uid.clone(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![vec![1, 2, 3]],
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(message)) };
    resource(&uid, version, any(ADDRESS_TYPE, address.encode_to_vec()))
}

fn service() -> Resource {
    let message = wds::Service { hostname: "cart".to_owned(), ..Default::default() };
    let address = Address { r#type: Some(address::Type::Service(message)) };
    resource(SERVICE, "1", any(ADDRESS_TYPE, address.encode_to_vec()))
}

fn policy(name: &str, version: &str) -> Resource {
    let message = Authorization {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        scope: mesh::proto::security::Scope::Namespace as i32,
        ..Default::default()
    };
    let body = any(AUTHORIZATION_TYPE, message.encode_to_vec());
    resource(&format!("shop/{name}"), version, body)
}

fn response(url: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: url.to_owned(),
        nonce: "n".to_owned(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn addresses(resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    response(ADDRESS_TYPE, resources, &[])
}

fn uids(state: &State) -> Vec<&str> {
    let mut names: Vec<_> = state.view().workloads().map(|w| &*w.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_view_is_complete_when_both_types_were_answered_in_any_order() {
    for order in [[ADDRESS_TYPE, AUTHORIZATION_TYPE], [AUTHORIZATION_TYPE, ADDRESS_TYPE]] {
        let mut state = State::default();
        assert_eq!(state.missing(), ["workloads", "policies"]);
        let first = state.on(response(order[0], Vec::new(), &[]));
        assert!(!first.changed && !state.complete());
        assert_eq!(state.missing().len(), 1);
        let second = state.on(response(order[1], Vec::new(), &[]));
        assert!(second.changed && state.complete(), "an empty mesh is a complete one");
        assert!(!state.on(response(order[1], Vec::new(), &[])).changed);
    }
}

#[test]
fn an_accepted_response_is_acknowledged_with_its_nonce() {
    let mut state = State::default();
    let outcome = state.on(addresses(vec![workload("a", "1", [10, 0, 0, 1])]));
    let expected = DeltaDiscoveryRequest {
        type_url: ADDRESS_TYPE.to_owned(),
        response_nonce: "n".to_owned(),
        ..Default::default()
    };
    assert_eq!(outcome.reply, expected);
    let pod = LocalWorkload { name: "a", namespace: "shop", service_account: "cart" };
    assert!(state.view().local(pod).is_some());
}

#[test]
fn a_bad_resource_is_named_and_rejected_alone() {
    let mut state = State::default();
    let outcome = state.on(addresses(vec![
        workload("a", "1", [10, 0, 0, 1]),
        bad_workload("b", "1"),
        resource("empty", "1", None),
        resource("other", "1", any(AUTHORIZATION_TYPE, Vec::new())),
        resource("noise", "1", any(ADDRESS_TYPE, vec![0xff; 4])),
        resource("nothing", "1", any(ADDRESS_TYPE, Vec::new())),
        workload("c", "1", [10, 0, 0, 3]),
    ]));
    assert_eq!(uids(&state), ["a", "c"]);
    assert_eq!(outcome.rejected.len(), 5);
    let detail = outcome.reply.error_detail.expect("a refusal");
    assert_eq!(detail.code, INVALID_ARGUMENT);
    for name in
        ["Kubernetes//Pod/shop/b: ", "empty: no body", "other: type", "noise: ", "nothing: "]
    {
        assert!(detail.message.contains(name), "{name} is not named in {}", detail.message);
    }
    assert_eq!(outcome.reply.response_nonce, "n");
    assert!(state.missing() == ["policies"], "a bad resource does not keep the node waiting");
}

#[test]
fn a_bad_update_keeps_the_last_good_content_and_asks_for_another() {
    let mut state = State::default();
    state.on(addresses(vec![workload("a", "1", [10, 0, 0, 1])]));
    state.on(addresses(vec![bad_workload("a", "2")]));
    assert_eq!(uids(&state), ["a"]);
    let versions = &state.opening(Node::default())[0].initial_resource_versions;
    assert_eq!(versions["Kubernetes//Pod/shop/a"], "", "not the version that was refused");
}

#[test]
fn a_refusal_names_a_bounded_number() {
    let mut state = State::default();
    let bad = (0..100).map(|i| resource(&format!("r{i}"), "1", None)).collect();
    let detail = state.on(addresses(bad)).reply.error_detail.unwrap();
    assert!(detail.message.ends_with("and 80 more"), "{}", detail.message);
}

#[test]
fn removed_resources_leave_the_view() {
    let mut state = State::default();
    state.on(addresses(vec![workload("a", "1", [10, 0, 0, 1]), workload("b", "1", [10, 0, 0, 2])]));
    let outcome = state.on(response(ADDRESS_TYPE, vec![], &["Kubernetes//Pod/shop/a", "unknown"]));
    assert!(outcome.changed && outcome.reply.error_detail.is_none());
    assert_eq!(uids(&state), ["b"]);
    let ip = "10.0.0.1".parse().unwrap();
    assert!(state.view().by_address(&"".into(), ip).is_none());

    state.on(response(AUTHORIZATION_TYPE, vec![policy("p", "1")], &[]));
    assert_eq!(state.view().policies().count(), 1);
    state.on(response(AUTHORIZATION_TYPE, vec![], &["shop/p"]));
    assert_eq!(state.view().policies().count(), 0);
}

#[test]
fn a_pod_that_takes_over_an_address_within_one_response_owns_it() {
    let mut state = State::default();
    state.on(addresses(vec![workload("old", "1", [10, 0, 0, 1])]));
    let response = response(
        ADDRESS_TYPE,
        vec![workload("new", "1", [10, 0, 0, 1])],
        &["Kubernetes//Pod/shop/old"],
    );
    state.on(response);
    let ip = "10.0.0.1".parse().unwrap();
    assert_eq!(&*state.view().by_address(&"".into(), ip).unwrap().name, "new");
}

#[test]
fn a_new_stream_tells_what_is_held_and_who_we_are_once() {
    let mut state = State::default();
    state.on(addresses(vec![workload("a", "7", [10, 0, 0, 1]), bad_workload("b", "1"), service()]));
    state.on(response(AUTHORIZATION_TYPE, vec![policy("p", "3")], &[]));
    let node = Node { id: "me".to_owned(), ..Default::default() };
    let requests = state.opening(node.clone());
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].node, Some(node));
    assert_eq!(requests[1].node, None);
    let versions = |i: usize| -> Vec<(&str, &str)> {
        let versions = &requests[i].initial_resource_versions;
        versions.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect()
    };
    assert_eq!(
        versions(0),
        [("Kubernetes//Pod/shop/a", "7"), ("Kubernetes//Pod/shop/b", ""), (SERVICE, "1")]
    );
    assert_eq!(versions(1), [("shop/p", "3")]);
    for request in &requests {
        assert!(request.resource_names_subscribe.is_empty(), "everything");
        assert!(request.response_nonce.is_empty());
    }
}

#[test]
fn services_are_passed_over_and_acknowledged() {
    let mut state = State::default();
    let outcome = state.on(addresses(vec![service()]));
    assert_eq!(outcome.skipped, 1);
    assert!(outcome.reply.error_detail.is_none());
    assert_eq!(state.view().workloads().count(), 0);
}

#[test]
fn a_type_that_nobody_asked_for_is_refused_and_changes_nothing() {
    let mut state = State::default();
    let outcome = state.on(response("type.googleapis.com/other", vec![], &[]));
    assert!(outcome.reply.error_detail.is_some());
    assert_eq!(outcome.reply.type_url, "type.googleapis.com/other");
    assert!(!outcome.changed);
    assert_eq!(state.missing().len(), 2);
}

/// Is traffic to this address refused because of a rejected workload?
fn rejected_at(state: &State, ip: &str) -> bool {
    let ip = ip.parse().unwrap();
    state.view().rejected_at(&"".into(), ip).is_some()
}

#[test]
fn the_addresses_of_a_rejected_workload_are_remembered_until_it_is_good_or_gone() {
    let mut state = State::default();
    let outcome = state.on(addresses(vec![
        strange_workload("a", [10, 0, 0, 1]),
        strange_workload("b", [10, 0, 0, 2]),
    ]));
    assert!(outcome.changed, "what depends on the view must hear of it");
    assert_eq!(outcome.rejected.len(), 2);
    assert!(uids(&state).is_empty());
    assert!(rejected_at(&state, "10.0.0.1") && rejected_at(&state, "10.0.0.2"));

    state.on(addresses(vec![workload("a", "2", [10, 0, 0, 1])]));
    assert!(!rejected_at(&state, "10.0.0.1"), "now it is good");
    state.on(response(ADDRESS_TYPE, vec![], &["Kubernetes//Pod/shop/b"]));
    assert!(!rejected_at(&state, "10.0.0.2"), "now it is gone");
    assert_eq!(uids(&state), ["a"]);
}

/// May anybody reach a workload of this namespace?
fn admits(state: &State, namespace: &str) -> bool {
    let message = wds::Workload {
        uid: "u".to_owned(),
        namespace: namespace.to_owned(),
        ..Default::default()
    };
    let connection = mesh::Connection {
        source: "10.0.0.9:1".parse().unwrap(),
        identity: None,
        destination: "10.0.0.1:80".parse().unwrap(),
    };
    let workload = Workload::try_from(message).unwrap();
    state.view().authorize(&workload, &connection) == mesh::Decision::Allow
}

fn bad_policy(namespace: &str, scope: i32) -> Resource {
    let message = Authorization {
        name: "p".to_owned(),
        namespace: namespace.to_owned(),
        scope,
        action: 77,
        ..Default::default()
    };
    let body = any(AUTHORIZATION_TYPE, message.encode_to_vec());
    resource(&format!("{namespace}/p"), "1", body)
}

#[test]
fn a_rejected_policy_denies_what_it_may_be_about() {
    use mesh::proto::security::Scope::{Global, Namespace, WorkloadSelector};
    let undecodable = resource("shop/p", "1", any(AUTHORIZATION_TYPE, vec![0xff; 4]));
    let cases = [
        (bad_policy("shop", Namespace as i32), (false, true)),
        (bad_policy("root", Global as i32), (false, false)),
        (bad_policy("shop", 99), (false, false)),
        // Denies those that list it; nobody does here.
        (bad_policy("shop", WorkloadSelector as i32), (true, true)),
        (undecodable, (false, false)),
        (resource("shop/p", "1", None), (false, false)),
    ];
    for (bad, expected) in cases {
        let (mut state, name) = (State::default(), bad.name.clone());
        let seen = |state: &State| (admits(state, "shop"), admits(state, "bank"));
        let what = format!("{bad:?}");
        state.on(response(AUTHORIZATION_TYPE, vec![bad], &[]));
        assert_eq!(seen(&state), expected, "{what}");
        state.on(response(AUTHORIZATION_TYPE, vec![], &[&name]));
        assert_eq!(seen(&state), (true, true), "gone: {what}");
    }
}

#[test]
fn a_bad_version_of_a_policy_leaves_the_good_one_in_force() {
    let mut state = State::default();
    let good = policy("p", "1");
    state.on(response(AUTHORIZATION_TYPE, vec![good.clone()], &[]));
    assert!(!admits(&state, "shop"), "an ALLOW that matches nothing");
    let bad = bad_policy("shop", 0);
    state.on(response(AUTHORIZATION_TYPE, vec![bad.clone()], &[]));
    assert!(admits(&state, "bank") && !admits(&state, "shop"));

    let mut state = State::default();
    state.on(response(AUTHORIZATION_TYPE, vec![bad], &[]));
    assert!(!admits(&state, "bank"));
    state.on(response(AUTHORIZATION_TYPE, vec![good], &[]));
    assert!(admits(&state, "bank"), "a good version takes its place");
}
