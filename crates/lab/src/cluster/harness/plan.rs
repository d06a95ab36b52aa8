//! Addresses of a cluster. Each cluster has namespaces of its own, so all have the same.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnetwork::{IpNetwork, IpNetworkError};

use crate::options::Family;

/// The bridge of the control plane's machine, to which the nodes are plugged.
pub(crate) const WIRE: &str = "wire";
/// Port of the Kubernetes API.
pub(crate) const API_PORT: u16 = 6443;
/// Name of the machine that runs the control plane.
pub(crate) const CONTROL_PLANE: &str = "control-plane";

const MACHINES_V4: Ipv4Addr = Ipv4Addr::new(172, 31, 99, 0);
const MACHINES_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x31, 0x99, 0, 0, 0, 0, 0);

/// The families of pods, services and nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub family: Family,
}

impl Plan {
    /// Addresses of the control plane, those of the first family first.
    pub fn control_plane(self) -> Vec<IpNetwork> {
        self.machine(1)
    }

    /// Addresses of a node, counted from 1.
    pub fn node(self, number: u8) -> Vec<IpNetwork> {
        self.machine(10 + number)
    }

    /// The networks of all pods.
    pub fn pods(self) -> Vec<&'static str> {
        self.choose("10.244.0.0/16", "fd00:244::/56")
    }

    /// The networks of a node's pods where the harness chooses them, counted from 1.
    pub fn pods_of(self, number: u8) -> Vec<IpNetwork> {
        let v4 = IpNetwork::new(Ipv4Addr::new(10, 244, number, 0).into(), 24);
        let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, u16::from(number), 0, 0, 0, 0);
        self.networks(v4, IpNetwork::new(v6.into(), 64))
    }

    /// The networks of all services.
    pub fn services(self) -> Vec<&'static str> {
        self.choose("10.96.0.0/16", "fd00:96::/112")
    }

    /// The address of the Service `kubernetes`.
    pub fn api_service(self) -> Vec<&'static str> {
        self.choose("10.96.0.1", "fd00:96::1")
    }

    /// The address of the cluster's name server.
    pub fn name_server(self) -> Vec<&'static str> {
        self.choose("10.96.0.10", "fd00:96::a")
    }

    /// An address for a Service of the cluster's user, which no other Service takes by itself:
    /// those below are kept for such wishes.
    pub fn spare_service(self) -> &'static str {
        self.choose("10.96.0.50", "fd00:96::50")[0]
    }

    fn machine(self, host: u8) -> Vec<IpNetwork> {
        let [a, b, c, _] = MACHINES_V4.octets();
        let v4 = IpNetwork::new(Ipv4Addr::new(a, b, c, host).into(), 24);
        let mut v6 = MACHINES_V6.segments();
        v6[7] = u16::from(host);
        let v6 = IpNetwork::new(Ipv6Addr::from(v6).into(), 64);
        self.networks(v4, v6)
    }

    fn networks(
        self,
        v4: Result<IpNetwork, IpNetworkError>,
        v6: Result<IpNetwork, IpNetworkError>,
    ) -> Vec<IpNetwork> {
        let both = self.choose(v4, v6).into_iter();
        both.map(|network| network.expect("the lengths of the prefixes are valid")).collect()
    }

    fn choose<T>(self, v4: T, v6: T) -> Vec<T> {
        match self.family {
            Family::V4 => vec![v4],
            Family::V6 => vec![v6],
            Family::Dual => vec![v4, v6],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_addresses_of_the_chosen_families() {
        let text = |plan: Plan, node| {
            plan.node(node).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(Plan { family: Family::V4 }, 1), "172.31.99.11/24");
        assert_eq!(text(Plan { family: Family::V6 }, 2), "fd00:31:99::c/64");
        assert_eq!(text(Plan { family: Family::Dual }, 1), "172.31.99.11/24 fd00:31:99::b/64");
    }
}
