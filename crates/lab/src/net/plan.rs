//! Which address belongs to whom. PURE.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::options::Family;

/// The hub on the wire: the cluster's API server and control listen here.
pub(crate) const HUB_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The same for IPv6.
pub(crate) const HUB_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1);

/// Port of the Kubernetes API on the hub.
pub(crate) const API_PORT: u16 = 6443;
/// Port of control on the hub.
pub(crate) const CONTROL_PORT: u16 = 15012;

const WIRE_V4_PREFIX: u8 = 24;
const WIRE_V6_PREFIX: u8 = 64;

pub(crate) fn hub() -> [IpNetwork; 2] {
    on_wire(HUB_V4, HUB_V6)
}

pub(crate) fn hub_addr(port: u16) -> SocketAddr {
    SocketAddr::from((HUB_V4, port))
}

pub(crate) fn node_v4(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + node)
}

pub(crate) fn node_v6(node: u8) -> Ipv6Addr {
    // Written as people read it: node 1 is ::11, like 172.30.0.11.
    Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x10 + u16::from(node))
}

pub(crate) fn node(node: u8) -> [IpNetwork; 2] {
    on_wire(node_v4(node), node_v6(node))
}

/// The range of a node's pods, one per family.
pub(crate) fn pods(node: u8, family: Family) -> Vec<IpNetwork> {
    let v4 = v4_network(Ipv4Addr::new(10, 20, node, 0), 24);
    let v6 = v6_network(Ipv6Addr::new(0xfd00, 0x20, u16::from(node), 0, 0, 0, 0, 0), 64);
    of_family(family, v4, v6)
}

fn of_family(family: Family, v4: IpNetwork, v6: IpNetwork) -> Vec<IpNetwork> {
    match family {
        Family::V4 => vec![v4],
        Family::V6 => vec![v6],
        Family::Dual => vec![v4, v6],
    }
}

/// The ranges of services' addresses, one per family.
pub(crate) fn services(family: Family) -> Vec<IpNetwork> {
    let v4 = v4_network(Ipv4Addr::new(10, 96, 0, 0), 16);
    let v6 = v6_network(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0), 112);
    of_family(family, v4, v6)
}

fn on_wire(v4: Ipv4Addr, v6: Ipv6Addr) -> [IpNetwork; 2] {
    [v4_network(v4, WIRE_V4_PREFIX), v6_network(v6, WIRE_V6_PREFIX)]
}

fn v4_network(address: Ipv4Addr, prefix: u8) -> IpNetwork {
    Ipv4Network::new_checked(address, prefix).expect("a prefix of at most 32 bits").into()
}

fn v6_network(address: Ipv6Addr, prefix: u8) -> IpNetwork {
    Ipv6Network::new_checked(address, prefix).expect("a prefix of at most 128 bits").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_documented_ones() {
        assert_eq!(hub().map(|n| n.to_string()), ["172.30.0.1/24", "fd00:30::1/64"]);
        assert_eq!(node(1).map(|n| n.to_string()), ["172.30.0.11/24", "fd00:30::11/64"]);
        assert_eq!(node(9).map(|n| n.to_string()), ["172.30.0.19/24", "fd00:30::19/64"]);
        let text = |family| pods(2, family).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(Family::V4), ["10.20.2.0/24"]);
        assert_eq!(text(Family::V6), ["fd00:20:2::/64"]);
        assert_eq!(text(Family::Dual), ["10.20.2.0/24", "fd00:20:2::/64"]);
    }
}
