//! Services, their endpoints, and the nodes these are on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Health;

/// A service, as far as the mesh is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) kind: ServiceType,
    /// Its virtual addresses; none for a headless one.
    pub(crate) addresses: Vec<IpAddr>,
    /// TCP ports only: nothing else is carried.
    pub(crate) ports: Vec<ServicePort>,
    /// Empty: its endpoints are those that somebody writes into its slices.
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) families: Families,
    pub(crate) distribution: Distribution,
    pub(crate) internal: Internal,
    pub(crate) unready: Unready,
}

impl ServiceFacts {
    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Does its selector select these labels? One without a selector selects nothing.
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.kind == ServiceType::Cluster
            && !self.selector.is_empty()
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What a service is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceType {
    /// Endpoints of the cluster.
    Cluster,
    /// An alias in DNS, and nothing else.
    ExternalName,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty where the service has only one.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
}

/// Where a service's port leads in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetPort {
    /// To the same port of all pods.
    Number(u16),
    /// To the port that the pod's containers call so.
    Name(String),
}

/// Address families of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    Unknown,
    V4,
    V6,
    Dual,
}

/// Which endpoints are preferred as long as there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Any,
    SameZone,
    SameNode,
}

/// Which endpoints may be used from inside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Internal {
    Cluster,
    /// Those on the client's node.
    Local,
}

/// What becomes of endpoints that are not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    LeftOut,
    Published,
}

/// An EndpointSlice of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Name of its service, in the same namespace.
    pub(crate) service: String,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<EndpointFacts>,
}

impl SliceFacts {
    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// `namespace/name` of its service.
    pub(crate) fn service_key(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }
}

/// A TCP port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    /// Of the service's port.
    pub(crate) name: String,
    /// The endpoints' own.
    pub(crate) port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointFacts {
    /// At least one.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) target: Target,
    pub(crate) health: Health,
    /// Empty where nobody says.
    pub(crate) node: String,
}

/// What an endpoint says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The pod of this name, in the slice's namespace.
    Pod(String),
    /// Whatever has its address.
    Address,
}

/// Where a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) subzone: String,
}
