use mesh::proto::workload::{Address, Service, Workload, address};

use super::tests::{complete, labelled, workload_of};
use super::*;
use crate::facts::{
    EndpointFacts, Health, Life, PodFacts, ServiceType, SliceFacts, SlicePort, Target,
};
use crate::testing::{pod, service};

const CART: &str = "shop/cart.shop.svc.cluster.local";
const STRANGER: &str = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/cart-x/192.0.2.7";

fn service_of(table: &Table, name: &str) -> Option<Service> {
    let world = table.snapshot().unwrap();
    match world.addresses.get(name)?.address()?.r#type {
        Some(address::Type::Service(service)) => Some(service),
        other => panic!("a service, not {other:?}"),
    }
}

fn stranger(table: &Table) -> Option<Workload> {
    let Address { r#type } = table.snapshot().unwrap().addresses.get(STRANGER)?.address()?;
    match r#type {
        Some(address::Type::Workload(workload)) => Some(workload),
        other => panic!("a workload, not {other:?}"),
    }
}

/// Service port and target port of the pod in cart.
fn ports(table: &Table, pod: &str) -> Vec<(u32, u32)> {
    let workload = workload_of(table, pod).unwrap();
    let list = workload.services.get(CART).cloned().unwrap_or_default();
    list.ports.iter().map(|port| (port.service_port, port.target_port)).collect()
}

fn names_changed(table: &mut Table, change: impl FnOnce(&mut Table)) -> Vec<String> {
    let before = table.snapshot().unwrap();
    change(table);
    let after = table.snapshot().unwrap();
    let changed = after.addresses.changed_since(&before.addresses).map(|(name, _)| name);
    let removed = after.addresses.removed_since(&before.addresses);
    let mut names: Vec<_> = changed.chain(removed).map(ToString::to_string).collect();
    names.sort();
    names
}

fn without_selector() -> ServiceFacts {
    ServiceFacts { selector: Default::default(), ..service("shop", "cart") }
}

fn slice(endpoints: Vec<EndpointFacts>) -> SliceFacts {
    SliceFacts {
        namespace: "shop".into(),
        name: "cart-x".into(),
        service: "cart".into(),
        ports: vec![SlicePort { name: "http".into(), port: 7000 }],
        endpoints,
    }
}

fn at(address: &str, target: Target) -> EndpointFacts {
    let addresses = vec![address.parse().unwrap()];
    EndpointFacts { addresses, target, health: Health::Ready, node: "n1".into() }
}

#[test]
fn pods_serve_the_services_that_select_them() {
    let mut table = complete();
    table.service_seen(service("shop", "cart"));
    for (namespace, name, app) in
        [("shop", "cart-1", "cart"), ("shop", "web-1", "web"), ("other", "cart-2", "cart")]
    {
        table.pod_seen(labelled(namespace, name, app));
    }
    assert_eq!(service_of(&table, CART).unwrap().name, "cart");
    assert_eq!(ports(&table, "shop/cart-1"), [(80, 8080)]);
    assert_eq!(ports(&table, "shop/web-1"), []);
    assert_eq!(ports(&table, "other/cart-2"), []);
    // The selector moves on, and the service goes.
    let web = [("app".to_owned(), "web".to_owned())].into();
    table.service_seen(ServiceFacts { selector: web, ..service("shop", "cart") });
    assert_eq!(ports(&table, "shop/cart-1"), []);
    assert_eq!(ports(&table, "shop/web-1"), [(80, 8080)]);
    table.service_gone("shop/cart");
    assert_eq!(ports(&table, "shop/web-1"), []);
    assert_eq!(service_of(&table, CART), None);
}

#[test]
fn a_change_touches_what_it_concerns_and_nothing_else() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    table.pod_seen(labelled("shop", "web-1", "web"));
    let changed = names_changed(&mut table, |table| table.service_seen(service("shop", "cart")));
    assert_eq!(changed, ["Kubernetes//Pod/shop/cart-1", CART]);
    let again = names_changed(&mut table, |table| table.service_seen(service("shop", "cart")));
    assert_eq!(again, [""; 0]);
    let changed = names_changed(&mut table, |table| {
        table.services_listed(vec![service("shop", "cart"), service("other", "cart")]);
    });
    assert_eq!(changed, ["other/cart.other.svc.cluster.local"]);
    let changed = names_changed(&mut table, |table| table.services_listed(vec![]));
    assert_eq!(changed.len(), 3, "both services, and the pod: {changed:?}");
}

#[test]
fn a_service_that_becomes_an_alias_is_withdrawn() {
    let mut table = complete();
    table.pod_seen(labelled("shop", "cart-1", "cart"));
    table.service_seen(service("shop", "cart"));
    let alias = ServiceFacts { kind: ServiceType::ExternalName, ..service("shop", "cart") };
    table.service_seen(alias);
    assert_eq!(service_of(&table, CART), None);
    assert_eq!(ports(&table, "shop/cart-1"), []);
}

#[test]
fn endpoints_that_are_no_pods_are_workloads_of_their_own() {
    let mut table = complete();
    let outside = slice(vec![at("192.0.2.7", Target::Address)]);
    table.slice_seen(outside.clone());
    assert_eq!(stranger(&table), None, "nobody's endpoint yet");
    table.service_seen(without_selector());
    let ports = &stranger(&table).unwrap().services[CART].ports;
    assert_eq!((ports[0].service_port, ports[0].target_port), (80, 7000));
    // The node that it is on turns out to be somewhere.
    let node = NodeFacts { name: "n1".into(), zone: "z".into(), ..NodeFacts::default() };
    table.node_seen(node);
    assert_eq!(stranger(&table).unwrap().locality.unwrap().zone, "z");
    table.slice_seen(slice(vec![]));
    assert_eq!(stranger(&table), None);
    table.slice_seen(outside);
    table.service_gone("shop/cart");
    assert_eq!(stranger(&table), None);
}

#[test]
fn pods_in_a_slice_serve_services_without_selector() {
    let mut table = complete();
    table.service_seen(without_selector());
    table.pod_seen(pod("shop", "cart-1"));
    table.slice_seen(slice(vec![at("10.0.0.9", Target::Pod("cart-1".into()))]));
    assert_eq!(ports(&table, "shop/cart-1"), [(80, 7000)], "by name");
    table.slice_seen(slice(vec![at("10.0.0.1", Target::Address)]));
    assert_eq!(ports(&table, "shop/cart-1"), [(80, 7000)], "by address");
    table.slice_gone("shop/cart-x");
    assert_eq!(ports(&table, "shop/cart-1"), []);
    table.slice_seen(slice(vec![at("10.0.0.1", Target::Pod("not seen yet".into()))]));
    assert_eq!(table.snapshot().unwrap().addresses.iter().count(), 2, "the pod and the service");
}

#[test]
fn where_a_selector_decides_slices_do_not() {
    let mut table = complete();
    table.service_seen(service("shop", "cart"));
    table.pod_seen(labelled("shop", "web-1", "web"));
    table.slice_seen(slice(vec![at("10.0.0.1", Target::Pod("web-1".into()))]));
    assert_eq!(ports(&table, "shop/web-1"), []);
}

#[test]
fn an_address_is_a_pods_or_a_strangers_but_never_both() {
    let mut table = complete();
    table.service_seen(without_selector());
    table.slice_seen(slice(vec![at("192.0.2.7", Target::Address)]));
    assert!(stranger(&table).is_some());
    let here = PodFacts { addresses: vec!["192.0.2.7".parse().unwrap()], ..pod("shop", "cart-1") };
    table.pod_seen(here.clone());
    assert_eq!(stranger(&table), None);
    assert_eq!(ports(&table, "shop/cart-1"), [(80, 7000)]);
    table.pod_seen(PodFacts { life: Life::Ended, ..here });
    assert!(stranger(&table).is_some());
    table.pod_gone("shop/cart-1");
    assert!(stranger(&table).is_some());
}

#[test]
fn pods_are_where_their_node_is() {
    let mut table = complete();
    table.pod_seen(pod("shop", "cart-1"));
    let zone = |table: &Table| {
        let workload = workload_of(table, "shop/cart-1").unwrap();
        workload.locality.map(|locality| locality.zone)
    };
    assert_eq!(zone(&table), None);
    let node =
        |zone: &str| NodeFacts { name: "n1".into(), zone: zone.into(), ..NodeFacts::default() };
    table.node_seen(node("a"));
    assert_eq!(zone(&table).as_deref(), Some("a"));
    table.nodes_listed(vec![node("b")]);
    assert_eq!(zone(&table).as_deref(), Some("b"));
    table.nodes_listed(vec![]);
    assert_eq!(zone(&table), None);
}
