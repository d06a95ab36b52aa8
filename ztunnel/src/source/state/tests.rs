mod hold;
mod on_demand;

use std::time::Duration;

use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use mesh::proto::security::Authorization;
use mesh::proto::workload::{self as wds, Address, address};
use mesh::{Home, LocalWorkload, ServiceKey, Workload};
use prost::Message;
use prost_types::Any;

use super::*;

const HOLD: Duration = Duration::from_secs(60);
const RULES: Rules = Rules { scope: Scope::Everything, mass_removal: MassRemoval::Hold(HOLD) };

fn everything() -> State {
    State::new(RULES, View::default())
}

impl State {
    /// The response as it comes from the wire.
    #[expect(clippy::needless_pass_by_value, reason = "dozens of calls read better")]
    fn hear(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        self.hear_at(&response, Instant::now())
    }

    fn hear_at(&mut self, response: &DeltaDiscoveryResponse, now: Instant) -> Outcome {
        self.on(Envelope::decode(&*response.encode_to_vec()).unwrap(), now)
    }

    /// What a new stream claims to hold of workloads and services.
    fn claims(&mut self) -> std::collections::BTreeMap<String, String> {
        self.opening(Node::default(), &[]).remove(0).initial_resource_versions
    }
}

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

fn service_message(vip: [u8; 4]) -> wds::Service {
    let (namespace, hostname) = SERVICE.split_once('/').unwrap();
    wds::Service {
        name: "cart".to_owned(),
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vec![wds::NetworkAddress { address: vip.to_vec(), ..Default::default() }],
        ..Default::default()
    }
}

fn service_resource(version: &str, message: wds::Service) -> Resource {
    let address = Address { r#type: Some(address::Type::Service(message)) };
    resource(SERVICE, version, any(ADDRESS_TYPE, address.encode_to_vec()))
}

fn service() -> Resource {
    service_resource("1", service_message([10, 96, 0, 1]))
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
    let mut names: Vec<_> = state.view().workloads().map(|w| w.name()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_view_is_complete_when_both_types_were_answered_in_any_order() {
    for order in [[ADDRESS_TYPE, AUTHORIZATION_TYPE], [AUTHORIZATION_TYPE, ADDRESS_TYPE]] {
        let mut state = everything();
        assert_eq!(state.missing(), ["workloads", "policies"]);
        let first = state.hear(response(order[0], Vec::new(), &[]));
        assert!(!first.changed && !state.complete());
        assert_eq!(state.missing().len(), 1);
        let second = state.hear(response(order[1], Vec::new(), &[]));
        assert!(second.changed && state.complete(), "an empty mesh is a complete one");
        assert!(!state.hear(response(order[1], Vec::new(), &[])).changed);
    }
}

#[test]
fn an_accepted_response_is_acknowledged_with_its_nonce() {
    let mut state = everything();
    let outcome = state.hear(addresses(vec![workload("a", "1", [10, 0, 0, 1])]));
    let expected = DeltaDiscoveryRequest {
        type_url: ADDRESS_TYPE.to_owned(),
        response_nonce: "n".to_owned(),
        ..Default::default()
    };
    assert_eq!(outcome.reply, expected);
    let pod = LocalWorkload { name: "a", namespace: "shop", service_account: "cart" };
    assert!(state.view().local(pod, &Home::default()).is_some());
}

#[test]
fn a_bad_resource_is_named_and_rejected_alone() {
    let mut state = everything();
    let outcome = state.hear(addresses(vec![
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
    let mut state = everything();
    state.hear(addresses(vec![workload("a", "1", [10, 0, 0, 1])]));
    state.hear(addresses(vec![bad_workload("a", "2")]));
    assert_eq!(uids(&state), ["a"]);
    let versions = &state.opening(Node::default(), &[])[0].initial_resource_versions;
    assert_eq!(versions["Kubernetes//Pod/shop/a"], "", "not the version that was refused");
}

#[test]
fn a_refusal_names_a_bounded_number() {
    let mut state = everything();
    let bad = (0..100).map(|i| resource(&format!("r{i}"), "1", None)).collect();
    let detail = state.hear(addresses(bad)).reply.error_detail.unwrap();
    assert!(detail.message.ends_with("and 80 more"), "{}", detail.message);
}

#[test]
fn removed_resources_leave_the_view() {
    let mut state = everything();
    state.hear(addresses(vec![
        workload("a", "1", [10, 0, 0, 1]),
        workload("b", "1", [10, 0, 0, 2]),
    ]));
    let outcome =
        state.hear(response(ADDRESS_TYPE, vec![], &["Kubernetes//Pod/shop/a", "unknown"]));
    assert!(outcome.changed && outcome.reply.error_detail.is_none());
    assert_eq!(uids(&state), ["b"]);
    let ip = "10.0.0.1".parse().unwrap();
    assert!(state.view().by_address(&"".into(), ip).is_none());

    state.hear(response(AUTHORIZATION_TYPE, vec![policy("p", "1")], &[]));
    assert_eq!(state.view().policies().count(), 1);
    state.hear(response(AUTHORIZATION_TYPE, vec![], &["shop/p"]));
    assert_eq!(state.view().policies().count(), 0);
}

#[test]
fn a_pod_that_takes_over_an_address_within_one_response_owns_it() {
    let mut state = everything();
    state.hear(addresses(vec![workload("old", "1", [10, 0, 0, 1])]));
    let response = response(
        ADDRESS_TYPE,
        vec![workload("new", "1", [10, 0, 0, 1])],
        &["Kubernetes//Pod/shop/old"],
    );
    state.hear(response);
    let ip = "10.0.0.1".parse().unwrap();
    assert_eq!(state.view().by_address(&"".into(), ip).unwrap().name(), "new");
}

#[test]
fn a_new_stream_tells_what_is_held_and_who_we_are_once() {
    let mut state = everything();
    state.hear(addresses(vec![
        workload("a", "7", [10, 0, 0, 1]),
        bad_workload("b", "1"),
        service(),
    ]));
    state.hear(response(AUTHORIZATION_TYPE, vec![policy("p", "3")], &[]));
    let node = Node { id: "me".to_owned(), ..Default::default() };
    let requests = state.opening(node.clone(), &[]);
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

fn service_at<'a>(state: &'a State, ip: &str) -> Option<&'a ServiceKey> {
    let ip = ip.parse().unwrap();
    state.view().service_at("shop", &"".into(), ip).map(|service| &service.key)
}

#[test]
fn services_come_change_and_go() {
    let mut state = everything();
    let outcome = state.hear(addresses(vec![service()]));
    assert!(outcome.reply.error_detail.is_none() && outcome.changed);
    assert_eq!(service_at(&state, "10.96.0.1").unwrap().to_string(), SERVICE);
    state.hear(addresses(vec![service_resource("2", service_message([10, 96, 0, 2]))]));
    assert!(service_at(&state, "10.96.0.1").is_none(), "the former address");
    assert_eq!(state.claims()[SERVICE], "2");
    state.hear(response(ADDRESS_TYPE, vec![], &[SERVICE]));
    assert!(service_at(&state, "10.96.0.2").is_none());
    assert!(state.claims().is_empty());
}

#[test]
fn a_rejected_service_refuses_what_goes_to_its_addresses() {
    let mut state = everything();
    let mut bad = service_message([10, 96, 0, 1]);
    bad.ports = vec![wds::Port { service_port: 70_000, ..Default::default() }];
    let outcome =
        state.hear(addresses(vec![service_resource("1", bad), workload("a", "1", [10, 0, 0, 1])]));
    let detail = outcome.reply.error_detail.unwrap().message;
    assert!(detail.starts_with(&format!("{SERVICE}: ")), "{detail}");
    assert_eq!(uids(&state), ["a"], "the rest applies");
    let rejected = |state: &State| {
        let ip = "10.96.0.1".parse().unwrap();
        state.view().rejected_service_at("bank", &"".into(), ip).is_some()
    };
    assert!(rejected(&state));
    state.hear(addresses(vec![service()]));
    assert!(!rejected(&state) && service_at(&state, "10.96.0.1").is_some());
}

#[test]
fn a_name_that_is_not_the_key_of_the_content_is_rejected_and_refused() {
    let mut state = everything();
    let misnamed = |name: &str, resource: Resource| Resource { name: name.to_owned(), ..resource };
    let outcome = state.hear(addresses(vec![
        misnamed("other", workload("a", "1", [10, 0, 0, 1])),
        misnamed("shop/other", service()),
    ]));
    assert_eq!(outcome.rejected.len(), 2, "{outcome:?}");
    assert!(uids(&state).is_empty() && service_at(&state, "10.96.0.1").is_none());
    assert!(rejected_at(&state, "10.0.0.1"), "not clear text either");
    let ip = "10.96.0.1".parse().unwrap();
    assert!(state.view().rejected_service_at("shop", &"".into(), ip).is_some());
    state.hear(response(ADDRESS_TYPE, vec![], &["other", "shop/other"]));
    assert!(!rejected_at(&state, "10.0.0.1"), "removed by its name");
    assert!(state.view().rejected_service_at("shop", &"".into(), ip).is_none());

    let mut state = everything();
    state.hear(response(AUTHORIZATION_TYPE, vec![misnamed("bank/p", policy("p", "1"))], &[]));
    assert!(!admits(&state, "bank") && !admits(&state, "shop"), "nobody knows whom it is about");
    state.hear(response(AUTHORIZATION_TYPE, vec![], &["bank/p"]));
    assert!(admits(&state, "bank") && admits(&state, "shop"));
}

#[test]
fn a_workload_may_become_a_service_of_the_same_name() {
    let mut state = everything();
    let message = wds::Workload {
        uid: SERVICE.to_owned(),
        name: "cart".to_owned(),
        namespace: "shop".to_owned(),
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(message)) };
    let body = any(ADDRESS_TYPE, address.encode_to_vec());
    state.hear(addresses(vec![resource(SERVICE, "1", body)]));
    assert_eq!(uids(&state), ["cart"]);
    state.hear(addresses(vec![service()]));
    assert!(uids(&state).is_empty() && service_at(&state, "10.96.0.1").is_some());
    state.hear(response(ADDRESS_TYPE, vec![], &[SERVICE]));
    assert!(service_at(&state, "10.96.0.1").is_none());
}

#[test]
fn of_duplicates_in_one_response_the_last_counts() {
    let mut state = everything();
    let outcome = state.hear(addresses(vec![
        workload("a", "1", [10, 0, 0, 1]),
        workload("a", "2", [10, 0, 0, 2]),
    ]));
    assert!(outcome.rejected.is_empty());
    assert_eq!(state.claims()["Kubernetes//Pod/shop/a"], "2");
    assert!(state.view().by_address(&"".into(), "10.0.0.1".parse().unwrap()).is_none());
    state.hear(addresses(vec![workload("a", "3", [10, 0, 0, 3]), bad_workload("a", "4")]));
    assert_eq!(uids(&state), ["a"], "the last good one stays in use");
    assert_eq!(state.claims()["Kubernetes//Pod/shop/a"], "", "and is asked for again");
}

#[test]
fn what_a_response_brings_and_removes_at_once_is_there() {
    let mut state = everything();
    let again = |version: &str| workload("a", version, [10, 0, 0, 1]);
    state.hear(addresses(vec![again("1")]));
    state.hear(response(ADDRESS_TYPE, vec![again("2")], &["Kubernetes//Pod/shop/a"]));
    assert_eq!(uids(&state), ["a"]);
    assert_eq!(state.claims()["Kubernetes//Pod/shop/a"], "2");
}

#[test]
fn a_corrupt_resource_spoils_itself_only() {
    let mut state = everything();
    let mut envelope =
        Envelope::decode(&*addresses(vec![workload("a", "1", [10, 0, 0, 1])]).encode_to_vec())
            .unwrap();
    envelope.resources.insert(0, bytes::Bytes::from_static(&[0xff; 9]));
    let outcome = state.on(envelope, Instant::now());
    assert_eq!(uids(&state), ["a"]);
    let detail = outcome.reply.error_detail.unwrap().message;
    assert!(detail.starts_with("resource number 0 of the response: "), "{detail}");
}

#[test]
fn an_answer_without_anything_after_a_reconnect_takes_nothing_away() {
    let mut state = everything();
    state.hear(addresses(vec![workload("a", "1", [10, 0, 0, 1]), service()]));
    state.opening(Node::default(), &[]);
    let outcome = state.hear(addresses(vec![]));
    assert!(!outcome.changed);
    assert_eq!(uids(&state), ["a"]);
    // A control plane that lost its memory sends everything again, and no removal of what
    // it does not know any more: then it stays.
    state.opening(Node::default(), &[]);
    state.hear(addresses(vec![workload("b", "1", [10, 0, 0, 2])]));
    assert_eq!(uids(&state), ["a", "b"]);
}

#[test]
fn a_type_that_nobody_asked_for_is_refused_and_changes_nothing() {
    let mut state = everything();
    let outcome = state.hear(response("type.googleapis.com/other", vec![], &[]));
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
    let mut state = everything();
    let outcome = state.hear(addresses(vec![
        strange_workload("a", [10, 0, 0, 1]),
        strange_workload("b", [10, 0, 0, 2]),
    ]));
    assert!(outcome.changed, "what depends on the view must hear of it");
    assert_eq!(outcome.rejected.len(), 2);
    assert!(uids(&state).is_empty());
    assert!(rejected_at(&state, "10.0.0.1") && rejected_at(&state, "10.0.0.2"));

    state.hear(addresses(vec![workload("a", "2", [10, 0, 0, 1])]));
    assert!(!rejected_at(&state, "10.0.0.1"), "now it is good");
    state.hear(response(ADDRESS_TYPE, vec![], &["Kubernetes//Pod/shop/b"]));
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
        let (mut state, name) = (everything(), bad.name.clone());
        let seen = |state: &State| (admits(state, "shop"), admits(state, "bank"));
        let what = format!("{bad:?}");
        state.hear(response(AUTHORIZATION_TYPE, vec![bad], &[]));
        assert_eq!(seen(&state), expected, "{what}");
        state.hear(response(AUTHORIZATION_TYPE, vec![], &[&name]));
        assert_eq!(seen(&state), (true, true), "gone: {what}");
    }
}

#[test]
fn a_bad_version_of_a_policy_leaves_the_good_one_in_force() {
    let mut state = everything();
    let good = policy("p", "1");
    state.hear(response(AUTHORIZATION_TYPE, vec![good.clone()], &[]));
    assert!(!admits(&state, "shop"), "an ALLOW that matches nothing");
    let bad = bad_policy("shop", 0);
    state.hear(response(AUTHORIZATION_TYPE, vec![bad.clone()], &[]));
    assert!(admits(&state, "bank") && !admits(&state, "shop"));

    let mut state = everything();
    state.hear(response(AUTHORIZATION_TYPE, vec![bad], &[]));
    assert!(!admits(&state, "bank"));
    state.hear(response(AUTHORIZATION_TYPE, vec![good], &[]));
    assert!(admits(&state, "bank"), "a good version takes its place");
}
