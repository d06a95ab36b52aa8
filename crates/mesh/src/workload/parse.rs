//! From the message to the workload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Addresses, ApplicationTunnel, Health, Locality, Membership, PortMapping, Protocol, Shared,
    TunnelledProtocol, Workload, WorkloadKind,
};
use crate::gateway::{Gateway, GatewayError};
use crate::identity::{Identity, IdentityError};
use crate::policy::PolicyKey;
use crate::proto::workload as proto;
use crate::service::ServiceKey;

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
    /// A service name that is not `namespace/hostname`.
    #[error("workload {uid}: service {service:?} is not of the form namespace/hostname")]
    Service {
        /// Key of the resource.
        uid: String,
        /// The text found.
        service: String,
    },
    /// Larger than a port can be.
    #[error("workload {uid}: {port} is not a port")]
    Port {
        /// Key of the resource.
        uid: String,
        /// Number found.
        port: u32,
    },
    /// A waypoint that nobody could go to.
    #[error("workload {uid}: waypoint {source}")]
    Waypoint {
        /// Key of the resource.
        uid: String,
        /// What is wrong with it.
        source: GatewayError,
    },
    /// A way in that nobody could take.
    #[error("workload {uid}: network gateway {source}")]
    NetworkGateway {
        /// Key of the resource.
        uid: String,
        /// What is wrong with it.
        source: GatewayError,
    },
    /// A preface that Sluice does not write.
    #[error("workload {uid}: application tunnel {protocol} is not supported, NONE and PROXY are")]
    ApplicationTunnel {
        /// Key of the resource.
        uid: String,
        /// Number found.
        protocol: i32,
    },
}

impl TryFrom<proto::Workload> for Workload {
    type Error = WorkloadError;

    fn try_from(message: proto::Workload) -> Result<Self, Self::Error> {
        let Some(parts) = Parts::of(&message) else {
            return Err(WorkloadError::NoUid { namespace: message.namespace, name: message.name });
        };
        let identity = parts.identity(&message)?;
        let addresses = parts.addresses(&message.addresses)?;
        let protocol = parts.protocol(message.tunnel_protocol)?;
        let policies = parts.policies(&message.authorization_policies)?;
        let services = parts.services(&message.services)?;
        let application_tunnel =
            message.application_tunnel.map(|it| parts.application_tunnel(&it)).transpose()?;
        let uid = || message.uid.clone();
        let waypoint = message.waypoint.map(Gateway::try_from).transpose();
        let network_gateway = message.network_gateway.map(Gateway::try_from).transpose();
        let cluster =
            if message.cluster_id.is_empty() { "Kubernetes" } else { &message.cluster_id };
        let shared = Shared {
            waypoint: waypoint
                .map_err(|source| WorkloadError::Waypoint { uid: uid(), source })?
                .map(Box::new),
            network_gateway: network_gateway
                .map_err(|source| WorkloadError::NetworkGateway { uid: uid(), source })?
                .map(Box::new),
            network: message.network.into(),
            hostname: message.hostname.into(),
            protocol,
            native_tunnel: message.native_tunnel,
            host_network: message.network_mode == proto::NetworkMode::HostNetwork as i32,
            kind: parse_kind(message.workload_type),
            capacity: message.capacity.unwrap_or(1),
            application_tunnel,
            services,
            cluster: cluster.into(),
            canonical_name: message.canonical_name.into(),
            canonical_revision: message.canonical_revision.into(),
            owner: message.workload_name.into(),
            policies,
            namespace: message.namespace.into(),
            identity,
        };
        let mut workload = Self {
            uid: message.uid.into(),
            name: None,
            addresses,
            node: message.node.into(),
            locality: Arc::new(parse_locality(message.locality)),
            health: parse_health(message.status),
            shared: Arc::new(shared),
        };
        workload.rename(&message.name);
        Ok(workload)
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

/// Reads parts of a message; errors name the resource.
struct Parts {
    uid: String,
}

impl Parts {
    fn of(message: &proto::Workload) -> Option<Self> {
        (!message.uid.is_empty()).then(|| Self { uid: message.uid.clone() })
    }

    fn uid(&self) -> String {
        self.uid.clone()
    }

    fn identity(&self, message: &proto::Workload) -> Result<Identity, WorkloadError> {
        Identity::new(&message.trust_domain, &message.namespace, &message.service_account)
            .map_err(|source| WorkloadError::Identity { uid: self.uid(), source })
    }

    fn addresses(&self, addresses: &[Vec<u8>]) -> Result<Addresses, WorkloadError> {
        let error = |length| WorkloadError::Address { uid: self.uid(), length };
        addresses
            .iter()
            .map(|bytes| parse_address(bytes).ok_or_else(|| error(bytes.len())))
            .collect()
    }

    fn protocol(&self, protocol: i32) -> Result<Protocol, WorkloadError> {
        match proto::TunnelProtocol::try_from(protocol) {
            Ok(proto::TunnelProtocol::None) => Ok(Protocol::Plain),
            Ok(proto::TunnelProtocol::Hbone) => Ok(Protocol::Hbone),
            _ => Err(WorkloadError::Protocol { uid: self.uid(), protocol }),
        }
    }

    fn policies(&self, policies: &[String]) -> Result<Arc<[PolicyKey]>, WorkloadError> {
        let error = |text: &String| WorkloadError::Policy { uid: self.uid(), policy: text.clone() };
        policies.iter().map(|text| PolicyKey::parse(text).ok_or_else(|| error(text))).collect()
    }

    fn services(
        &self,
        services: &BTreeMap<String, proto::PortList>,
    ) -> Result<Arc<[Membership]>, WorkloadError> {
        let error =
            |text: &String| WorkloadError::Service { uid: self.uid(), service: text.clone() };
        services
            .iter()
            .map(|(text, list)| {
                let service = ServiceKey::parse(text).ok_or_else(|| error(text))?;
                Ok(Membership { service, ports: self.ports(list)? })
            })
            .collect()
    }

    fn ports(&self, list: &proto::PortList) -> Result<Box<[PortMapping]>, WorkloadError> {
        let mapping = |port: &proto::Port| {
            Ok(PortMapping {
                service_port: self.port(port.service_port)?,
                target_port: self.port(port.target_port)?,
            })
        };
        list.ports.iter().map(mapping).collect()
    }

    fn port(&self, port: u32) -> Result<u16, WorkloadError> {
        u16::try_from(port).map_err(|_| WorkloadError::Port { uid: self.uid(), port })
    }

    fn application_tunnel(
        &self,
        message: &proto::ApplicationTunnel,
    ) -> Result<ApplicationTunnel, WorkloadError> {
        let protocol = message.protocol;
        let protocol = match proto::application_tunnel::Protocol::try_from(protocol) {
            Ok(proto::application_tunnel::Protocol::None) => TunnelledProtocol::None,
            Ok(proto::application_tunnel::Protocol::Proxy) => TunnelledProtocol::Proxy,
            Err(_) => return Err(WorkloadError::ApplicationTunnel { uid: self.uid(), protocol }),
        };
        let port = Some(self.port(message.port)?).filter(|port| *port != 0);
        Ok(ApplicationTunnel { protocol, port })
    }
}

/// A state of a later version is hardly one in which traffic is wanted.
fn parse_health(number: i32) -> Health {
    match proto::WorkloadStatus::try_from(number) {
        Ok(proto::WorkloadStatus::Healthy) => Health::Healthy,
        Ok(proto::WorkloadStatus::Unhealthy) | Err(_) => Health::Unhealthy,
    }
}

/// Of use to telemetry only: what is not known stands for itself.
fn parse_kind(number: i32) -> WorkloadKind {
    match proto::WorkloadType::try_from(number) {
        Ok(proto::WorkloadType::Deployment) => WorkloadKind::Deployment,
        Ok(proto::WorkloadType::Cronjob) => WorkloadKind::CronJob,
        Ok(proto::WorkloadType::Job) => WorkloadKind::Job,
        Ok(proto::WorkloadType::Pod) | Err(_) => WorkloadKind::Pod,
    }
}

fn parse_locality(message: Option<proto::Locality>) -> Locality {
    let message = message.unwrap_or_default();
    Locality {
        region: message.region.into(),
        zone: message.zone.into(),
        subzone: message.subzone.into(),
    }
}

#[cfg(test)]
mod tests;
