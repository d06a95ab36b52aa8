//! The dump is read by a program of others, so it is compared as a whole.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use mesh::proto::security as authz;
use mesh::{
    Gateway, GatewayDestination, Identity, LoadBalancing, Locality, Membership, Mode, Policy,
    PortMapping, Preference, Protocol, Service, ServiceAddress, ServiceKey, ServicePort, View,
    Visibility, Workload,
};
use serde_json::json;

use super::*;
use crate::telemetry::{Direction, OpenConnection, Security};
use crate::workloads::PodState;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", &format!("{name}.shop.svc.cluster.local")).unwrap()
}

fn view() -> View {
    let mut view = View::default();
    let waypoint = Gateway {
        destination: GatewayDestination::Address {
            network: "n1".into(),
            ip: "10.96.0.9".parse().unwrap(),
        },
        hbone_port: 15008,
    };
    let named = GatewayDestination::Hostname(key("gate"));
    view.insert_service(Service {
        name: "cart".into(),
        addresses: ["10.96.0.1/32", "10.97.0.0/16"]
            .map(|net| ServiceAddress { network: "n1".into(), net: net.parse().unwrap() })
            .into(),
        visibility: Visibility::Namespace,
        ports: [ServicePort { service_port: 80, target_port: 8080 }].into(),
        waypoint: Some(Gateway { destination: named, hbone_port: 15008 }),
        load_balancing: LoadBalancing {
            mode: Mode::Failover,
            preferences: vec![Preference::Region, Preference::Zone],
            ..LoadBalancing::default()
        },
        ..Service::new(key("cart"))
    });
    let identity = Identity::new("", "shop", "cart").unwrap();
    let ports = [PortMapping { service_port: 80, target_port: 8080 }].into();
    view.insert_workload(
        Workload::new("Kubernetes//Pod/shop/cart-v1-a", "shop", "cart-v1-a", identity).with(|it| {
            it.network = "n1".into();
            it.addresses =
                ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into_iter().collect();
            it.protocol = Protocol::Hbone;
            it.waypoint = Some(Box::new(waypoint));
            it.services = [Membership { service: key("cart"), ports }].into();
            it.locality = Locality { region: "r1".into(), ..Locality::default() }.into();
            it.node = "node-1".into();
            it.canonical_name = "cart".into();
            it.canonical_revision = "v1".into();
            it.owner = "cart-v1".into();
            it.policies = [policy().key().clone()].into();
        }),
    );
    view.insert_policy(policy());
    view
}

fn policy() -> Policy {
    let text = |match_type| authz::StringMatch { match_type: Some(match_type) };
    let one = authz::Match {
        principals: vec![
            text(authz::string_match::MatchType::Presence(authz::Empty {})),
            text(authz::string_match::MatchType::Prefix("cluster.local/".to_owned())),
        ],
        not_namespaces: vec![text(authz::string_match::MatchType::Exact("bank".to_owned()))],
        source_ips: vec![authz::Address { address: vec![10, 0, 0, 0], length: 8 }],
        not_destination_ports: vec![22],
        service_accounts: vec![authz::ServiceAccountMatch {
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
        }],
        ..Default::default()
    };
    let clause = authz::Clause { matches: vec![one] };
    Policy::try_from(authz::Authorization {
        name: "only-web".to_owned(),
        namespace: "shop".to_owned(),
        scope: authz::Scope::WorkloadSelector as i32,
        action: authz::Action::Allow as i32,
        rules: vec![authz::Rule { clauses: vec![clause] }],
        ..Default::default()
    })
    .unwrap()
}

fn pods() -> PodStates {
    let info = zds::WorkloadInfo {
        name: "cart-v1-a".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
    };
    let waiting = zds::WorkloadInfo { name: "late".to_owned(), ..info.clone() };
    let open = |direction, service| OpenConnection {
        direction,
        src: "10.0.0.7:40000".parse().unwrap(),
        dst: "10.0.0.1:8080".parse().unwrap(),
        service,
        dialled: "10.0.1.1:80".parse().unwrap(),
        hbone_addr: Some("10.0.0.1:15008".parse().unwrap()),
        security: Security::MutualTls,
    };
    let all = vec![open(Direction::Inbound, None), open(Direction::Outbound, Some(key("cart")))];
    let pods = BTreeMap::from([
        ("uid-1".to_owned(), (info, PodState::Up, Default::default())),
        ("uid-2".to_owned(), (waiting, PodState::Pending(None), Default::default())),
    ]);
    pod_states(pods, HashMap::from([(("shop".into(), "cart-v1-a".into()), all)]))
}

#[test]
fn the_dump_has_the_shape_that_istioctl_reads() {
    let view = view();
    let found = serde_json::to_string_pretty(&Document {
        workloads: workloads(&view),
        services: services(&view),
        policies: policies(&view),
        staged_services: Map::new(),
        certificates: Vec::new(),
        config: &json!({ "localNode": "node-1" }),
        version: Version { version: "0.0.0", build_profile: "test" },
        static_config: StaticConfig::default(),
        workload_state: Some(pods()),
        view_complete: true,
    })
    .unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/dump/golden.json");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, golden.trim_end(), "{} has another dump", path.display());
}
