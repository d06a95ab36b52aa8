//! Facts for tests.

use crate::facts::{Health, Life, PodFacts, PodNetwork, Reach};
use crate::translate::Names;

pub(crate) fn names() -> Names {
    Names {
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
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
    }
}
