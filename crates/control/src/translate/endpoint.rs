//! An endpoint of a slice that is no pod becomes a workload of its own.

use std::collections::BTreeMap;

use mesh::proto::workload::{Locality, NetworkMode, PortList, Workload, WorkloadType};

use super::Names;
use super::workload::{octets, status};
use crate::facts::{EndpointFacts, SliceFacts};

/// Key of the resource that an endpoint becomes.
pub(crate) fn endpoint_uid(names: &Names, slice: &SliceFacts, endpoint: &EndpointFacts) -> String {
    let (cluster, address) = (&names.cluster_id, endpoint.addresses[0]);
    let SliceFacts { namespace, name, .. } = slice;
    format!("{cluster}/discovery.k8s.io/EndpointSlice/{namespace}/{name}/{address}")
}

/// The workload of an endpoint of which nothing is known but its addresses. Others may
/// have them too, so it is found through its service only, and reached in clear text.
pub(crate) fn endpoint(
    names: &Names,
    slice: &SliceFacts,
    endpoint: &EndpointFacts,
    services: BTreeMap<String, PortList>,
    locality: Option<Locality>,
) -> Workload {
    Workload {
        uid: endpoint_uid(names, slice, endpoint),
        name: slice.name.clone(),
        namespace: slice.namespace.clone(),
        addresses: endpoint.addresses.iter().map(octets).collect(),
        trust_domain: names.trust_domain.clone(),
        cluster_id: names.cluster_id.clone(),
        node: endpoint.node.clone(),
        workload_type: WorkloadType::Pod as i32,
        workload_name: slice.name.clone(),
        canonical_name: slice.service.clone(),
        canonical_revision: "latest".to_owned(),
        status: status(endpoint.health) as i32,
        network_mode: NetworkMode::HostNetwork as i32,
        services,
        locality,
        ..Workload::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Health, Target};
    use crate::testing::names;

    #[test]
    fn an_endpoint_is_a_plain_workload_that_only_its_service_finds() {
        let outside = EndpointFacts {
            addresses: vec!["192.0.2.7".parse().unwrap()],
            target: Target::Address,
            health: Health::NotReady,
            node: String::new(),
        };
        let slice = SliceFacts {
            namespace: "shop".into(),
            name: "bank-1".into(),
            service: "bank".into(),
            ports: vec![],
            endpoints: vec![outside.clone()],
        };
        let name = "shop/bank.shop.svc.cluster.local".to_owned();
        let services = [(name, PortList::default())].into();
        let message = endpoint(&names(), &slice, &outside, services, None);
        assert_eq!(message.uid, "Kubernetes/discovery.k8s.io/EndpointSlice/shop/bank-1/192.0.2.7");
        assert_eq!(message.network_mode(), NetworkMode::HostNetwork);
        assert_eq!((message.tunnel_protocol, message.status), (0, 1));
        let parsed = mesh::Workload::try_from(message).unwrap();
        assert_eq!(parsed.services.len(), 1);
    }
}
