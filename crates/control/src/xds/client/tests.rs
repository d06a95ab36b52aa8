use mesh::proto::google::rpc::Status;
use mesh::proto::workload::Workload;

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
    assert_eq!(client.on(first), Ok(Heard::Subscribed(Kind::Address)));
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
    client.on(request(Kind::Authorization)).unwrap();
    assert_eq!(client.next(Kind::Address, &world(&[("a", "1")])), None);
}

#[test]
fn the_first_response_is_everything_and_is_sent_even_when_empty() {
    let mut client = subscribed(request(Kind::Address));
    let all = world(&[("a", "1"), ("b", "1")]);
    assert_eq!(next(&mut client, &all), sent(&["a", "b"], &[], "1"));
    let mut client = subscribed(request(Kind::Address));
    assert_eq!(next(&mut client, &world(&[])), sent(&[], &[], "1"));
    client.on(ack("1")).unwrap();
    assert_eq!(next(&mut client, &world(&[])), None, "only the first");
}

#[test]
fn later_responses_are_differences() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1"), ("b", "1"), ("c", "1")]));
    assert_eq!(client.on(ack("1")), Ok(Heard::Acked(Kind::Address)));
    let changed = world(&[("a", "1"), ("b", "2"), ("d", "1")]);
    assert_eq!(next(&mut client, &changed), sent(&["b", "d"], &["c"], "2"));
    client.on(ack("2")).unwrap();
    assert_eq!(next(&mut client, &changed), None);
}

#[test]
fn what_happens_while_an_answer_is_awaited_is_sent_once_and_together() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1"), ("gone", "1")]));
    for n in 0..100 {
        assert_eq!(next(&mut client, &world(&[("a", &n.to_string()), ("short", "1")])), None);
    }
    client.on(ack("1")).unwrap();
    assert_eq!(next(&mut client, &world(&[("a", "99")])), sent(&["a"], &["gone"], "2"));
}

#[test]
fn a_rejection_is_reported_and_stops_nothing() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[("a", "1")]));
    let detail = "bad address".to_owned();
    assert_eq!(client.on(nack("1")), Ok(Heard::Rejected { kind: Kind::Address, detail }));
    assert_eq!(next(&mut client, &world(&[("a", "1")])), None, "not sent again unchanged");
    let changed = world(&[("a", "1"), ("b", "1")]);
    assert_eq!(next(&mut client, &changed), sent(&["b"], &[], "2"));
}

#[test]
fn an_answer_to_something_else_is_no_answer() {
    let mut client = subscribed(request(Kind::Address));
    next(&mut client, &world(&[]));
    for wrong in [ack("0"), ack("17"), ack(""), nack("2"), request(Kind::Address)] {
        assert_eq!(client.on(wrong), Ok(Heard::Nothing));
        assert!(client.awaiting(Kind::Address));
    }
    assert_eq!(client.on(ack("1")), Ok(Heard::Acked(Kind::Address)));
    assert!(!client.awaiting(Kind::Address));
    assert_eq!(client.on(ack("1")), Ok(Heard::Nothing), "once is enough");
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
    client.on(request(Kind::Authorization)).unwrap();
    let mut world = world(&[("a", "1")]);
    world.authorizations.insert("shop/p", resource("p"));
    let policies = client.next(Kind::Authorization, &world).unwrap();
    assert_eq!(policies.resources[0].name, "shop/p");
    assert_eq!(next(&mut client, &world), sent(&["a"], &[], "2"));
    assert!(client.awaiting(Kind::Authorization) && client.awaiting(Kind::Address));
}

#[test]
fn single_resources_are_not_offered_and_unknown_types_not_answered() {
    let mut client = Client::default();
    let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let single = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["/10.0.0.1"]),
        ..request(Kind::Address)
    };
    let on_demand = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["*"]),
        resource_names_unsubscribe: names(&["*"]),
        ..request(Kind::Address)
    };
    for refused in [single, on_demand] {
        let error = client.on(refused).unwrap_err().to_string();
        assert!(error.contains(Kind::Address.url()), "{error}");
    }
    let wildcard =
        DeltaDiscoveryRequest { resource_names_subscribe: names(&["*"]), ..request(Kind::Address) };
    assert_eq!(client.on(wildcard), Ok(Heard::Subscribed(Kind::Address)));
    let unknown = DeltaDiscoveryRequest { type_url: "x".into(), ..Default::default() };
    assert_eq!(client.on(unknown), Ok(Heard::Unknown("x".into())));
}
