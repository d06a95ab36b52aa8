//! Facts for tests.

use crate::facts::{
    Distribution, Families, Health, Internal, Life, PodFacts, PodNetwork, Reach, ServiceFacts,
    ServicePort, ServiceType, TargetPort, Unready,
};
use crate::translate::Names;

pub(crate) fn names() -> Names {
    Names {
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
        cluster_domain: "cluster.local".into(),
        root_namespace: "root".into(),
    }
}

/// A ready pod on node n1 with the address 10.0.0.1 and the service account cart.
pub(crate) fn pod(namespace: &str, name: &str) -> PodFacts {
    PodFacts {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        node: "n1".into(),
        service_account: "cart".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        network: PodNetwork::Own,
        life: Life::Active,
        health: Health::Ready,
        reach: Reach::Direct,
        labels: Default::default(),
        owner: None,
        ports: Default::default(),
    }
}

/// A service at 10.96.0.1 that selects `app: cart` and leads its port 80 to 8080.
pub(crate) fn service(namespace: &str, name: &str) -> ServiceFacts {
    ServiceFacts {
        namespace: namespace.into(),
        name: name.into(),
        kind: ServiceType::Cluster,
        addresses: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![port("http", 80, TargetPort::Number(8080))],
        selector: [("app".to_owned(), "cart".to_owned())].into(),
        families: Families::V4,
        distribution: Distribution::Any,
        internal: Internal::Cluster,
        unready: Unready::LeftOut,
    }
}

pub(crate) fn port(name: &str, port: u16, target: TargetPort) -> ServicePort {
    ServicePort { name: name.into(), port, target }
}
