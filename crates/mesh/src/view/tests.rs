use std::net::IpAddr;

use super::*;
use crate::{Identity, Network, Protocol};

fn pod(uid: &str, ip: &str) -> Workload {
    Workload::new(uid, "shop", uid, Identity::new("", "shop", "cart").unwrap()).with(|it| {
        it.addresses = [ip.parse().unwrap()].into_iter().collect();
        it.protocol = Protocol::Hbone;
    })
}

#[test]
fn an_address_belongs_to_whoever_took_it_last() {
    let mut view = View::default();
    let network: Network = "".into();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    view.insert_workload(pod("old", "10.0.0.1"));
    view.insert_workload(pod("new", "10.0.0.1"));
    view.remove_workload("old");
    assert_eq!(&**view.by_address(&network, ip).unwrap().uid(), "new");
    view.insert_workload(pod("new", "10.0.0.2"));
    assert!(view.by_address(&network, ip).is_none(), "the former address is forgotten");
}

#[test]
fn a_host_network_workload_is_never_found_by_address() {
    let mut view = View::default();
    view.insert_workload(pod("a", "10.0.0.1").with(|it| it.host_network = true));
    assert!(view.by_address(&"".into(), "10.0.0.1".parse().unwrap()).is_none());
    assert!(view.workload("a").is_some());
}

#[test]
fn a_mapped_address_is_the_ipv4_one() {
    let mut view = View::default();
    view.insert_workload(pod("a", "10.0.0.1"));
    assert!(view.by_address(&"".into(), "::ffff:10.0.0.1".parse().unwrap()).is_some());
}

fn local<'a>(view: &'a View, names: [&str; 3]) -> Option<&'a str> {
    let [name, namespace, service_account] = names;
    let pod = LocalWorkload { name, namespace, service_account };
    view.local(pod, &Home::default()).map(|workload| &**workload.uid())
}

#[test]
fn a_pod_is_found_by_all_its_names() {
    let mut view = View::default();
    view.insert_workload(pod("a", "10.0.0.1"));
    assert_eq!(local(&view, ["a", "shop", "cart"]), Some("a"));
    for others in [["b", "shop", "cart"], ["a", "bank", "cart"], ["a", "shop", "till"]] {
        assert_eq!(local(&view, others), None, "{others:?}");
    }
    view.insert_workload(
        pod("a", "10.0.0.1").with(|it| it.identity = Identity::new("", "shop", "till").unwrap()),
    );
    assert_eq!(local(&view, ["a", "shop", "cart"]), None, "the former name");
    assert_eq!(local(&view, ["a", "shop", "till"]), Some("a"));
    view.remove_workload("a");
    assert_eq!(local(&view, ["a", "shop", "till"]), None);
}

/// Stateful sets have pods of the same names in all clusters of a mesh.
#[test]
fn a_pod_is_not_taken_for_its_namesake_elsewhere() {
    let named = |uid: &str, node: &str| {
        let identity = Identity::new("", "shop", "db").unwrap();
        Workload::new(uid, "shop", "db-0", identity).with(|it| it.node = node.into())
    };
    let ours = named("c1//Pod/shop/db-0", "n1");
    let entry = named("c1/networking.istio.io/WorkloadEntry/shop/db-0", "");
    let theirs = named("c2//Pod/shop/db-0", "m1");
    let home = Home { cluster: "c1".into(), node: "n1".into() };
    let pod = LocalWorkload { name: "db-0", namespace: "shop", service_account: "db" };
    let found = |view: &View| view.local(pod, &home).map(|it| it.uid().to_string());
    let all = [&ours, &entry, &theirs];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut view = View::default();
        order.iter().for_each(|number| view.insert_workload(all[*number].clone()));
        assert_eq!(found(&view).as_deref(), Some(&**ours.uid()), "{order:?}");
    }
    let mut view = View::default();
    view.insert_workload(theirs);
    assert_eq!(found(&view), None, "ours has not come yet");
    // Who has another idea of the cluster's name is found by the node.
    view.insert_workload(named("c3//Pod/shop/db-0", "n1"));
    assert_eq!(found(&view).as_deref(), Some("c3//Pod/shop/db-0"));
}

#[test]
fn an_address_of_two_goes_back_to_the_one_that_stays() {
    let mut view = View::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    view.insert_workload(pod("stays", "10.0.0.1"));
    view.insert_workload(pod("goes", "10.0.0.1"));
    view.remove_workload("goes");
    let holder = view.by_address(&"".into(), ip).map(|it| &**it.uid());
    assert_eq!(holder, Some("stays"), "unknown would mean clear text");
}

#[test]
fn news_of_an_ending_pod_do_not_take_its_address_out_of_the_mesh() {
    let mut view = View::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let ending = pod("ending", "10.0.0.1").with(|it| it.protocol = Protocol::Plain);
    view.insert_workload(ending.clone());
    view.insert_workload(pod("new", "10.0.0.1"));
    view.insert_workload(ending);
    let holder = view.by_address(&"".into(), ip).map(|it| &**it.uid());
    assert_eq!(holder, Some("new"), "the other would mean clear text");
    view.remove_workload("new");
    let holder = view.by_address(&"".into(), ip).map(|it| &**it.uid());
    assert_eq!(holder, Some("ending"));
}

#[test]
fn a_rejected_workload_keeps_the_addresses_that_can_be_read() {
    let mut view = View::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let message =
        proto::Workload { addresses: vec![vec![1, 2, 3], vec![10, 0, 0, 1]], ..Default::default() };
    view.reject_workload("a", &message);
    view.reject_workload("a", &message);
    assert_eq!(&**view.rejected_at(&"".into(), ip).unwrap(), "a");
    assert!(view.rejected_at(&"other".into(), ip).is_none());
    assert!(view.by_address(&"".into(), ip).is_none());
    view.insert_workload(pod("a", "10.0.0.1"));
    assert!(view.rejected_at(&"".into(), ip).is_none(), "a usable one");
    view.reject_workload("a", &message);
    assert!(view.by_address(&"".into(), ip).is_some(), "stays in use");
    view.remove_workload("a");
    assert!(view.rejected_at(&"".into(), ip).is_none(), "it is gone");
}

#[test]
fn a_rejected_host_network_workload_has_no_address() {
    let mut view = View::default();
    let message = proto::Workload {
        addresses: vec![vec![10, 0, 0, 1]],
        network_mode: proto::NetworkMode::HostNetwork as i32,
        ..Default::default()
    };
    view.reject_workload("a", &message);
    let ip = "10.0.0.1".parse().unwrap();
    assert!(view.rejected_at(&"".into(), ip).is_none());
}
