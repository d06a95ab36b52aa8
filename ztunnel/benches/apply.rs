//! What it costs to decode a response of a large mesh and to apply it to the view.
//!
//! `cargo bench -p ztunnel --bench apply`
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::{Bencher, black_box};
use mesh::View;
use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use mesh::proto::workload::{Address, PortList, Service, Workload, address};
use mesh::proto::{ADDRESS_TYPE, workload as wds};
use prost::Message;
use prost_types::Any;
use ztunnel::source::state::State;
use ztunnel::source::wire::Envelope;
use ztunnel::source::{MassRemoval, Rules, Scope};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const RULES: Rules =
    Rules { scope: Scope::Everything, mass_removal: MassRemoval::Hold(Duration::from_secs(60)) };

fn resource(name: String, version: usize, content: address::Type) -> Resource {
    let address = Address { r#type: Some(content) };
    let body = Any { type_url: ADDRESS_TYPE.to_owned(), value: address.encode_to_vec() };
    Resource { name, version: version.to_string(), resource: Some(body), ..Resource::default() }
}

/// Ten workloads to a service and a service account, a hundred to a node.
fn workload(i: usize, version: usize) -> Resource {
    let (group, uid) = (i / 10, format!("Kubernetes//Pod/ns{}/app{}-{i}", i / 1000, i / 10));
    let ports = PortList { ports: vec![port()] };
    let workload = Workload {
        uid: uid.clone(),
        name: format!("app{group}-{i}"),
        namespace: format!("ns{}", i / 1000),
        service_account: format!("app{group}"),
        addresses: vec![u32::try_from(0x0a00_0000 + i).unwrap().to_be_bytes().to_vec()],
        tunnel_protocol: wds::TunnelProtocol::Hbone as i32,
        node: format!("node{}", i / 100),
        canonical_name: format!("app{group}"),
        canonical_revision: "latest".to_owned(),
        workload_name: format!("app{group}"),
        services: [(service_name(group), ports)].into(),
        cluster_id: "Kubernetes".to_owned(),
        ..Workload::default()
    };
    resource(uid, version, address::Type::Workload(workload))
}

fn service_name(group: usize) -> String {
    format!("ns{0}/app{group}.ns{0}.svc.cluster.local", group / 100)
}

fn service(group: usize) -> Resource {
    let name = service_name(group);
    let (namespace, hostname) = name.split_once('/').unwrap();
    let vip = u32::try_from(0x0b00_0000 + group).unwrap().to_be_bytes().to_vec();
    let service = Service {
        name: format!("app{group}"),
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vec![wds::NetworkAddress { address: vip, ..Default::default() }],
        ports: vec![port()],
        ..Service::default()
    };
    resource(name, 1, address::Type::Service(service))
}

fn port() -> wds::Port {
    wds::Port { service_port: 80, target_port: 8080, ..Default::default() }
}

fn response(resources: Vec<Resource>) -> Bytes {
    let type_url = ADDRESS_TYPE.to_owned();
    DeltaDiscoveryResponse { type_url, resources, ..Default::default() }.encode_to_vec().into()
}

fn mesh_of(workloads: usize) -> Bytes {
    let workload = (0..workloads).map(|i| workload(i, 1));
    response((0..workloads / 10).map(service).chain(workload).collect())
}

fn apply(state: &mut State, response: Bytes) {
    let outcome = state.on(Envelope::decode(response).unwrap(), Instant::now());
    assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
}

/// The first response.
#[divan::bench(args = [10_000, 100_000], sample_count = 5)]
fn everything(bencher: Bencher<'_, '_>, workloads: usize) {
    let response = mesh_of(workloads);
    bencher.with_inputs(|| (State::new(RULES, View::default()), response.clone())).bench_values(
        |(mut state, response)| {
            apply(&mut state, response);
            black_box(state)
        },
    );
}

/// A later response about 2,700 of 100,000 workloads, while others hold the former view.
#[divan::bench(sample_count = 20)]
fn one_large_update(bencher: Bencher<'_, '_>) {
    let mut state = State::new(RULES, View::default());
    apply(&mut state, mesh_of(100_000));
    let updates = [2, 3].map(|version| response((0..2700).map(|i| workload(i, version)).collect()));
    let mut turn = 0;
    let mut former = state.view().clone();
    bencher.bench_local(|| {
        turn += 1;
        apply(&mut state, updates[turn % 2].clone());
        former = state.view().clone();
    });
    black_box(former);
}
