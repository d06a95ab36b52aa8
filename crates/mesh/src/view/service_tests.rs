use std::net::IpAddr;

use super::*;
use crate::{Identity, Membership, ServiceAddress, Visibility};

fn key(text: &str) -> ServiceKey {
    ServiceKey::parse(text).unwrap()
}

fn service(name: &str, addresses: &[&str]) -> Service {
    let address = |net: &&str| ServiceAddress { network: "".into(), net: net.parse().unwrap() };
    Service { addresses: addresses.iter().map(address).collect(), ..Service::new(key(name)) }
}

fn endpoint(uid: &str, services: &[&str]) -> Workload {
    let member = |name: &&str| Membership { service: key(name), ports: Box::default() };
    Workload::new(uid, "shop", uid, Identity::new("", "shop", "cart").unwrap())
        .with(|it| it.services = services.iter().map(member).collect())
}

fn at(view: &View, client: &str, ip: &str) -> String {
    let found = view.service_at(client, &"".into(), ip.parse().unwrap());
    found.map_or("-".to_owned(), |service| service.key.to_string())
}

fn names(view: &View, service: &str) -> Vec<String> {
    let mut names: Vec<_> = view.endpoints(&key(service)).map(|it| it.uid().to_string()).collect();
    names.sort_unstable();
    names
}

#[test]
fn of_several_services_at_an_address_the_nearest_is_found() {
    let canonical =
        |name: &str, addresses: &[&str]| Service { canonical: true, ..service(name, addresses) };
    let hidden = |name: &str, addresses: &[&str]| Service {
        visibility: Visibility::Namespace,
        ..service(name, addresses)
    };
    let mut view = View::default();
    for service in [
        service("shop/a", &["10.0.0.1", "10.0.0.2"]),
        canonical("bank/a", &["10.0.0.1"]),
        service("bank/b", &["10.0.0.2"]),
        hidden("till/h", &["10.0.0.1", "10.0.0.3", "10.9.0.0/24"]),
        service("shop/wide", &["10.8.0.0/13"]),
        service("bank/narrow", &["10.9.0.0/16"]),
        canonical("farm/narrow", &["10.9.0.0/16"]),
        service("shop/exact", &["10.9.9.9"]),
    ] {
        view.insert_service(service);
    }
    let cases = [
        ("shop", "10.0.0.1", "shop/a"),
        ("bank", "10.0.0.1", "bank/a"),
        // Neither is the client's own: the canonical one.
        ("farm", "10.0.0.1", "bank/a"),
        ("till", "10.0.0.1", "till/h"),
        // Neither is canonical: the first by name, on every node.
        ("farm", "10.0.0.2", "bank/b"),
        ("farm", "10.0.0.3", "-"),
        ("till", "10.0.0.3", "till/h"),
        // Ranges: the own namespace, then the longest prefix, then the canonical one.
        ("shop", "10.9.0.1", "shop/wide"),
        ("till", "10.9.0.1", "till/h"),
        ("till", "10.9.1.1", "farm/narrow"),
        ("bank", "10.9.1.1", "bank/narrow"),
        ("mill", "10.8.0.1", "shop/wide"),
        // One that names the very address comes before all ranges.
        ("bank", "10.9.9.9", "shop/exact"),
        ("shop", "::ffff:10.0.0.1", "shop/a"),
        ("shop", "10.0.0.4", "-"),
    ];
    for (client, ip, expected) in cases {
        assert_eq!(at(&view, client, ip), expected, "{ip} for {client}");
    }
    let elsewhere = view.service_at("shop", &"other".into(), "10.0.0.1".parse().unwrap());
    assert!(elsewhere.is_none(), "an address of another network");
}

#[test]
fn a_replaced_service_is_found_at_its_new_addresses_only() {
    let mut view = View::default();
    view.insert_service(service("shop/a", &["10.0.0.1", "10.1.0.0/16"]));
    let before = view.clone();
    view.insert_service(service("shop/a", &["10.0.0.2"]));
    assert_eq!(at(&view, "shop", "10.0.0.1"), "-");
    assert_eq!(at(&view, "shop", "10.1.0.1"), "-");
    assert_eq!(at(&view, "shop", "10.0.0.2"), "shop/a");
    assert_eq!(at(&before, "shop", "10.1.0.1"), "shop/a", "a clone is not changed");
    assert_eq!(view.services().count(), 1);
    view.remove_service(&key("shop/a"));
    assert_eq!(at(&view, "shop", "10.0.0.2"), "-");
    assert!(view.service(&key("shop/a")).is_none());
}

#[test]
fn services_of_one_hostname_are_all_found_by_it() {
    let mut view = View::default();
    for name in ["shop/db.example.com", "bank/db.example.com", "bank/other"] {
        view.insert_service(service(name, &[]));
    }
    assert_eq!(view.services_named("db.example.com").count(), 2);
    view.remove_service(&key("shop/db.example.com"));
    let left: Vec<_> = view.services_named("db.example.com").map(|it| it.key.namespace()).collect();
    assert_eq!(left, ["bank"]);
}

#[test]
fn endpoints_do_not_wait_for_their_service() {
    let mut view = View::default();
    view.insert_workload(endpoint("a", &["shop/x", "shop/y"]));
    view.insert_workload(endpoint("b", &["shop/x"]));
    let before = view.clone();
    view.insert_service(service("shop/x", &[]));
    assert_eq!(names(&view, "shop/x"), ["a", "b"]);
    view.insert_workload(endpoint("a", &["shop/x"]));
    assert_eq!(names(&view, "shop/x"), ["a", "b"], "once");
    assert_eq!(names(&view, "shop/y"), [""; 0]);
    view.remove_service(&key("shop/x"));
    view.remove_workload("b");
    assert_eq!(names(&view, "shop/x"), ["a"]);
    assert_eq!(names(&before, "shop/y"), ["a"], "a clone is not changed");
    assert_eq!(names(&before, "shop/x"), ["a", "b"]);
}

#[test]
fn a_rejected_service_keeps_the_addresses_that_can_be_read() {
    let rejected = |view: &View, client: &str, ip: &str| {
        let found = view.rejected_service_at(client, &"".into(), ip.parse::<IpAddr>().unwrap());
        found.map(ToString::to_string)
    };
    let address = |bytes: &[u8], length| proto::NetworkAddress {
        network: String::new(),
        address: bytes.to_vec(),
        length,
    };
    let mut message = proto::Service {
        addresses: vec![
            address(&[1, 2, 3], None),
            address(&[10, 96, 0, 1], None),
            address(&[10, 97, 0, 0], Some(16)),
        ],
        ..Default::default()
    };
    let mut view = View::default();
    view.reject_service(&key("shop/a"), &message);
    assert_eq!(rejected(&view, "bank", "10.96.0.1").as_deref(), Some("shop/a"));
    assert_eq!(rejected(&view, "bank", "10.97.3.3").as_deref(), Some("shop/a"));
    assert_eq!(rejected(&view, "bank", "10.98.0.1"), None);
    message.visibility = proto::Visibility::Namespace as i32;
    view.reject_service(&key("shop/a"), &message);
    assert_eq!(rejected(&view, "bank", "10.96.0.1"), None, "others cannot find it anyway");
    assert_eq!(rejected(&view, "shop", "10.96.0.1").as_deref(), Some("shop/a"));
    view.insert_service(service("shop/a", &["10.96.0.9"]));
    assert_eq!(rejected(&view, "shop", "10.96.0.1"), None, "a usable version");
    view.reject_service(&key("shop/a"), &message);
    assert_eq!(at(&view, "shop", "10.96.0.9"), "shop/a", "stays in use");
    view.remove_service(&key("shop/a"));
    assert_eq!(rejected(&view, "shop", "10.96.0.1"), None, "it is gone");
}

#[test]
fn members_are_found_by_their_node() {
    let mut view = View::default();
    let member = |number: usize, node: &str, capacity| {
        let identity = crate::Identity::new("", "shop", "a").unwrap();
        let name = format!("a-{number}");
        Workload::new(&name, "shop", &name, identity).with(|it| {
            it.node = node.into();
            it.capacity = capacity;
            it.services =
                [crate::Membership { service: key("shop/a"), ports: Box::default() }].into();
        })
    };
    for (number, node) in ["n2", "n1", "n10", "n2", "", "n1", "n2"].into_iter().enumerate() {
        view.insert_workload(member(number, node, 1));
    }
    view.remove_workload("a-3");
    let before = view.clone();
    view.insert_workload(member(0, "n1", 7));
    let on = |view: &View, node| view.members(&key("shop/a")).on_node(node).len();
    for (node, then, now) in [("", 1, 1), ("n1", 2, 3), ("n10", 1, 1), ("n2", 2, 1), ("n3", 0, 0)] {
        assert_eq!((on(&before, node), on(&view, node)), (then, now), "{node}");
    }
    let most = |view: &View| view.members(&key("shop/a")).most_capacity();
    assert_eq!((most(&before), most(&view)), (1, 7));
    assert_eq!(view.members(&key("shop/b")).all().len(), 0);
}

#[test]
fn a_large_service_knows_of_what_kinds_its_members_are() {
    let mut view = View::default();
    let identity = || crate::Identity::new("", "shop", "a").unwrap();
    let services = || [crate::Membership { service: key("shop/a"), ports: Box::default() }].into();
    let add = |view: &mut View, number: usize, owner: usize| {
        let name = format!("a-{number}");
        view.insert_workload(Workload::new(&name, "shop", &name, identity()).with(|it| {
            it.owner = format!("owner-{owner}").into();
            it.services = services();
        }));
    };
    let kinds = |view: &View| view.members(&key("shop/a")).kinds().map(<[_]>::len);
    (0..64).for_each(|number| add(&mut view, number, number % 3));
    assert_eq!(kinds(&view), None, "it is small");
    add(&mut view, 64, 0);
    assert_eq!(kinds(&view), Some(3));
    add(&mut view, 65, 3);
    assert_eq!(kinds(&view), Some(4));
    view.remove_workload("a-65");
    assert_eq!(kinds(&view), Some(4), "one that has left is no harm");
    view.remove_workload("a-64");
    assert_eq!(kinds(&view), None);
    (64..90).for_each(|number| add(&mut view, number, number));
    assert_eq!(kinds(&view), None, "too many");
}
