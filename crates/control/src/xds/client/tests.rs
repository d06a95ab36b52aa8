use std::collections::BTreeMap;

use mesh::proto::google::rpc::Status;
use mesh::proto::workload::{Address, NetworkAddress, PortList, Service, Workload, address};

use super::*;
use crate::world::Resource;

/// A world with these addresses: name and content.
fn world(addresses: &[(&str, &str)]) -> World {
    let mut world = World::default();
    for (name, content) in addresses {
        world.addresses.insert(name, resource(content));
    }
    world
}

fn resource(content: &str) -> Resource {
    Resource::new(&Workload { name: content.into(), ..Default::default() })
}

fn request(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.url().to_owned(), ..Default::default() }
}

fn holding(held: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let version = |content| resource(content).version.to_string();
    DeltaDiscoveryRequest {
        initial_resource_versions: held
            .iter()
            .map(|(name, content)| ((*name).to_owned(), version(content)))
            .collect(),
        ..request(Kind::Address)
    }
}

fn ack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..request(Kind::Address) }
}

fn nack(nonce: &str) -> DeltaDiscoveryRequest {
    let status = Status { message: "bad address".into(), ..Default::default() };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(nonce) }
}

/// A client that has subscribed to addresses.
fn subscribed(first: DeltaDiscoveryRequest) -> Client {
    let mut client = Client::default();
    assert_eq!(client.on(first), Heard::Subscribed(Kind::Address));
    client
}

/// Names sent and removed by a response, and its nonce.
type Sent = (Vec<String>, Vec<String>, String);

fn next(client: &mut Client, world: &World) -> Option<Sent> {
    let response = client.next(Kind::Address, world)?;
    assert_eq!(response.type_url, Kind::Address.url());
    let mut names: Vec<_> = response.resources.into_iter().map(|it| it.name).collect();
    let mut removed = response.removed_resources;
    names.sort();
    removed.sort();
    Some((names, removed, response.nonce))
}

fn sent(names: &[&str], removed: &[&str], nonce: &str) -> Option<Sent> {
    let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    Some((owned(names), owned(removed), nonce.to_owned()))
}

#[test]
fn nothing_is_sent_before_a_subscription() {
    let mut client = Client::default();
    assert_eq!(client.next(Kind::Address, &world(&[("a", "1")])), None);
    client.on(request(Kind::Authorization));
    assert_eq!(client.next(Kind::Address, &world(&[("a", "1")])), None);
}

#[test]
fn the_first_response_is_everything_and_is_sent_even_when_empty() {
    let mut client = subscribed(request(Kind::Address));
    let all = world(&[("a", "1"), ("b", "1")]);
    assert_eq!(next(&mut client, &all), sent(&["a", "b"], &[], "1"));
    let mut client = subscribed(request(Kind::Address));
    assert_eq!(next(&mut client, &world(&[])), sent(&[], &[], "1"));
    client.on(ack("1"));
    assert_eq!(next(&mut client, &world(&[])), None, "only the first");
}

#[test]
fn later_responses_are_differences() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1"), ("b", "1"), ("c", "1")]));
    assert_eq!(client.on(ack("1")), Heard::Acked(Kind::Address));
    let changed = world(&[("a", "1"), ("b", "2"), ("d", "1")]);
    assert_eq!(next(&mut client, &changed), sent(&["b", "d"], &["c"], "2"));
    client.on(ack("2"));
    assert_eq!(next(&mut client, &changed), None);
}

#[test]
fn what_happens_while_an_answer_is_awaited_is_sent_once_and_together() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1"), ("gone", "1")]));
    for n in 0..100 {
        assert_eq!(next(&mut client, &world(&[("a", &n.to_string()), ("short", "1")])), None);
    }
    client.on(ack("1"));
    assert_eq!(next(&mut client, &world(&[("a", "99")])), sent(&["a"], &["gone"], "2"));
}

#[test]
fn a_rejection_is_reported_and_stops_nothing() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1")]));
    let detail = "bad address".to_owned();
    assert_eq!(client.on(nack("1")), Heard::Rejected { kind: Kind::Address, detail });
    assert_eq!(next(&mut client, &world(&[("a", "1")])), None, "not sent again unchanged");
    let changed = world(&[("a", "1"), ("b", "1")]);
    assert_eq!(next(&mut client, &changed), sent(&["b"], &[], "2"));
}

#[test]
fn an_answer_to_something_else_is_no_answer() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[]));
    for wrong in [ack("0"), ack("17"), ack(""), nack("2"), request(Kind::Address)] {
        assert_eq!(client.on(wrong), Heard::Nothing);
        assert!(client.awaiting(Kind::Address));
    }
    assert_eq!(client.on(ack("1")), Heard::Acked(Kind::Address));
    assert!(!client.awaiting(Kind::Address));
    assert_eq!(client.on(ack("1")), Heard::Nothing, "once is enough");
}

#[test]
fn after_a_reconnect_only_the_difference_is_sent() {
    let mut client = subscribed(holding(&[("a", "1"), ("b", "1"), ("gone", "1")]));
    let now = world(&[("a", "1"), ("b", "2"), ("new", "1")]);
    assert_eq!(next(&mut client, &now), sent(&["b", "new"], &["gone"], "1"));
    let mut client = subscribed(holding(&[("a", "1"), ("b", "2"), ("new", "1")]));
    assert_eq!(next(&mut client, &now), sent(&[], &[], "1"), "empty, but it is the first");
}

#[test]
fn the_two_types_do_not_wait_for_each_other() {
    let mut client = subscribed(request(Kind::Address));
    client.on(request(Kind::Authorization));
    let mut world = world(&[("a", "1")]);
    world.authorizations.insert("shop/p", resource("p"));
    let policies = client.next(Kind::Authorization, &world).unwrap();
    assert_eq!(policies.resources[0].name, "shop/p");
    assert_eq!(next(&mut client, &world), sent(&["a"], &[], "2"));
    assert!(client.awaiting(Kind::Authorization) && client.awaiting(Kind::Address));
}

#[test]
fn types_that_are_not_served_are_not_answered() {
    let mut client = Client::default();
    let wildcard =
        DeltaDiscoveryRequest { resource_names_subscribe: names(&["*"]), ..request(Kind::Address) };
    assert_eq!(client.on(wildcard), Heard::Subscribed(Kind::Address));
    let unknown = DeltaDiscoveryRequest { type_url: "x".into(), ..Default::default() };
    assert_eq!(client.on(unknown), Heard::Unknown("x".into()));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

fn asking(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names(subscribe),
        resource_names_unsubscribe: names(unsubscribe),
        ..request(Kind::Address)
    }
}

/// A service at 10.96.0.1 with the endpoint a at 10.0.0.1; b at 10.0.0.2 is none.
fn shop() -> World {
    let mut world = World::default();
    let service = Service {
        addresses: vec![NetworkAddress { address: vec![10, 96, 0, 1], ..Default::default() }],
        ..Default::default()
    };
    world.publish("shop/cart", &Address { r#type: Some(address::Type::Service(service)) });
    let member = [("shop/cart".to_owned(), PortList::default())].into();
    world.publish("a", &workload(1, member));
    world.publish("b", &workload(2, BTreeMap::new()));
    world
}

fn workload(last: u8, services: BTreeMap<String, PortList>) -> Address {
    let addresses = vec![vec![10, 0, 0, last]];
    let workload = Workload { addresses, services, ..Default::default() };
    Address { r#type: Some(address::Type::Workload(workload)) }
}

#[test]
fn who_asks_by_name_is_answered_by_name() {
    let mut client = subscribed(asking(&["*"], &["*"]));
    assert_eq!(next(&mut client, &shop()), None, "it asked for nothing yet");
    for (asked, resources, removed) in [
        ("/10.0.0.2", &["b"][..], &[][..]),
        ("/10.9.9.9", &[], &["/10.9.9.9"]),
        ("shop/cart", &["a", "shop/cart"], &[]),
        ("/10.96.0.1", &["a", "shop/cart"], &[]),
        ("a", &["a"], &[]),
        ("nobody", &[], &["nobody"]),
    ] {
        assert_eq!(client.on(asking(&[asked], &[])), Heard::Nothing);
        let (got, gone, nonce) = next(&mut client, &shop()).expect(asked);
        assert_eq!((got, gone), (names(resources), names(removed)), "{asked}");
        client.on(ack(&nonce));
        assert_eq!(next(&mut client, &shop()), None, "{asked}: once");
    }
}

#[test]
fn an_answer_names_the_address_that_was_asked_for() {
    let mut client = subscribed(asking(&["*"], &["*"]));
    client.on(asking(&["/10.0.0.2"], &[]));
    let response = client.next(Kind::Address, &shop()).unwrap();
    assert_eq!(response.resources[0].aliases, ["/10.0.0.2"]);
}

#[test]
fn what_was_asked_for_is_kept_up_to_date_until_it_is_given_up() {
    let mut client = subscribed(asking(&["/10.0.0.3", "shop/cart"], &[]));
    let mut world = shop();
    assert_eq!(next(&mut client, &world), sent(&["a", "shop/cart"], &["/10.0.0.3"], "1"));
    client.on(ack("1"));
    // What was asked for in vain appears, and an endpoint goes.
    world.publish("c", &workload(3, BTreeMap::new()));
    world.withdraw("a");
    assert_eq!(next(&mut client, &world), sent(&["c"], &["a"], "2"));
    client.on(ack("2"));
    world.publish("b", &workload(4, BTreeMap::new()));
    assert_eq!(next(&mut client, &world), None, "nobody asked for b");
    client.on(asking(&[], &["shop/cart"]));
    assert_eq!(next(&mut client, &world), sent(&[], &["shop/cart"], "3"));
}

#[test]
fn after_a_reconnect_by_name_only_the_difference_is_sent() {
    let world = shop();
    let version = |name| world.addresses.get(name).unwrap().version.to_string();
    let claimed = [
        ("a", version("a")),
        ("shop/cart", "old".to_owned()),
        ("gone", "1".to_owned()),
        ("/10.0.0.2", String::new()),
    ];
    let mut client = subscribed(DeltaDiscoveryRequest {
        initial_resource_versions: claimed.map(|(name, it)| (name.to_owned(), it)).into(),
        ..asking(&["*"], &["*"])
    });
    assert_eq!(next(&mut client, &world), sent(&["b", "shop/cart"], &["gone"], "1"));
}

#[test]
fn who_asked_by_name_may_want_everything_later() {
    let mut client = subscribed(asking(&["b"], &[]));
    assert_eq!(next(&mut client, &shop()), sent(&["b"], &[], "1"));
    client.on(ack("1"));
    client.on(asking(&["*"], &[]));
    assert_eq!(next(&mut client, &shop()), sent(&["a", "shop/cart"], &[], "2"));
}

#[test]
fn large_differences_come_in_pieces_but_never_the_first_response() {
    let large = "x".repeat(3 << 20);
    let contents: Vec<_> = (0..6).map(|n| (n.to_string(), format!("{n}{large}"))).collect();
    let all: Vec<_> = contents.iter().map(|(name, it)| (name.as_str(), it.as_str())).collect();
    let all = world(&all);
    let mut client = subscribed(request(Kind::Address));
    assert_eq!(next(&mut client, &all).unwrap().0.len(), 6, "a client takes it for everything");

    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("old", "1")]));
    let (mut got, mut gone) = (Vec::new(), Vec::new());
    for nonce in 1..=5 {
        client.on(ack(&nonce.to_string()));
        let Some((resources, removed, _)) = next(&mut client, &all) else {
            break;
        };
        assert!(resources.len() <= 2, "{}", resources.len());
        got.extend(resources);
        gone.extend(removed);
    }
    got.sort();
    assert_eq!((got, gone), (names(&["0", "1", "2", "3", "4", "5"]), names(&["old"])));
}
