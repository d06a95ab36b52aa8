//! Where traffic makes a stop on its way: waypoints and the gateways of other networks.

use std::fmt;
use std::net::IpAddr;

use crate::proto::workload as proto;
use crate::service::ServiceKey;
use crate::workload::{Network, parse_address};

/// Port of a gateway that names none.
const HBONE_PORT: u16 = 15008;

/// A waypoint or the gateway of a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Who it is.
    pub destination: GatewayDestination,
    /// Its port for tunnels; for a service it is the service's port.
    pub hbone_port: u16,
}

/// How a gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By the name of its service.
    Hostname(ServiceKey),
    /// By the address of a service or of a workload.
    Address {
        /// Where the address means something.
        network: Network,
        /// The address.
        ip: IpAddr,
    },
}

/// What is wrong with the name of a gateway. Whose gateway cannot be read must not be
/// reached past it, so that resource is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Neither a hostname nor an address.
    #[error("names no destination")]
    NoDestination,
    /// Not a name that a service can have.
    #[error("{namespace:?}/{hostname:?} is not the name of a service")]
    Hostname {
        /// Namespace found.
        namespace: String,
        /// Hostname found.
        hostname: String,
    },
    /// An address of neither 4 nor 16 bytes.
    #[error("address of {0} bytes, 4 or 16 expected")]
    Address(usize),
    /// Larger than a port can be.
    #[error("{0} is not a port")]
    Port(u32),
}

impl TryFrom<proto::GatewayAddress> for Gateway {
    type Error = GatewayError;

    fn try_from(message: proto::GatewayAddress) -> Result<Self, Self::Error> {
        use proto::gateway_address::Destination;
        let destination = match message.destination.ok_or(GatewayError::NoDestination)? {
            Destination::Hostname(proto::NamespacedHostname { namespace, hostname }) => {
                let key = ServiceKey::new(&namespace, &hostname);
                let key = key.ok_or(GatewayError::Hostname { namespace, hostname })?;
                GatewayDestination::Hostname(key)
            }
            Destination::Address(address) => {
                let length = address.address.len();
                let ip = parse_address(&address.address).ok_or(GatewayError::Address(length))?;
                GatewayDestination::Address { network: address.network.into(), ip }
            }
        };
        let hbone_port = match message.hbone_mtls_port {
            0 => HBONE_PORT,
            port => u16::try_from(port).map_err(|_| GatewayError::Port(port))?,
        };
        Ok(Self { destination, hbone_port })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            GatewayDestination::Hostname(key) => write!(f, "{key}:{}", self.hbone_port),
            GatewayDestination::Address { network, ip } => {
                write!(f, "{network}/{ip} port {}", self.hbone_port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::gateway_address::Destination;

    fn parse(destination: Option<Destination>, port: u32) -> Result<String, GatewayError> {
        let message = proto::GatewayAddress { destination, hbone_mtls_port: port };
        Gateway::try_from(message).map(|gateway| gateway.to_string())
    }

    fn named(namespace: &str, hostname: &str) -> Option<Destination> {
        let (namespace, hostname) = (namespace.to_owned(), hostname.to_owned());
        Some(Destination::Hostname(proto::NamespacedHostname { namespace, hostname }))
    }

    fn at(address: &[u8]) -> Option<Destination> {
        let (network, address) = ("n".to_owned(), address.to_vec());
        Some(Destination::Address(proto::NetworkAddress { network, address, length: None }))
    }

    #[test]
    fn table() {
        let hostname = |namespace: &str, hostname: &str| {
            let (namespace, hostname) = (namespace.to_owned(), hostname.to_owned());
            Err(GatewayError::Hostname { namespace, hostname })
        };
        let cases = [
            (named("shop", "way"), 0, Ok("shop/way:15008".to_owned())),
            (named("shop", "way"), 15009, Ok("shop/way:15009".to_owned())),
            (at(&[10, 0, 0, 1]), 0, Ok("n/10.0.0.1 port 15008".to_owned())),
            (None, 0, Err(GatewayError::NoDestination)),
            (named("shop", ""), 0, hostname("shop", "")),
            (at(&[1, 2, 3]), 0, Err(GatewayError::Address(3))),
            (named("shop", "way"), 65536, Err(GatewayError::Port(65536))),
        ];
        for (destination, port, expected) in cases {
            assert_eq!(parse(destination.clone(), port), expected, "{destination:?}");
        }
    }
}
