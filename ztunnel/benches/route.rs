//! What one decision costs, in a mesh of 10,000 pods.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use divan::{Bencher, black_box};
use mesh::{
    Gateway, GatewayDestination, Identity, LoadBalancing, Locality, Membership, Mode, Preference,
    Protocol, Service, ServiceAddress, ServiceKey, ServicePort, View, Workload,
};
use netns::OrigDst;
use ztunnel::route::{Request, Route, Sample, route};

const PODS: u32 = 10_000;

/// The services, and how many pods each has, one after the other.
const SERVICES: [(&str, u32); 6] =
    [("few", 10), ("many", 5_000), ("gated", 10), ("way", 2), ("near", 3_000), ("far", 1_900)];

fn main() {
    divan::main();
}

fn pod_ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + number).into()
}

fn vip(service: usize) -> IpAddr {
    Ipv4Addr::from([10, 96, 0, u8::try_from(service).expect("there are few") + 1]).into()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", name).expect("a good name")
}

fn service(number: usize, name: &str) -> Service {
    // The zone of "far" is one that the client is not in.
    let preferences = match name {
        "near" => vec![Preference::Network, Preference::Node],
        _ => vec![Preference::Network, Preference::Zone],
    };
    let way = GatewayDestination::Hostname(key("way"));
    let way = Gateway { destination: way, hbone_port: 15008 };
    Service {
        addresses: vec![ServiceAddress { network: "".into(), net: vip(number).into() }],
        ports: [80, 15008].map(|port| ServicePort { service_port: port, target_port: port }).into(),
        load_balancing: LoadBalancing { mode: Mode::Failover, preferences, ..Default::default() },
        waypoint: (name == "gated").then_some(way),
        ..Service::new(key(name))
    }
}

fn pod(number: u32) -> Workload {
    let mut first = 0;
    let of = SERVICES.iter().find(|(_, pods)| {
        first += pods;
        number < first
    });
    let member = |(name, _): &(&str, u32)| Membership { service: key(name), ports: Box::default() };
    let identity = Identity::new("", "shop", "cart").expect("a good name");
    Workload::new(&format!("uid-{number}"), "shop", &format!("pod-{number}"), identity).with(|it| {
        it.addresses = [pod_ip(number)].into_iter().collect();
        it.protocol = Protocol::Hbone;
        it.node = format!("node-{}", number % 500).into();
        if of.is_some_and(|(name, _)| *name == "far") {
            let zone = "elsewhere".into();
            it.locality = Locality { zone, ..Locality::default() }.into();
        }
        it.services = of.into_iter().map(member).collect();
    })
}

fn view() -> View {
    let mut view = View::default();
    for (number, (name, _)) in SERVICES.iter().enumerate() {
        view.insert_service(service(number, name));
    }
    for number in 0..PODS {
        view.insert_workload(pod(number));
    }
    view
}

fn decide(bencher: Bencher<'_, '_>, to: IpAddr, expected: fn(&Route) -> bool) {
    let view = view();
    let source = Arc::clone(view.workload("uid-9999").expect("it was inserted"));
    let request = Request {
        source: &source,
        client: source.addresses[0],
        dst: OrigDst((to, 80).into()),
        view: &view,
        sample: Sample { endpoint: u64::MAX / 2, ..Sample::default() },
    };
    assert!(expected(&route(&request)), "{:?}", route(&request));
    bencher.bench_local(|| route(black_box(&request)));
}

fn tunnelled(route: &Route) -> bool {
    matches!(route, Route::Tunnel(_))
}

#[divan::bench]
fn to_a_pod(bencher: Bencher<'_, '_>) {
    decide(bencher, pod_ip(7), tunnelled);
}

#[divan::bench]
fn to_a_service_of_10_pods(bencher: Bencher<'_, '_>) {
    decide(bencher, vip(0), tunnelled);
}

#[divan::bench]
fn to_a_service_of_5000_pods(bencher: Bencher<'_, '_>) {
    decide(bencher, vip(1), tunnelled);
}

#[divan::bench]
fn to_a_service_of_3000_pods_that_prefers_the_node(bencher: Bencher<'_, '_>) {
    decide(bencher, vip(4), tunnelled);
}

/// Nobody matches all preferences, so that all have to be looked at.
#[divan::bench]
fn to_a_service_of_1900_pods_in_another_zone(bencher: Bencher<'_, '_>) {
    decide(bencher, vip(5), tunnelled);
}

#[divan::bench]
fn to_a_service_with_a_waypoint(bencher: Bencher<'_, '_>) {
    decide(bencher, vip(2), tunnelled);
}

#[divan::bench]
fn to_nobody_we_know(bencher: Bencher<'_, '_>) {
    decide(bencher, Ipv4Addr::from([192, 0, 2, 1]).into(), |it| {
        matches!(it, Route::Passthrough(_))
    });
}
