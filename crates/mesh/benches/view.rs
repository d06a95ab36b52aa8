//! What a mesh costs: applying it, changing it, asking it, and its memory (the columns of
//! the allocation profiler; `max alloc` after a build is what the view holds).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use divan::{AllocProfiler, Bencher, black_box};
use mesh::proto::security::{self, Authorization, Clause, Match, Rule, string_match::MatchType};
use mesh::proto::workload as wds;
use mesh::{Connection, Home, Identity, LocalWorkload, Network, Policy, Service, View, Workload};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [u32; 2] = [10_000, 100_000];

/// Pods of one service.
const PODS: u32 = 10;

fn main() {
    divan::main();
}

fn ip(base: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(base + number)
}

fn pod_ip(number: u32) -> Ipv4Addr {
    ip(0x0a00_0001, number)
}

fn hostname(service: u32) -> String {
    format!("service-{service}.namespace-{}.svc.cluster.local", service % 200)
}

/// A pod as a cluster of some size has it: 200 namespaces, 30 pods on a node, a service
/// account for each service.
fn pod(number: u32) -> wds::Workload {
    let service = number / PODS;
    let namespace = format!("namespace-{}", service % 200);
    let name = format!("service-{service}-5d4f8c7b9d-{number:05x}");
    let port = wds::Port { service_port: 80, target_port: 8080, app_protocol: 0 };
    let ports = wds::PortList { ports: vec![port] };
    let locality = wds::Locality {
        region: "r1".into(),
        zone: format!("z{}", number / 30 % 3),
        subzone: String::new(),
    };
    wds::Workload {
        uid: format!("Kubernetes//Pod/{namespace}/{name}"),
        name,
        addresses: vec![pod_ip(number).octets().to_vec()],
        tunnel_protocol: wds::TunnelProtocol::Hbone as i32,
        service_account: format!("service-{service}"),
        node: format!("node-{}.cluster.internal", number / 30),
        canonical_name: format!("service-{service}"),
        canonical_revision: "v1".into(),
        workload_name: format!("service-{service}"),
        services: [(format!("{namespace}/{}", hostname(service)), ports)].into(),
        locality: Some(locality),
        namespace,
        ..Default::default()
    }
}

fn service(number: u32) -> wds::Service {
    let address = wds::NetworkAddress {
        address: ip(0x0ac0_0001, number).octets().to_vec(),
        ..Default::default()
    };
    wds::Service {
        name: format!("service-{number}"),
        namespace: format!("namespace-{}", number % 200),
        hostname: hostname(number),
        addresses: vec![address],
        ports: vec![wds::Port { service_port: 80, target_port: 8080, app_protocol: 0 }],
        canonical: true,
        ..Default::default()
    }
}

fn policy(number: u32) -> Policy {
    let value = format!("cluster.local/ns/namespace-{number}/sa/service-{number}");
    let principal = security::StringMatch { match_type: Some(MatchType::Exact(value)) };
    let matches = vec![Match { principals: vec![principal], ..Default::default() }];
    Policy::try_from(Authorization {
        name: format!("policy-{number}"),
        namespace: format!("namespace-{}", number % 200),
        scope: security::Scope::Namespace as i32,
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        ..Default::default()
    })
    .expect("a well-formed policy")
}

fn workload(number: u32) -> Workload {
    Workload::try_from(pod(number)).expect("a well-formed workload")
}

fn view(pods: u32) -> View {
    let mut view = View::default();
    for number in 0..pods / PODS {
        view.insert_service(Service::try_from(service(number)).expect("a well-formed service"));
    }
    for number in 0..pods {
        view.insert_workload(workload(number));
    }
    for number in 0..1000 {
        view.insert_policy(policy(number));
    }
    view
}

#[divan::bench(args = SIZES, sample_count = 3)]
fn apply_all(bencher: Bencher<'_, '_>, pods: u32) {
    bencher.bench_local(|| view(pods));
}

/// What publishing costs after a change: the published one is held by readers.
#[divan::bench(args = SIZES)]
fn change_one_and_clone(bencher: Bencher<'_, '_>, pods: u32) {
    let mut own = view(pods);
    let mut published = own.clone();
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % pods;
        own.insert_workload(workload(number));
        published = own.clone();
    });
    drop(published);
}

#[divan::bench(args = SIZES)]
fn clone(bencher: Bencher<'_, '_>, pods: u32) {
    let view = view(pods);
    bencher.bench_local(|| black_box(&view).clone());
}

#[divan::bench(args = SIZES)]
fn find_by_address(bencher: Bencher<'_, '_>, pods: u32) {
    let (view, network) = (view(pods), Network::from(""));
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % pods;
        view.by_address(&network, IpAddr::V4(pod_ip(number))).is_some()
    });
}

#[divan::bench(args = SIZES)]
fn find_service_at(bencher: Bencher<'_, '_>, pods: u32) {
    let (view, network) = (view(pods), Network::from(""));
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % (pods / PODS);
        let vip = IpAddr::V4(ip(0x0ac0_0001, number));
        view.service_at("namespace-1", &network, vip).is_some()
    });
}

#[divan::bench(args = SIZES)]
fn find_local(bencher: Bencher<'_, '_>, pods: u32) {
    let view = view(pods);
    let (workload, home) = (workload(pods / 2), Home::default());
    bencher.bench_local(|| {
        let pod = LocalWorkload {
            name: workload.name(),
            namespace: &workload.namespace,
            service_account: workload.identity.service_account(),
        };
        view.local(black_box(pod), &home).is_some()
    });
}

#[divan::bench]
fn authorize(bencher: Bencher<'_, '_>) {
    let view = view(10_000);
    let destination = view.workloads().next().expect("there are many");
    let connection = Connection {
        source: SocketAddr::new(pod_ip(1).into(), 40_000),
        identity: Identity::new("", "namespace-1", "service-1").ok(),
        destination: SocketAddr::new(pod_ip(2).into(), 8080),
    };
    bencher.bench_local(|| view.authorize(black_box(destination), black_box(&connection)));
}
