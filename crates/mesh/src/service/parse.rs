//! From the message to the service.

use ipnetwork::IpNetwork;

use super::{
    HealthPolicy, IpFamilies, LoadBalancing, Mode, Preference, Service, ServiceAddress, ServiceKey,
    ServicePort, Visibility,
};
use crate::gateway::{Gateway, GatewayError};
use crate::proto::workload as proto;
use crate::workload::parse_address;

/// What is wrong with a service resource; only that resource is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Namespace and hostname are its key.
    #[error("service {namespace:?}/{hostname:?} has no usable key")]
    Key {
        /// Namespace found.
        namespace: String,
        /// Hostname found.
        hostname: String,
    },
    /// Not an address of 4 or 16 bytes, or a prefix longer than it.
    #[error("service {key}: address of {length} bytes with prefix {prefix:?} cannot be one")]
    Address {
        /// Key of the resource.
        key: ServiceKey,
        /// Bytes found.
        length: usize,
        /// Prefix found.
        prefix: Option<u32>,
    },
    /// Larger than a port can be.
    #[error("service {key}: {port} is not a port")]
    Port {
        /// Key of the resource.
        key: ServiceKey,
        /// Number found.
        port: u32,
    },
    /// A waypoint that nobody could go to.
    #[error("service {key}: waypoint {source}")]
    Waypoint {
        /// Key of the resource.
        key: ServiceKey,
        /// What is wrong with it.
        source: GatewayError,
    },
    /// It may be a rule about where traffic must not go.
    #[error("service {key}: load balancing mode {mode} is not known")]
    Mode {
        /// Key of the resource.
        key: ServiceKey,
        /// Number found.
        mode: i32,
    },
    /// A condition that every endpoint has to meet, and nobody could tell which do.
    #[error("service {key}: strict load balancing by scope {scope}, which is not known")]
    Scope {
        /// Key of the resource.
        key: ServiceKey,
        /// Number found.
        scope: i32,
    },
}

impl TryFrom<proto::Service> for Service {
    type Error = ServiceError;

    /// What a later version of the protocol may add is passed over where that leaves the
    /// service stricter or as it was, and rejected where it might not.
    fn try_from(message: proto::Service) -> Result<Self, Self::Error> {
        let key = ServiceKey::new(&message.namespace, &message.hostname);
        let Some(key) = key else {
            let (namespace, hostname) = (message.namespace, message.hostname);
            return Err(ServiceError::Key { namespace, hostname });
        };
        let waypoint_error = |source| ServiceError::Waypoint { key: key.clone(), source };
        let waypoint =
            message.waypoint.map(Gateway::try_from).transpose().map_err(waypoint_error)?;
        let weighted = message.weighted_waypoints.into_iter().map(|it| {
            let gateway = it.destination.ok_or(GatewayError::NoDestination)?;
            Ok((Gateway::try_from(gateway)?, it.weight))
        });
        let weighted_waypoints = weighted.collect::<Result<_, _>>().map_err(waypoint_error)?;
        let load_balancing = message.load_balancing.map(|it| parse_load_balancing(&key, &it));
        // Nobody who answers could prove a name that is no identity, so such a name is
        // left out: services of other meshes have them for their own use.
        let names = message.subject_alt_names.iter().filter_map(|text| text.parse().ok());
        let addresses = message.addresses.iter();
        Ok(Self {
            name: message.name.into(),
            addresses: addresses
                .map(|it| parse_service_address(it).ok_or_else(|| address_error(&key, it)))
                .collect::<Result<_, _>>()?,
            ports: parse_ports(&key, &message.ports)?,
            subject_alt_names: names.collect(),
            waypoint,
            weighted_waypoints,
            load_balancing: load_balancing.transpose()?.unwrap_or_default(),
            ip_families: parse_families(message.ip_families),
            canonical: message.canonical,
            visibility: parse_visibility(message.visibility),
            key,
        })
    }
}

/// Reads an address or a range; bits behind the prefix are dropped.
pub(crate) fn parse_service_address(message: &proto::NetworkAddress) -> Option<ServiceAddress> {
    let ip = parse_address(&message.address)?;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    // An IPv4 address in 16 bytes has a prefix of that length.
    let mapped = if ip.is_ipv4() && message.address.len() == 16 { 96 } else { 0 };
    let prefix = match message.length {
        Some(length) => u8::try_from(length.checked_sub(mapped)?).ok()?,
        None => whole,
    };
    let net = IpNetwork::new(ip, prefix).ok()?;
    let net = IpNetwork::new(net.network(), prefix).ok()?;
    Some(ServiceAddress { network: message.network.as_str().into(), net })
}

pub(crate) fn parse_visibility(number: i32) -> Visibility {
    match proto::Visibility::try_from(number) {
        Ok(proto::Visibility::Namespace) => Visibility::Namespace,
        Ok(proto::Visibility::Public) | Err(_) => Visibility::Public,
    }
}

fn address_error(key: &ServiceKey, message: &proto::NetworkAddress) -> ServiceError {
    let (length, prefix) = (message.address.len(), message.length);
    ServiceError::Address { key: key.clone(), length, prefix }
}

fn parse_ports(
    key: &ServiceKey,
    ports: &[proto::Port],
) -> Result<Box<[ServicePort]>, ServiceError> {
    let number =
        |port| u16::try_from(port).map_err(|_| ServiceError::Port { key: key.clone(), port });
    let parse = |port: &proto::Port| {
        let (service_port, target_port) = (number(port.service_port)?, number(port.target_port)?);
        Ok(ServicePort { service_port, target_port })
    };
    ports.iter().map(parse).collect()
}

fn parse_load_balancing(
    key: &ServiceKey,
    message: &proto::LoadBalancing,
) -> Result<LoadBalancing, ServiceError> {
    let mode = match proto::load_balancing::Mode::try_from(message.mode) {
        Ok(proto::load_balancing::Mode::UnspecifiedMode) => Mode::Unspecified,
        Ok(proto::load_balancing::Mode::Strict) => Mode::Strict,
        Ok(proto::load_balancing::Mode::Failover) => Mode::Failover,
        Ok(proto::load_balancing::Mode::Passthrough) => Mode::Passthrough,
        Err(_) => return Err(ServiceError::Mode { key: key.clone(), mode: message.mode }),
    };
    let mut preferences = Vec::new();
    for &scope in &message.routing_preference {
        match parse_preference(scope) {
            Some(preference) => preferences.push(preference),
            None if mode == Mode::Strict => {
                return Err(ServiceError::Scope { key: key.clone(), scope });
            }
            // Matches are counted up to the first that is missing, and nobody can tell
            // who matches this one: those after it do not count.
            None => break,
        }
    }
    let health = match proto::load_balancing::HealthPolicy::try_from(message.health_policy) {
        Ok(proto::load_balancing::HealthPolicy::AllowAll) => HealthPolicy::AllowAll,
        Ok(proto::load_balancing::HealthPolicy::OnlyHealthy) | Err(_) => HealthPolicy::OnlyHealthy,
    };
    Ok(LoadBalancing { mode, preferences, health })
}

fn parse_preference(scope: i32) -> Option<Preference> {
    use proto::load_balancing::Scope;
    match Scope::try_from(scope).ok()? {
        Scope::UnspecifiedScope => None,
        Scope::Region => Some(Preference::Region),
        Scope::Zone => Some(Preference::Zone),
        Scope::Subzone => Some(Preference::Subzone),
        Scope::Node => Some(Preference::Node),
        Scope::Cluster => Some(Preference::Cluster),
        Scope::Network => Some(Preference::Network),
    }
}

fn parse_families(number: i32) -> IpFamilies {
    match proto::IpFamilies::try_from(number) {
        Ok(proto::IpFamilies::Ipv4Only) => IpFamilies::V4,
        Ok(proto::IpFamilies::Ipv6Only) => IpFamilies::V6,
        Ok(proto::IpFamilies::Dual) => IpFamilies::Dual,
        Ok(proto::IpFamilies::Automatic) | Err(_) => IpFamilies::Automatic,
    }
}

#[cfg(test)]
mod tests;
