//! One workload, parsed.

use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::{Identity, IdentityError};
use crate::policy::PolicyKey;
use crate::proto::workload as proto;

/// Key of a workload resource.
pub type Uid = Arc<str>;

/// Name of a network: addresses are unique within one.
pub type Network = Arc<str>;

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain TCP: it is not in the mesh.
    Plain,
    /// Through an HBONE tunnel.
    Hbone,
}

/// Anything with an address that traffic can come from or go to; most often a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Key of the resource.
    pub uid: Uid,
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Trust domain, namespace and service account.
    pub identity: Identity,
    /// Its network.
    pub network: Network,
    /// Its addresses in that network.
    pub addresses: Vec<IpAddr>,
    /// How it is reached.
    pub protocol: Protocol,
    /// Shares its node's addresses; never found by them.
    pub host_network: bool,
    /// Node name.
    pub node: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Canonical name, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// Name of the owner (Deployment, Job, ...), for telemetry.
    pub owner: Arc<str>,
    /// Policies that select it.
    pub policies: Vec<PolicyKey>,
}

/// What is wrong with a workload resource; only that resource is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// No key.
    #[error("workload {namespace}/{name} without uid")]
    NoUid {
        /// Namespace, as far as known.
        namespace: String,
        /// Name, as far as known.
        name: String,
    },
    /// An address of neither 4 nor 16 bytes.
    #[error("workload {uid}: address of {length} bytes, 4 or 16 expected")]
    Address {
        /// Key of the resource.
        uid: String,
        /// Bytes found.
        length: usize,
    },
    /// A tunnel protocol that Sluice does not speak.
    #[error("workload {uid}: tunnel protocol {protocol} is not supported, NONE and HBONE are")]
    Protocol {
        /// Key of the resource.
        uid: String,
        /// Number found.
        protocol: i32,
    },
    /// Its identity is not well formed.
    #[error("workload {uid}: {source}")]
    Identity {
        /// Key of the resource.
        uid: String,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// A policy name that is not `namespace/name`.
    #[error("workload {uid}: policy {policy:?} is not of the form namespace/name")]
    Policy {
        /// Key of the resource.
        uid: String,
        /// The text found.
        policy: String,
    },
}

impl TryFrom<proto::Workload> for Workload {
    type Error = WorkloadError;

    fn try_from(message: proto::Workload) -> Result<Self, Self::Error> {
        let uid = message.uid.clone();
        if uid.is_empty() {
            return Err(WorkloadError::NoUid { namespace: message.namespace, name: message.name });
        }
        let identity =
            Identity::new(&message.trust_domain, &message.namespace, &message.service_account)
                .map_err(|source| WorkloadError::Identity { uid: uid.clone(), source })?;
        let addresses = message
            .addresses
            .iter()
            .map(|bytes| {
                parse_address(bytes)
                    .ok_or_else(|| WorkloadError::Address { uid: uid.clone(), length: bytes.len() })
            })
            .collect::<Result<_, _>>()?;
        let policies = message
            .authorization_policies
            .iter()
            .map(|text| {
                PolicyKey::parse(text)
                    .ok_or_else(|| WorkloadError::Policy { uid: uid.clone(), policy: text.clone() })
            })
            .collect::<Result<_, _>>()?;
        let protocol = parse_protocol(&uid, message.tunnel_protocol)?;
        let cluster =
            if message.cluster_id.is_empty() { "Kubernetes" } else { &message.cluster_id };
        Ok(Self {
            uid: uid.into(),
            name: message.name.into(),
            namespace: message.namespace.into(),
            identity,
            network: message.network.into(),
            addresses,
            protocol,
            host_network: message.network_mode == proto::NetworkMode::HostNetwork as i32,
            node: message.node.into(),
            cluster: cluster.into(),
            canonical_name: message.canonical_name.into(),
            canonical_revision: message.canonical_revision.into(),
            owner: message.workload_name.into(),
            policies,
        })
    }
}

/// Reads an address of 4 or 16 bytes; an IPv4-mapped one becomes IPv4.
pub(crate) fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(v6).to_canonical())
}

fn parse_protocol(uid: &str, protocol: i32) -> Result<Protocol, WorkloadError> {
    match proto::TunnelProtocol::try_from(protocol) {
        Ok(proto::TunnelProtocol::None) => Ok(Protocol::Plain),
        Ok(proto::TunnelProtocol::Hbone) => Ok(Protocol::Hbone),
        _ => Err(WorkloadError::Protocol { uid: uid.to_owned(), protocol }),
    }
}
