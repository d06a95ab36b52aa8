//! The decisions in one line each.

mod gateways;
mod oracle;
mod services;
mod workloads;

use std::net::SocketAddr;

use mesh::{
    Gateway, GatewayDestination, Membership, PortMapping, Protocol, ServiceAddress, ServicePort,
};

use super::*;

fn key(text: &str) -> ServiceKey {
    ServiceKey::parse(text).unwrap()
}

fn pod(name: &str, addresses: &[&str], protocol: Protocol) -> Workload {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    Workload::new(&uid, "shop", name, Identity::new("", "shop", name).unwrap()).with(|it| {
        it.addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        it.protocol = protocol;
    })
}

/// In the mesh, and an endpoint of `shop/<service>`.
fn backend(name: &str, addresses: &[&str], service: &str) -> Workload {
    let ports = Box::default();
    pod(name, addresses, Protocol::Hbone)
        .with(|it| it.services = [Membership { service: key(service), ports }].into())
}

/// Maps ports of the one service that it is an endpoint of.
fn mapping(workload: Workload, ports: &[(u16, u16)]) -> Workload {
    let [membership] = &*workload.services else { panic!("one service") };
    let mapping = |&(service_port, target_port)| PortMapping { service_port, target_port };
    let ports = ports.iter().map(mapping).collect();
    let services = [Membership { ports, ..membership.clone() }].into();
    workload.with(|it| it.services = services)
}

/// At this address of its network, with port 80 for 8080 of its workloads.
fn service(name: &str, net: &str) -> Service {
    let (network, net) = net.split_once('|').unwrap_or(("", net));
    Service {
        addresses: vec![ServiceAddress { network: network.into(), net: net.parse().unwrap() }],
        ports: [ServicePort { service_port: 80, target_port: 8080 }].into(),
        ..Service::new(key(name))
    }
}

fn named(name: &str) -> Gateway {
    Gateway { destination: GatewayDestination::Hostname(key(name)), hbone_port: 15008 }
}

fn at(network: &str, ip: &str, hbone_port: u16) -> Gateway {
    let (network, ip) = (network.into(), ip.parse().unwrap());
    Gateway { destination: GatewayDestination::Address { network, ip }, hbone_port }
}

fn view(services: Vec<Service>, workloads: Vec<Workload>) -> View {
    let mut view = View::default();
    services.into_iter().for_each(|service| view.insert_service(service));
    workloads.into_iter().for_each(|workload| view.insert_workload(workload));
    view
}

fn client() -> Workload {
    pod("client", &["10.0.0.1", "fd00::1"], Protocol::Hbone)
}

fn reject(view: &mut View, uid: &str, ip: [u8; 4]) {
    let addresses = vec![ip.to_vec()];
    let message = mesh::proto::workload::Workload { addresses, ..Default::default() };
    view.reject_workload(uid, &message);
}

/// The decision about what this source dials from its first address.
fn decide_for(source: &Workload, dst: &str, view: &View, sample: Sample) -> String {
    let client = source.addresses[0];
    let dst = OrigDst(dst.parse().unwrap());
    line(route(&Request { source, client, dst, view, sample }))
}

fn decide(dst: &str, view: &View) -> String {
    decide_for(&client(), dst, view, Sample::default())
}

fn names(identities: &[Identity]) -> String {
    identities.iter().map(Identity::service_account).collect::<Vec<_>>().join("+")
}

fn line(route: Route) -> String {
    let of = |service: Option<Arc<Service>>| {
        service.map_or_else(String::new, |service| format!(" of {}", service.key))
    };
    match route {
        Route::Tunnel(Tunnel { peer, service, authority, expected, reach }) => {
            assert_eq!(expected[0], peer.identity);
            let reach = match reach {
                Reach::Direct(place) => place.to_string(),
                Reach::Through(GatewayHop { peer, place, expected }) => {
                    assert_eq!(expected[0], peer.identity);
                    format!("{place} ({})", names(&expected))
                }
            };
            let (expected, of) = (names(&expected), of(service));
            format!("tunnel {expected} {authority} via {reach}{of}")
        }
        Route::Passthrough(Passthrough { dst, peer, service, reason }) => {
            let peer = peer.as_ref().map_or("-", |p| p.name());
            format!("pass {dst} {peer} {reason:?}{}", of(service))
        }
        Route::Refuse(refusal) => format!("refuse {}: {refusal}", refusal.name()),
    }
}
